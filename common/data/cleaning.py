"""Which responses of a ranking can be compared: the empty, the identical, the unranked cannot."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from common.data.ranks import Ranks, judges, ranks_of_scores
from common.data.records import Ranking

ONE_RESPONSE = "one response"
EMPTY = "empty"
IDENTICAL = "identical"
NOT_RANKED = "not ranked"


class Cleaned(NamedTuple):
    """A ranking without what cannot be compared."""

    ranking: Ranking | None
    """None when fewer than two responses are left."""
    removed: list[tuple[str, int]]
    """(reason, number of responses removed for it), one after the other. Where nothing is left, the
    last reason is the one that left too few, and counts the rest of the responses."""


def clean(ranking: Ranking) -> Cleaned:
    """Removes empty responses, then repeated ones, then those that no labeler compared.

    Of responses with the same text (white space at the ends aside) the first stays, at its own
    place, or at the next one's where a labeler did not rank it. The others are ranked anew.
    Labelers who have nothing left to compare are gone, too.
    """
    if ranking.flaw:
        return Cleaned(None, [(ranking.flaw, len(ranking.responses))])
    if len(ranking.responses) < 2:
        return Cleaned(None, [(ONE_RESPONSE, len(ranking.responses))])
    removed: list[tuple[str, int]] = []
    texts = [response.strip() for response in ranking.responses]
    groups: dict[str, list[int]] = {}
    for i, text in enumerate(texts):
        groups.setdefault(text, []).append(i)
    empty = len(groups.pop("", []))
    kept, repeated = list(groups.values()), len(texts) - empty - len(groups)
    ranks = judges([_ranks_of(row, kept) for row in ranking.ranks])
    ranked = [i for i in range(len(kept)) if any(row[i] is not None for row in ranks)]
    left = len(texts)
    for reason, count in (
        (EMPTY, empty),
        (IDENTICAL, repeated),
        (NOT_RANKED, len(kept) - len(ranked)),
    ):
        if left - count < 2:
            return Cleaned(None, [*removed, (reason, left)])
        if count:
            removed.append((reason, count))
            left -= count
    cleaned = replace(
        ranking,
        responses=tuple(ranking.responses[kept[i][0]] for i in ranked),
        ranks=tuple(tuple(row[i] for i in ranked) for row in ranks),
    )
    return Cleaned(cleaned, removed)


def _ranks_of(row: Ranks, groups: Sequence[Sequence[int]]) -> Ranks:
    """A labeler's ranks of groups of identical responses."""
    return ranks_of_scores(
        [next((row[i] for i in group if row[i] is not None), None) for group in groups]
    )
