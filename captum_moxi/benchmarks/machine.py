"""The machine that a benchmark runs on: its description, its clock and its memory."""

import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch


def describe_machine(device: torch.device) -> str:
    """Describe the processor, and the GPU if ``device`` is one, with the versions that a measurement depends on."""
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
    """Return the peak memory of this process in bytes: on a GPU what torch allocated, on a CPU the resident size."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    # The module does not exist on Windows, where the other benchmarks run.
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS reports bytes, other systems KiB.
    return peak if sys.platform == "darwin" else 1024 * peak


def _processor() -> str:
    """Return the name of the processor. Linux has it only in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
