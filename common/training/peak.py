"""How much memory a process has taken at most, of what it could plan for."""

import contextlib
import ctypes
import gc
import importlib
from pathlib import Path
from typing import ClassVar

import torch

LATE = ("datasets", "peft", "transformers.optimization", "matplotlib.figure")
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

    past: ClassVar[dict[str, float]] = {}
    """A card's peaks in the phases that are over."""

    def __init__(self) -> None:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            PeakMemory.past = {}
            self.level = torch.cuda.memory_allocated() / 2**20
            return
        with contextlib.suppress(AttributeError, OSError):  # another C library, a closed system
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        self.level = _status("VmRSS")

    def megabytes(self) -> float:
        """Peak so far, above the level."""
        if torch.cuda.is_available():
            return self._so_far("allocated") - self.level
        return _status("VmHWM") - self.level

    def reserved_megabytes(self) -> float | None:
        """What PyTorch's caching allocator has held of a card at most; None without one."""
        return self._so_far("reserved") if torch.cuda.is_available() else None

    @classmethod
    def of_phase(cls) -> dict[str, float]:
        """A card's peaks since this was last asked, in megabytes: `allocated`, and `reserved`.

        Empty without a card, where asking would cost more than it tells.
        """
        if not torch.cuda.is_available():
            return {}
        peaks = _of_card()
        cls.past = {kind: max(cls.past.get(kind, 0.0), size) for kind, size in peaks.items()}
        torch.cuda.reset_peak_memory_stats()
        return peaks

    def _so_far(self, kind: str) -> float:
        return max(_of_card()[kind], PeakMemory.past.get(kind, 0.0))


def _of_card() -> dict[str, float]:
    """Megabytes at the peaks since they were last set back."""
    peaks = {
        "allocated": torch.cuda.max_memory_allocated(),
        "reserved": torch.cuda.max_memory_reserved(),
    }
    return {kind: size / 2**20 for kind, size in peaks.items()}


def _status(name: str) -> float:
    """A line of /proc/self/status, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return float(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/self/status has no {name}")
