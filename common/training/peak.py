"""How much memory a process has taken at most, of what it could plan for."""

import contextlib
import ctypes
import gc
import importlib
from pathlib import Path

import torch

LATE = ("datasets", "peft", "transformers.optimization")
LATE_WITH_ZERO = (
    "deepspeed.runtime.zero.stage_1_and_2",
    "deepspeed.runtime.zero.stage3",
    "deepspeed.runtime.zero.muon.muon_optimizer",  # and with it torch's compiler
)
"""Modules that a stage would import on its way: 50 to 150 MB, which are no part of its own peak."""


def import_late_modules(zero: bool) -> None:
    """Imports what a stage would import anyway, before its memory is looked at.

    Args:
        zero: whether a model is to be spread over ranks.
    """
    for name in (*LATE, *(LATE_WITH_ZERO if zero else ())):
        importlib.import_module(name)


class PeakMemory:
    """Of the card where there is one, else of this process; made when the work begins.

    What earlier work has left behind is given back first, so that it does not hide in the level.
    Where the system does not let the peak begin anew, it may be one of before.
    """

    def __init__(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self.level = torch.cuda.memory_allocated() / 2**20
            return
        with contextlib.suppress(AttributeError, OSError):  # another C library, a closed system
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
