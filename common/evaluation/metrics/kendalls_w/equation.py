"""How far labelers agree on one prompt, and what that is made of: ranks."""

from collections import Counter
from collections.abc import Sequence

Ranks = Sequence[float | None]
"""`[responses]`: 1 is the best, tied ones share the mean of their places, None was not ranked."""


def ranks_of_scores(scores: Ranks) -> tuple[float | None, ...]:
    """Ranks of values of which the lowest is best; equal ones share the mean of their places.

    What is None has no rank, and the others are ranked as if it were not there.
    """
    given = [score for score in scores if score is not None]
    return tuple(
        None
        if score is None
        else sum(other < score for other in given) + (1 + given.count(score)) / 2
        for score in scores
    )


def judges(ranks: Sequence[Ranks]) -> list[Ranks]:
    """The labelers who compared anything: those who ranked two responses at least."""
    return [row for row in ranks if sum(rank is not None for rank in row) >= 2]


def kendalls_w(ranks: Sequence[Ranks]) -> float | None:
    """Kendall's coefficient of concordance, corrected for ties.

    With m labelers and n responses, R_i the sum of the ranks of response i and S the sum of the
    squared deviations of R_i from their mean:

        W = 12·S / (m²·(n³ − n) − m·Σ_j T_j),    T_j = Σ (t³ − t) over labeler j's groups of t ties

    Source: M. G. Kendall, Rank Correlation Methods (1948), chapter 6; the same as
    `KendallW(x, correct = TRUE)` of R's DescTools, which passes over incomplete columns too
    (https://andrisignorell.github.io/DescTools/reference/KendallW.html).

    Args:
        ranks: `[labelers][responses]`; only their order within a labeler counts. A labeler who
            ranked fewer than two responses says nothing and is passed over; of the others, the
            responses that every one of them ranked are compared.

    Returns:
        0 (no agreement) to 1 (all give the same order). None where W has no meaning: fewer than
        two labelers, fewer than two responses that all of them ranked, or every labeler ties all
        of these.
    """
    labelers = judges(ranks)
    m = len(labelers)
    if m < 2:
        return None
    columns = [column for column in zip(*labelers, strict=True) if None not in column]
    n = len(columns)
    if n < 2:
        return None
    within = [ranks_of_scores(row) for row in zip(*columns, strict=True)]
    sums = [sum(column) for column in zip(*within, strict=True)]
    mean = m * (n + 1) / 2
    s = sum((total - mean) ** 2 for total in sums)
    ties = sum(t**3 - t for row in within for t in Counter(row).values())
    most = m**2 * (n**3 - n) - m * ties
    return 12 * s / most if most else None
