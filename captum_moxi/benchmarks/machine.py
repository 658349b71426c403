"""Describes the machine that a benchmark runs on, and measures time and memory."""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def describe_machine(device: torch.device) -> str:
    """Describe the processor, the GPU if there is one, and the number of threads, with torch's and Python's version."""
    name = _processor()
    if device.type == "cuda":
        name = f"{torch.cuda.get_device_name(device)}, {name}"
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}, Python {platform.python_version()}"


def time_call(call: Callable[[], object], device: torch.device) -> float:
    """Return the seconds that a call takes until the device has finished its work."""
    synchronize(device)
    start = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - start


def synchronize(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of this process in bytes: torch's allocations on a GPU, the resident size on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # Windows does not have this module. The import is here, so that the other benchmarks run on Windows.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS reports bytes, other systems KiB.
    return peak if sys.platform == "darwin" else 1024 * peak


def _processor() -> str:
    """Return the name of the processor. On Linux, only /proc/cpuinfo contains the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
