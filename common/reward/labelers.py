"""How often labelers agree among themselves: no model can be expected to agree with them more."""

from collections.abc import Sequence

import numpy as np

from common.data.records import Pair, Ranking
from common.reward.held_out import HeldOut

STEPS = (0.25, 0.5, 0.75)
"""Between groups of prompts by Kendall's W."""
SUPPORT = ("half of them or fewer", "most of them", "all of them")
"""Groups of pairs by the labelers who prefer the preferred response themselves."""


def one_against_others(ranking: Ranking, one: str, other: str) -> list[float]:
    """For each labeler, whether he orders two responses as the mean rank of the others does.

    Labelers who did not rank both are passed over.

    Returns:
        1 for the same order, 0 for the opposite one, a half where he or the others tie them; `[]`
        with fewer than two labelers.
    """
    i, j = ranking.responses.index(one), ranking.responses.index(other)
    gaps = [row[j] - row[i] for row in ranking.ranks if None not in (row[i], row[j])]
    if len(gaps) < 2:
        return []
    found = []
    for k, gap in enumerate(gaps):
        product = gap * (sum(gaps[:k]) + sum(gaps[k + 1 :]))
        found.append(0.5 + 0.5 * (product > 0) - 0.5 * (product < 0))
    return found


def leave_one_out(held_out: HeldOut) -> np.ndarray:
    """How often one labeler orders a held-out pair as the others do together, leaving each out.

    As a yardstick it errs on both sides: a labeler is compared with one labeler fewer than the
    model is, which makes it too low; and the pairs were chosen with his vote, which makes it too
    high.

    Returns:
        `[pairs]`, the mean over labelers; NaN where not two of them ranked both responses.
    """
    values = []
    for pair, number in zip(held_out.pairs, held_out.prompts, strict=True):
        ranking = held_out.rankings[number]
        found = [] if ranking is None else one_against_others(ranking, pair.chosen, pair.rejected)
        values.append(sum(found) / len(found) if found else np.nan)
    return np.array(values)


def support_groups(pairs: Sequence[Pair]) -> list[int | None]:
    """The number in `SUPPORT` of each pair; None where nobody's own comparison is known."""
    return [None if s is None else int(s > 0.5) + int(s == 1) for s in (p.support for p in pairs)]


def agreement_groups(agreement: Sequence[float | None]) -> list[int | None]:
    """The group of each pair by Kendall's W of its prompt; None where that is not known."""
    return [None if w is None else sum(w >= step for step in STEPS) for w in agreement]


def agreement_name(group: int) -> str:
    """What W is in a group."""
    edges = (0.0, *STEPS, 1.0)
    return f"{edges[group]:g} to {edges[group + 1]:g}"
