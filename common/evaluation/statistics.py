"""Bootstrap intervals and win/tie/loss counts whose unit is the prompt.

Several samples of one prompt are not independent of each other: they share its difficulty. So a
prompt's samples are averaged first, and prompts are what is resampled, paired and counted.
"""

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple, TypeVar

import numpy as np

Prompt = TypeVar("Prompt", bound=Hashable)

RESAMPLES = 2000
TIE_TOLERANCE = 1e-9
"""Two means of the same points may differ by rounding alone; that is a tie."""

_INDICES_AT_ONCE = 4_000_000
"""Bounds the memory of one draw (8 bytes an index) when there are very many prompts."""


class WinTieLoss(NamedTuple):
    """Counts of prompts, as seen from the first of the two models compared."""

    wins: int
    ties: int
    losses: int


def mean_by_prompt(pairs: Iterable[tuple[Prompt, float]]) -> dict[Prompt, float]:
    """Mean value of each prompt's samples, in the order in which prompts first appear.

    Args:
        pairs: (prompt, value of one sample).
    """
    values: dict[Prompt, list[float]] = {}
    for prompt, value in pairs:
        values.setdefault(prompt, []).append(value)
    return {prompt: float(np.mean(samples)) for prompt, samples in values.items()}


def bootstrap_ci(
    values: Iterable[float], seed: int, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean (Efron 1979), in the unit of `values`.

    Each resample draws as many values as there are, with replacement; the interval runs between
    the (1 − level)/2 and (1 + level)/2 quantiles of the resamples' means. For a paired difference
    give the differences.

    Args:
        values: one value a prompt, `[prompts]`.
        seed: the same seed and values give the same interval.

    Raises:
        ValueError: no values, or one of them is not finite.
    """
    data = np.fromiter(values, dtype=np.float64)
    if data.size == 0 or not np.isfinite(data).all():
        raise ValueError("bootstrap_ci needs at least one value, and finite ones only")
    rng = np.random.default_rng(seed)
    rows = max(1, _INDICES_AT_ONCE // data.size)
    means = [
        data[rng.integers(data.size, size=(min(rows, resamples - done), data.size))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    tail = 100.0 * (1.0 - level) / 2.0
    low, high = np.percentile(np.concatenate(means), [tail, 100.0 - tail])
    return float(low), float(high)


def win_tie_loss(first: Mapping[Prompt, float], second: Mapping[Prompt, float]) -> WinTieLoss:
    """On how many prompts `first` is higher, equal (within `TIE_TOLERANCE`) and lower.

    Args:
        first, second: prompt -> its mean; only prompts in both are counted.
    """
    gaps = [first[prompt] - second[prompt] for prompt in first if prompt in second]
    wins = sum(gap > TIE_TOLERANCE for gap in gaps)
    losses = sum(gap < -TIE_TOLERANCE for gap in gaps)
    return WinTieLoss(wins, len(gaps) - wins - losses, losses)
