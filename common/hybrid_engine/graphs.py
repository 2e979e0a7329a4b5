"""Decode steps that are recorded once and played many times.

At one token a row, a GPU is done with a kernel before the host has launched the next: a 1.3B
model's step has about a thousand of them. A CUDA graph launches them all at once.
"""

import warnings
from collections.abc import Callable

import torch

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a step, and returns what repeats it without the host's part."""


class StepGraphs:
    """One recording for each number of rows and width of the cache."""

    def __init__(self, step: Callable[[int, int], None], record: Recorder) -> None:
        """Args:
        step: takes a number of rows and a width; works in place on tensors that stay where they
            are, and asks the device nothing.
        """
        self.step = step
        self.record = record
        self.played: dict[tuple[int, int], Callable[[], None] | None] = {}
        self.works = True

    def run(self, rows: int, width: int) -> None:
        """One step. The first of its size is launched as usual, which warms up; later ones play."""
        size = (rows, width)
        if not self.works or size not in self.played:
            self.played[size] = None
            self.step(rows, width)
            return
        play = self.played[size] or self._recorded(rows, width)
        self.played[size] = play
        play()

    def _recorded(self, rows: int, width: int) -> Callable[[], None]:
        try:
            return self.record(lambda: self.step(rows, width))
        except RuntimeError as error:  # a model that asks the device something, for instance
            warnings.warn(f"decode steps cannot be recorded: {error}", stacklevel=2)
            self.works = False
            return lambda: self.step(rows, width)


def cuda_recorder() -> Recorder | None:
    """Records CUDA graphs that share their memory; None without a card."""
    if not torch.cuda.is_available():
        return None
    pool = torch.cuda.graph_pool_handle()

    def record(step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=pool):
            step()
        return graph.replay

    return record
