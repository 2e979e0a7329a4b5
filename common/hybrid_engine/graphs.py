"""Decode steps that are recorded once and played many times.

At one token a row, a GPU is done with a kernel before the host has launched the next: a 1.3B
model's step has about a thousand of them. A CUDA graph launches them all at once.
"""

from collections.abc import Callable

import torch

Recorder = Callable[[Callable[[], None]], Callable[[], None]]
"""Takes a step, and returns what repeats it without the host's part."""


class StepGraphs:
    """One recording for each number of rows and width of the cache."""

    def __init__(self, record: Recorder) -> None:
        self.record = record
        self.played: dict[tuple[int, int], Callable[[], None] | None] = {}

    def run(self, rows: int, width: int, step: Callable[[], None]) -> None:
        """One step. The first of its size is launched as usual, which warms up; later ones play.

        Args:
            step: of these rows and this width; works in place on tensors that stay where they
                are, and asks the device nothing.
        """
        size = (rows, width)
        if size not in self.played:
            self.played[size] = None
            step()
            return
        play = self.played[size]
        if play is None:
            play = self.played[size] = self.record(step)
        play()


def cuda_recorder() -> Recorder | None:
    """Records CUDA graphs that share their memory; None without a card.

    A model that asks the device something, or chooses rows by a mask, cannot be recorded: its
    first recording ends in CUDA's own error.
    """
    if not torch.cuda.is_available():
        return None
    pool = torch.cuda.graph_pool_handle()

    def record(step: Callable[[], None]) -> Callable[[], None]:
        graph = torch.cuda.CUDAGraph()
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
            step()
        return graph.replay

    return record
