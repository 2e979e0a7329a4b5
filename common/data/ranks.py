"""One labeler's ranks of the responses to one prompt."""

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
