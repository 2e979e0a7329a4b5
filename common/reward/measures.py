"""Shares with intervals, and correlations: what the diagnostics of a reward model are made of.

The pairs of one prompt share its difficulty, so every interval takes the prompt for its unit.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.evaluation.statistics import RESAMPLES, wilson

ENOUGH = 10
"""Prompts below which a curve or a difference would show chance alone."""
_AT_ONCE = 4_000_000
"""Numbers of a resampling in memory at a time."""


@dataclass(frozen=True)
class Estimate:
    """A mean over pairs or responses, with the 95 % interval of it."""

    value: float
    low: float
    high: float
    count: int
    """Of what the mean is over."""
    prompts: int

    def facts(self) -> dict[str, Any]:
        """For `result.json`."""
        return {
            "value": round(self.value, 4),
            "ci95": [round(self.low, 4), round(self.high, 4)],
            "count": self.count,
            "prompts": self.prompts,
        }


def share(values: np.ndarray, prompts: np.ndarray) -> Estimate:
    """The mean of values in [0, 1], with an interval that never is narrower than the data allow.

    A bootstrap over prompts; of few prompts, or where all values are equal, Wilson's interval with
    the number of prompts as that of independent draws.

    Args:
        values, prompts: `[count]`, and the number of the prompt that each belongs to.
    """
    mean, number = float(values.mean()), len(np.unique(prompts))
    if number < ENOUGH or values.min() == values.max():
        low, high = wilson(mean, number)
    else:
        low, high = bootstrap(values, prompts)
    return Estimate(mean, low, high, len(values), number)


def mean(values: np.ndarray, prompts: np.ndarray) -> Estimate | None:
    """The mean of any values with its bootstrap interval over prompts; None with few prompts."""
    number = len(np.unique(prompts))
    if number < ENOUGH:
        return None
    return Estimate(float(values.mean()), *bootstrap(values, prompts), len(values), number)


def bootstrap(values: np.ndarray, prompts: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95 % percentile interval of the mean over all values, when whole prompts are drawn anew.

    Args:
        values, prompts: as of `share`.
    """
    _, numbers = np.unique(prompts, return_inverse=True)
    sums, counts = np.bincount(numbers, weights=values), np.bincount(numbers)
    rng = np.random.default_rng(seed)
    rows = max(1, _AT_ONCE // len(sums))
    means = []
    for done in range(0, RESAMPLES, rows):
        # How often each prompt is drawn.
        drawn = rng.multinomial(
            len(sums), [1 / len(sums)] * len(sums), size=min(rows, RESAMPLES - done)
        )
        means.append(drawn @ sums / (drawn @ counts))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(low), float(high)


def by_group(
    values: np.ndarray,
    prompts: np.ndarray,
    groups: Sequence[int | None],
    name: Callable[[int], str],
) -> dict[str, Estimate]:
    """`share` of each group, in the order of their numbers; what is in no group is left out.

    Args:
        values, prompts: as of `share`.
        groups: `[count]`; name: of a group.
    """
    numbers = np.array([-1 if g is None else g for g in groups])
    return {
        name(g): share(values[numbers == g], prompts[numbers == g])
        for g in sorted(set(numbers.tolist()) - {-1})
    }


def distribution(values: np.ndarray) -> dict[str, float]:
    """Mean, deviation and quartiles of scores."""
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {
        "mean": float(values.mean()),
        "std": float(values.std()),
        "p25": float(low),
        "median": float(middle),
        "p75": float(high),
    }


def correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Pearson's correlation; None where one of them does not vary."""
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    # What is left of equal numbers by rounding is no variation.
    if len(x) < 2 or min(np.ptp(v) / (np.abs(v).max() or 1.0) for v in (x, y)) < 1e-12:
        return None
    return float(np.corrcoef(x, y)[0, 1])


def partial_correlation(
    a: Sequence[float], b: Sequence[float], given: Sequence[float]
) -> float | None:
    """Correlation of what a linear fit on `given` leaves of `a` and of `b`.

    (r_ab − r_ac·r_bc) / √((1 − r_ac²)(1 − r_bc²)); None where nothing is left of one of them.
    """
    ab, ac, bc = correlation(a, b), correlation(a, given), correlation(b, given)
    if ab is None:
        return None
    if ac is None or bc is None:  # `given` explains nothing
        return ab
    left = (1 - ac**2) * (1 - bc**2)
    return None if left < 1e-12 else (ab - ac * bc) / math.sqrt(left)


def centred(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Each value less the mean of its prompt, `[count]`."""
    _, numbers = np.unique(prompts, return_inverse=True)
    means = np.bincount(numbers, weights=values) / np.bincount(numbers)
    return values - means[numbers]
