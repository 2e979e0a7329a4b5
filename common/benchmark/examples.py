"""What both contenders train on, and how each of them is measured."""

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from common.benchmark.shapes import BOS, EOS, Shape
from common.training.peak import PeakMemory

SFT_BATCH, REWARD_BATCH = 32, 16
PROMPT, RESPONSE = (16, 40), (8, 40)
"""Shortest and longest, tokens; lengths are drawn evenly between."""
LEARNING_RATE = 1e-4


@dataclass
class Meter:
    """Clock and memory of one process; made when everything is imported."""

    started: float = field(default_factory=time.perf_counter)
    ends: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.tokens = 0
        self.memory = PeakMemory()

    def step(self) -> None:
        """An optimizer step has ended."""
        self.ends.append(time.perf_counter())

    def write(self, path: str) -> None:
        """Seconds a step (the median, without the first tenth), tokens that were trained on, and
        megabytes above the start: of the card where there is one, else of the process."""
        seconds = np.diff(self.ends)[len(self.ends) // 10 :]
        values = {"seconds": float(np.median(seconds)), "megabytes": self.memory.megabytes()}
        values["tokens"] = self.tokens
        Path(path).write_text(json.dumps(values))


def sft_rows(shape: Shape, steps: int, batch: int = SFT_BATCH) -> list[tuple[list[int], list[int]]]:
    """(prompt, response with its end token) of `steps` batches."""
    rng = np.random.default_rng(0)
    return [(_prompt(rng, shape), _response(rng, shape)) for _ in range(steps * batch)]


def reward_rows(
    shape: Shape, steps: int, batch: int = REWARD_BATCH
) -> list[tuple[list[int], list[int]]]:
    """(prompt + better response, prompt + worse one) of `steps` batches."""
    rng = np.random.default_rng(1)
    found = []
    for _ in range(steps * batch):
        prompt = _prompt(rng, shape)
        found.append((prompt + _response(rng, shape), prompt + _response(rng, shape)))
    return found


def _prompt(rng: np.random.Generator, shape: Shape) -> list[int]:
    count = rng.integers(PROMPT[0], PROMPT[1] + 1)
    return [BOS, *rng.integers(3, shape.vocabulary, count - 1).tolist()]


def _response(rng: np.random.Generator, shape: Shape) -> list[int]:
    count = rng.integers(RESPONSE[0], RESPONSE[1] + 1)
    return [*rng.integers(3, shape.vocabulary, count - 1).tolist(), EOS]
