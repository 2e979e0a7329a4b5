"""Clock and memory."""

import ctypes
import gc
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch


def now() -> float:
    """Seconds, after the device has finished what was asked of it."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def timed(work: Callable[[], Any], repeats: int) -> float:
    """Seconds, the best of several after one to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        started = now()
        work()
        seconds.append(now() - started)
    return best(seconds[1:])


def best(seconds: Sequence[float]) -> float:
    """The smallest of several measurements: everything else on the machine only adds."""
    return min(seconds)


class PeakMemory:
    """Of the card where there is one, else of this process; made when the work begins.

    What earlier work has left behind is given back first, so that it does not hide in the level.
    """

    def __init__(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.level = torch.cuda.memory_allocated() / 2**20
            return
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.level = _status("VmRSS")

    def megabytes(self) -> float:
        """Peak so far, above the level."""
        if torch.cuda.is_available():
            return torch.cuda.max_memory_allocated() / 2**20 - self.level
        return _status("VmHWM") - self.level


def _status(name: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")
