"""Out of memory: recognizes the errors that mean it, and describes how much memory was needed."""

import errno
import math
import re
import sys
from traceback import clear_frames

import torch

# What PyTorch, CUDA, C++ and oneDNN write into a RuntimeError. If oneDNN does not support an operation, it could not
# create a "primitive descriptor".
REASONS = re.compile(
    "can't allocate memory|out of memory|bad_alloc|ALLOC_FAILED|could not (create|execute) a primitive(?! descriptor)"
)
# The request in the messages of PyTorch and NumPy: "tried to allocate 2.00 GiB", "Unable to allocate 128. GiB for ...".
REQUEST = re.compile(r"(?:tried|unable) to allocate ([\d.]+) ?(bytes|[KMGTPE]i?B)", re.IGNORECASE)
UNITS = "BKMGTPE"


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that memory ran out, on any device.

    PyTorch raises ``torch.OutOfMemoryError`` on GPUs and a ``RuntimeError`` on CPUs. Python and NumPy raise a
    ``MemoryError``. Mapping a file raises an ``OSError``.
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and REASONS.search(str(error)) is not None


def too_large(what: str, error: BaseException, *, advice: str) -> torch.OutOfMemoryError:
    """Return an error about something that does not fit into memory, with the memory that it needed.

    The frames of ``error`` are cleared, because their tensors would use memory as long as the error exists.

    Args:
        what (str): What does not fit, as the subject of a sentence.
        error (BaseException): An error for which :func:`is_out_of_memory` is True.
        advice (str): What to pass instead.
    """
    needed = _describe_request(error)
    clear_frames(error.__traceback__)
    return torch.OutOfMemoryError(f"{what} does not fit into memory ({needed}); {advice}")


def _describe_request(error: BaseException) -> str:
    """Return the size of the allocation that failed, and what was in use before if the device is a CPU."""
    match = REQUEST.search(str(error))
    if match is None:
        failed = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no details')}"
    else:
        size = float(match[1].rstrip(".")) * 1024 ** UNITS.index(match[2][0].upper())
        failed = f"an allocation of {_mebibytes(size)} failed"
    used = None if isinstance(error, torch.OutOfMemoryError) else _peak_memory()
    return failed if used is None else f"{failed}, and the process already used up to {_mebibytes(used)}"


def _mebibytes(size: float) -> str:
    return f"{math.ceil(size / 2**20):,} MiB"


def _peak_memory() -> int | None:
    """Return the largest number of bytes of main memory that the process has used, or None if it is unknown."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
