"""Which examples make up each optimizer step, on each rank.

A plan depends only on (number of examples, batch size, seed, epoch): any rank, at any time, can
work out any step of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from common.errors import UserError
from common.training.seeding import numpy_stream

FILLER = -1
"""Stands for a row without weight: it keeps the last step of an epoch as wide as the others, so
that all ranks run equally many forwards and no example is dropped or counted twice."""


@dataclass(frozen=True)
class BatchShape:
    """How one optimizer step is cut up."""

    batch_size: int
    """Examples per optimizer step, over all ranks."""
    micro_batch_size: int
    """Examples per forward, on each rank; no more than its share of a step."""
    world_size: int

    def __post_init__(self) -> None:
        if min(self.batch_size, self.micro_batch_size, self.world_size) < 1:
            raise UserError("batch_size and micro_batch_size must be at least 1")
        if self.batch_size % self.world_size == 0:
            share = self.batch_size // self.world_size
            object.__setattr__(self, "micro_batch_size", min(self.micro_batch_size, share))
        if self.batch_size % (self.micro_batch_size * self.world_size):
            raise UserError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size "
                f"{self.micro_batch_size} × {self.world_size} ranks"
            )

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step, on each rank."""
        return self.batch_size // (self.micro_batch_size * self.world_size)


def steps_per_epoch(examples: int, batch_size: int) -> int:
    """Optimizer steps that visit every example once; the last may hold fillers."""
    return -(-examples // batch_size)


def step_indices(examples: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Examples of optimizer step `step` (counted from 0 over all epochs), `[batch_size]` ints.

    Each epoch is a fresh permutation; its last step is filled up with `FILLER`.
    """
    epoch, position = divmod(step, steps_per_epoch(examples, batch_size))
    order = numpy_stream(seed, "data order", epoch).permutation(examples)
    chosen = order[position * batch_size : (position + 1) * batch_size]
    return np.pad(chosen, (0, batch_size - len(chosen)), constant_values=FILLER)


def micro_batches(
    indices: np.ndarray, shape: BatchShape, rank: int, lengths: Sequence[int]
) -> Iterator[np.ndarray]:
    """This rank's micro-batches of one step, `[micro_batch_size]` indices each.

    The step's examples are dealt out in order of length: ranks get equal work, and rows of like
    length share a micro-batch, which saves padding. The set of examples stays the same.
    """
    order = sorted(indices.tolist(), key=lambda i: -1 if i == FILLER else lengths[i])
    mine = np.array(order[rank :: shape.world_size])
    for start in range(0, len(mine), shape.micro_batch_size):
        yield mine[start : start + shape.micro_batch_size]


def stream_indices(examples: int, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Batch `step` of an endless stream of permutations, `[batch_size]` ints, without fillers.

    For rollouts: an epoch's end may fall inside a batch.
    """
    start = step * batch_size
    epochs = range(start // examples, (start + batch_size - 1) // examples + 1)
    stream = np.concatenate(
        [numpy_stream(seed, "data order", e).permutation(examples) for e in epochs]
    )
    offset = start - epochs[0] * examples
    return stream[offset : offset + batch_size]


def ends_epoch(step: int, batch_size: int, examples: int) -> bool:
    """Whether batch `step` of a stream, counted from 1, takes the last example of a pass."""
    return step * batch_size // examples > (step - 1) * batch_size // examples
