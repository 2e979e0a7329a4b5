"""From rows to scores with their intervals: of a part, and of a benchmark over its parts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from common.evaluation.statistics import wilson

AVERAGES = {"math": "questions"}
"""Over what a benchmark with parts is averaged: over its questions, all alike (MATH: Hendrycks et
al. 2021, https://arxiv.org/abs/2103.03874, report accuracy over all problems); by default over
its parts (MMLU, BBH, AGIEval), each of which then counts the same however long it is."""


class Estimate(NamedTuple):
    """A score with its interval, all between 0 and 1."""

    score: float
    low: float
    high: float


def estimate(score: float, n: int) -> Estimate:
    """A mean over questions, with the interval of a share: never empty, also at 0 and 1.

    Questions are taken to be independent. For scores between 0 and 1 (F1) the interval is wide
    rather than narrow: no variance is larger than that of rights and wrongs with the same mean.

    Args:
        score: mean over n questions, 0 to 1.
        n: at least 1.
    """
    low, high = wilson(score, n)
    return Estimate(score, min(low, score), max(high, score))  # at 0 and 1 but for rounding


def mean_of_parts(parts: Sequence[Estimate]) -> Estimate:
    """Mean of independent scores, and an interval from theirs.

    The distances to the limits add up as deviations do, each side by itself (Zou and Donner 2008,
    "Construction of confidence limits about effect measures", https://doi.org/10.1002/sim.3095).
    With one part it is that part's own interval.

    Args:
        parts: at least one.
    """
    count = len(parts)
    mean = sum(p.score for p in parts) / count
    below = math.sqrt(sum((p.score - p.low) ** 2 for p in parts)) / count
    above = math.sqrt(sum((p.high - p.score) ** 2 for p in parts)) / count
    return Estimate(mean, mean - below, mean + above)


def score_of(rows: Sequence[Mapping[str, Any]]) -> Estimate:
    """Of the rows of one part."""
    return estimate(sum(row["score"] for row in rows) / len(rows), len(rows))


def benchmark_score(name: str, parts: Mapping[str, Sequence[Mapping[str, Any]]]) -> Estimate:
    """Of all parts of a benchmark, averaged as `AVERAGES` says.

    Args:
        parts: part -> its rows.
    """
    if average_of(name) == "questions":
        return score_of([row for rows in parts.values() for row in rows])
    return mean_of_parts([score_of(rows) for rows in parts.values()])


def average_of(name: str) -> str:
    """Over what a benchmark is averaged: "parts" or "questions"."""
    return AVERAGES.get(name, "parts")


def percent(estimate: Estimate) -> dict[str, float]:
    """Score and limits in percent, rounded to hundredths, as the paper has its scores."""
    return {name: round(100 * value, 2) for name, value in estimate._asdict().items()}
