"""Peak memory of a piece of work, above the level at which it began."""

from pathlib import Path

import torch


class PeakMemory:
    """Of the card where there is one, else of this process. Made when the work begins."""

    def __init__(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            self.level = torch.cuda.memory_allocated() / 2**20
            return
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
