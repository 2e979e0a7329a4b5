"""Wins, ties and losses of one model against another, and the rate made of them."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Verdict = Literal["model", "tie", "other"]

TIE_TOLERANCE = 1e-9
"""Two means of the same points may differ by rounding alone; that is a tie."""


class WinTieLoss(NamedTuple):
    """Counts, as seen from the first of the two models compared."""

    wins: int
    ties: int
    losses: int


def count_gaps(gaps: Iterable[float]) -> WinTieLoss:
    """Counts of score differences: first model − second model, ties within `TIE_TOLERANCE`."""
    found = list(gaps)
    wins = sum(gap > TIE_TOLERANCE for gap in found)
    losses = sum(gap < -TIE_TOLERANCE for gap in found)
    return WinTieLoss(wins, len(found) - wins - losses, losses)


def count_both_orders(first: Iterable[Verdict], second: Iterable[Verdict]) -> WinTieLoss:
    """Counts of a judge's verdicts that were asked for twice, with the answers in both orders.

    A win is one in both orders; whatever the orders disagree on is a tie, for a judge that goes by
    the place prefers both or neither (Zheng et al. 2023, §3.4, https://arxiv.org/abs/2306.05685).

    Args:
        first, second: `[comparisons]`, the verdict with the model's answer shown first, second.

    Raises:
        ValueError: a verdict is none of `model`, `tie` and `other`, or the lengths differ.
    """
    pairs = list(zip(first, second, strict=True))
    odd = {verdict for pair in pairs for verdict in pair}.difference(("model", "tie", "other"))
    if odd:
        raise ValueError(f"a verdict is model, tie or other, not {sorted(map(str, odd))[0]}")
    wins, losses = pairs.count(("model", "model")), pairs.count(("other", "other"))
    return WinTieLoss(wins, len(pairs) - wins - losses, losses)


def win_rate(counts: WinTieLoss) -> float:
    """(wins + ties/2) / all: 0 to 1, a half for equals; NaN where nothing was compared."""
    number = sum(counts)
    return (counts.wins + 0.5 * counts.ties) / number if number else float("nan")
