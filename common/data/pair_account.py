"""The account of how rankings became pairs: what was read, dropped and why, and kept."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from common.data.cleaning import EMPTY, IDENTICAL, NOT_RANKED, ONE_RESPONSE
from common.data.labelers import in_words, who_ranked
from common.data.ranking_layouts import NO_COMMON_PROMPT
from common.data.records import Pair, Ranking

LOW_AGREEMENT = "low agreement"
TIED = "tied"
REASONS = (
    NO_COMMON_PROMPT,
    ONE_RESPONSE,
    EMPTY,
    IDENTICAL,
    NOT_RANKED,
    LOW_AGREEMENT,
    TIED,
)
"""In the order in which they are applied: what is dropped for one never reaches the next."""


class Counts(NamedTuple):
    """Rankings, the responses in them, and the pairs that these can give."""

    rankings: int = 0
    responses: int = 0
    pairs: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """The sum, column by column."""
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


@dataclass
class Account:
    """What `make_pairs` did, with the same numbers in three columns: read - dropped = kept.

    "Pairs" are those that the choice of pairs would give, were no two responses level: four for
    five responses, by default. A ranking that loses a response loses the pairs that so many fewer
    give, often none.
    """

    found: Counts = Counts()
    """All that was read. A ranking is a prompt with its responses, however many labelers it had."""
    dropped: dict[str, Counts] = field(default_factory=dict)
    """By reason. A ranking that lost some of its responses only is not counted as dropped."""
    seen: Counter[str] = field(default_factory=Counter)
    """Rankings, as read, in which the reason was found at all, whatever it cost; it may be several
    in one ranking."""
    prompts: set[str] = field(default_factory=set)
    prompts_kept: set[str] = field(default_factory=set)
    kept: Counts = Counts()
    """Counted from the pairs that were made."""
    orders: Counter[int] = field(default_factory=Counter)
    """Rankings by the number of labelers who ordered them."""
    absent: int = 0
    labelers: set[str] = field(default_factory=set)
    behind: list[tuple[str, ...]] = field(default_factory=list)
    """The names behind each pair that was made."""
    agreements: list[float] = field(default_factory=list)
    down_weighted: int = 0
    joined: int = 0
    """Rankings that several files had a part of."""

    def read(self, ranking: Ranking, places: Sequence[float | None], pairs: int) -> None:
        """A ranking as it was found.

        Args:
            places: `[responses]`, aggregated, None where nobody ranked the response.
            pairs: how many it could give.
        """
        self.found = self.found.plus(Counts(1, len(ranking.responses), pairs))
        orders = sum(any(rank is not None for rank in row) for row in ranking.ranks)
        self.orders[orders] += 1
        self.absent += ranking.absent
        self.labelers.update(ranking.labelers)
        if ranking.flaw:
            self.seen[ranking.flaw] += 1
            return
        self.prompts.add(ranking.prompt_key)
        texts = [text for response in ranking.responses if (text := response.strip())]
        known = [place for place in places if place is not None]
        self.seen[ONE_RESPONSE] += len(ranking.responses) == 1
        if len(ranking.responses) > 1:
            self.seen[EMPTY] += len(texts) < len(ranking.responses)
            self.seen[IDENTICAL] += len(set(texts)) < len(texts)
            self.seen[NOT_RANKED] += len(known) < len(places) or not places
            self.seen[TIED] += len(set(known)) < len(known)

    def drop(self, reason: str, *, rankings: int, responses: int, pairs: int) -> None:
        """What a ranking lost for one reason."""
        counts = Counts(rankings, responses, pairs)
        if any(counts):
            self.dropped[reason] = self.dropped.get(reason, Counts()).plus(counts)

    def agree(self, agreement: float | None, weight: float) -> None:
        """A ranking's agreement, where it has one, and the weight that its pairs have for it."""
        if agreement is not None:
            self.agreements.append(agreement)
        self.seen[LOW_AGREEMENT] += weight < 1
        self.down_weighted += 0 < weight < 1

    def keep(self, ranking: Ranking, pairs: Sequence[Pair]) -> None:
        """What became of a ranking."""
        if pairs:
            self.kept = self.kept.plus(Counts(1, len(ranking.responses), len(pairs)))
            self.prompts_kept.add(ranking.prompt_key)
            self.behind += [pair.labelers for pair in pairs]

    def as_dict(self) -> dict[str, Any]:
        """For `account.json` and `result.json`."""
        means = sum(self.agreements) / len(self.agreements) if self.agreements else None
        return {
            "prompts": {
                "read": len(self.prompts),
                "kept": len(self.prompts_kept),
                "merged": self.joined,
            },
            "labelers": {
                "orders": sum(number * n for number, n in self.orders.items()),
                "could_not_judge": self.absent,
                "names": len(self.labelers) or None,
                "of_pairs": who_ranked(self.behind),
                "rankings_by_orders": {str(k): n for k, n in sorted(self.orders.items())},
            },
            "agreement": {
                "measured": len(self.agreements),
                "mean_kendalls_w": means,
                "down_weighted": self.down_weighted,
            },
            "read": self.found._asdict(),
            "dropped": {
                reason: {"seen_in": self.seen[reason]} | counts._asdict()
                for reason, counts in self._reasons()
            },
            "kept": self.kept._asdict(),
        }

    def table(self) -> str:
        """The account for the terminal."""
        rows = [("", "seen in", *Counts._fields), ("read", "", *self.found)]
        rows += [(f"- {reason}", self.seen[reason], *counts) for reason, counts in self._reasons()]
        rows.append(("= kept", "", *self.kept))
        widths = [max(len(str(row[i])) for row in rows) for i in range(5)]
        lines = [
            str(name).ljust(widths[0])
            + "".join(f"  {value!s:>{w}}" for value, w in zip(values, widths[1:], strict=True))
            for name, *values in rows
        ]
        facts = self.as_dict()
        who = facts["labelers"]
        lines.append(
            f"{len(self.prompts)} prompts, of which {len(self.prompts_kept)} have pairs; "
            f"{who['orders']} orders"
            + (f" by {who['names']} labelers" if who["names"] else "")
            + f", {self.absent} could not judge; who ranked: {in_words(who['of_pairs'])}"
        )
        if self.joined:
            lines.append(f"{self.joined} prompts ranked in several files, merged")
        if self.agreements:
            mean = facts["agreement"]["mean_kendalls_w"]
            lines.append(
                f"agreement: Kendall's W {mean:.3f} on average over {len(self.agreements)} rankings"
                + f", {self.down_weighted} of them down-weighted" * bool(self.down_weighted)
            )
        return "\n".join(lines)

    def _reasons(self) -> list[tuple[str, Counts]]:
        """Reasons that occurred, and what they cost, which may be nothing."""
        return [
            (reason, self.dropped.get(reason, Counts()))
            for reason in REASONS
            if self.seen[reason] or reason in self.dropped
        ]
