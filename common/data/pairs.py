"""From rankings to pairs for the reward model (§3.2): the top two against the bottom two.

Every ranking, response and possible pair that does not end up in a pair is accounted for, by
reason (`common.data.pair_account`).
"""

import hashlib
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.config.arguments import check_range, option
from common.data.aggregation import Aggregation, aggregate
from common.data.agreement import kendalls_w
from common.data.cleaning import clean
from common.data.fields import Problems, has, text_of
from common.data.joining import join_rankings
from common.data.pair_account import LOW_AGREEMENT, TIED, Account
from common.data.ranking_layouts import rankings_of
from common.data.ranks import Ranks
from common.data.readers import Row, read_rows
from common.data.records import Message, Pair, PairNumbers, Ranking
from common.data.sources import DataSource
from common.data.trees import root_of
from common.errors import UserError
from common.files import write_json_lines


@dataclass
class PairArguments:
    """Which responses make pairs, and how much each pair counts."""

    aggregation: Aggregation = option(
        "mean",
        "how several labelers' rankings become one: mean rank, Borda count (every comparison "
        "counts alike, not every labeler), or Bradley-Terry (to beat a strong response counts "
        "more)",
    )
    choice: Literal["top_bottom", "all", "best_worst"] = option(
        "top_bottom", "top responses against bottom ones, every two, or the best against the worst"
    )
    top: int = option(2, "top_bottom: number of best responses that are preferred (paper: 2)")
    bottom: int = option(
        2, "top_bottom: number of worst responses that they are preferred to (paper: 2)"
    )
    min_agreement: float = option(
        0.0,
        "Kendall's W (0 to 1) below which the labelers of a prompt agree too little, and its pairs "
        "are dropped; a prompt with a single labeler has no W, and stays",
    )
    weight_by_agreement: bool = option(
        False, "rather than drop such pairs, weight them by W / min_agreement in the loss"
    )
    margin_from_gap: float = option(
        0.0,
        "margin that the hinge loss asks of a pair, in units of the score, for each place between "
        "its two responses; 0 leaves the margin to the training",
    )

    def __post_init__(self) -> None:
        check_range(self, 1, "top", "bottom")
        check_range(self, 0, "min_agreement", "margin_from_gap")
        if self.min_agreement > 1:
            raise UserError(f"min_agreement is {self.min_agreement}, but W is at most 1")
        if self.weight_by_agreement and not self.min_agreement:
            raise UserError(
                "weight_by_agreement weights the pairs of prompts whose agreement is below "
                "min_agreement, which is 0: set it, for example to 0.5"
            )
        if self.choice != "top_bottom" and (self.top, self.bottom) != (2, 2):
            raise UserError(f"top and bottom are for top_bottom, but choice is {self.choice}")

    def in_words(self) -> str:
        """How pairs are made, for the account."""
        chosen = {
            "top_bottom": f"the best {self.top} of a prompt against the worst {self.bottom}",
            "all": "every two of a prompt",
            "best_worst": "the best of a prompt against the worst",
        }[self.choice]
        return f"{chosen}, by {self.aggregation.replace('_', '-')} ranks"


def make_pairs(
    rankings: Sequence[Ranking], settings: PairArguments, *, seed: int
) -> tuple[list[Pair], Account]:
    """The pairs of every ranking, in order, best first within each, and the account of them.

    A pair (i, j) has i strictly better than j by the aggregated rank; the texts are different, and
    neither is empty. What several files say of the same prompt and responses is one ranking
    (`join_rankings`). Which of several equal responses count among the best or the worst is drawn
    by `seed`, the prompt and the response's text: neither the order in the file nor other prompts
    change the draw.

    Raises:
        UserError: no pair is left.
    """
    rankings, joined = join_rankings(rankings)
    account = Account(joined=joined)
    pairs: list[Pair] = []
    for ranking in rankings:
        pairs += _pairs_of(ranking, settings, seed, account)
    if not pairs:
        raise UserError(f"no pair is left of {len(rankings)} rankings\n{account.table()}")
    return pairs, account


def _pairs_of(ranking: Ranking, settings: PairArguments, seed: int, account: Account) -> list[Pair]:
    """The pairs of one ranking, told to the account."""
    account.read(
        ranking,
        aggregate(ranking.ranks, settings.aggregation),
        _possible(len(ranking.responses), settings),
    )
    cleaned, removed = clean(ranking)
    left = len(ranking.responses)
    for reason, count in removed:
        lost = _possible(left, settings) - _possible(left - count, settings)
        left -= count
        account.drop(reason, rankings=int(left == 0), responses=count, pairs=lost)
    if cleaned is None:
        return []
    agreement = cleaned.numbers.agreement if cleaned.numbers else kendalls_w(cleaned.ranks)
    weight = _weight(agreement, settings)
    account.agree(agreement, weight)
    if not weight:
        account.drop(LOW_AGREEMENT, rankings=1, responses=left, pairs=_possible(left, settings))
        return []
    places = aggregate(cleaned.ranks, settings.aggregation)
    pairs, tied = [], 0
    for i, j in candidates(cleaned, places, settings, seed=seed):
        if places[i] == places[j]:
            tied += 1
            continue
        numbers = cleaned.numbers or PairNumbers(
            gap=places[j] - places[i], agreement=agreement, support=support(cleaned.ranks, i, j)
        )
        margin = numbers.margin
        if margin is None and settings.margin_from_gap:
            margin = settings.margin_from_gap * numbers.gap
        pairs.append(
            Pair(
                cleaned.messages,
                cleaned.responses[i],
                cleaned.responses[j],
                numbers.gap,
                cleaned.origin,
                cleaned.facts,
                weight=numbers.weight * weight,
                margin=margin,
                agreement=agreement,
                support=numbers.support,
                labelers=cleaned.judges,
            )
        )
    whole = not pairs
    account.drop(TIED, rankings=int(whole), responses=left if whole else 0, pairs=tied)
    account.keep(cleaned, pairs)
    return pairs


def candidates(
    ranking: Ranking, places: Sequence[float], settings: PairArguments, *, seed: int
) -> list[tuple[int, int]]:
    """(i, j), i no worse than j, among the best and the worst by the choice; best first.

    With fewer than `top + bottom` responses the two sets overlap, and a pair still comes up only
    once: two responses give one, three all three.

    Args:
        places: `[responses]`, the aggregated ranks.
    """

    def place(i: int) -> tuple[float, bytes, int]:
        text = json.dumps([seed, ranking.prompt_key, ranking.responses[i]])
        return places[i], hashlib.sha256(text.encode()).digest(), i

    order = sorted(range(len(places)), key=place)
    return [(order[a], order[b]) for a, b in _positions(len(places), settings)]


def support(ranks: Sequence[Ranks], i: int, j: int) -> float | None:
    """Share of the labelers who ranked both i and j that put i before j; level counts half.

    Args:
        ranks: `[labelers][responses]`.

    Returns:
        0 to 1, or None where no labeler ranked both.
    """
    both = [row for row in ranks if row[i] is not None and row[j] is not None]
    votes = sum((row[i] < row[j]) + 0.5 * (row[i] == row[j]) for row in both)
    return votes / len(both) if both else None


def _positions(n: int, settings: PairArguments) -> list[tuple[int, int]]:
    """Pairs of places, from 0 for the best of n, that the choice compares."""
    top, bottom = {
        "top_bottom": (settings.top, settings.bottom),
        "all": (n, n),
        "best_worst": (1, 1),
    }[settings.choice]
    return [(a, b) for a, b in itertools.combinations(range(n), 2) if a < top and b >= n - bottom]


def _possible(n: int, settings: PairArguments) -> int:
    """How many pairs n different responses give, if none are level."""
    return len(_positions(n, settings))


def _weight(agreement: float | None, settings: PairArguments) -> float:
    """What a prompt's pairs count for: 1, 0, or something between, by its labelers' agreement."""
    if agreement is None or agreement >= settings.min_agreement:
        return 1.0
    return agreement / settings.min_agreement if settings.weight_by_agreement else 0.0


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Writes JSON lines: TRL's `prompt`, `chosen`, `rejected`, and what else is known of the pair.

    That is the fields of `PairNumbers` but for those that are None, `origin`, `facts` and the names
    of the `labelers`. A prompt
    of a single user message is a string, and so are its responses; a longer one is a list of
    messages, and so are they. The file appears under its name only when it is whole.
    """
    write_json_lines(path, map(_row_of, pairs))


def read_pairs(path: Path) -> list[Pair]:
    """Reads what `write_pairs` wrote; any file in TRL's preference columns will do.

    What it does not say is as in `PairNumbers`: a gap of one place, a weight of 1.

    Raises:
        UserError: no such file, a field that is missing, empty or of the wrong type, two responses
            that are the same, no pair.
    """
    problems = Problems()
    pairs = []
    for place, row in read_rows(DataSource(str(path)), problems.add):
        try:
            pairs.append(_pair_of(row, place))
        except UserError as error:
            problems.add(error)
    problems.raise_if_any()
    if not pairs:
        raise UserError(f"{path}: there is not one pair in it")
    return pairs


def _row_of(pair: Pair) -> dict[str, Any]:
    prompt: Any = pair.messages[0].content
    chosen: Any = pair.chosen
    rejected: Any = pair.rejected
    if len(pair.messages) > 1:
        prompt = [_message(m) for m in pair.messages]
        chosen, rejected = ([_message(Message("assistant", r))] for r in (chosen, rejected))
    row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
    more = {name: getattr(pair, name) for name in (*PairNumbers._fields, "origin", "facts")}
    row |= {name: value for name, value in more.items() if value is not None}
    return row | ({"labelers": list(pair.labelers)} if pair.labelers else {})


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _pair_of(row: Row, place: str) -> Pair:
    for name in ("prompt", "chosen", "rejected"):
        if not row.get(name):
            state = "empty" if name in row else "missing"
            raise UserError(f"{place}: field '{name}' is {state}")
    if root_of(row):
        raise UserError(f"{place}: field 'replies' is a tree's; a pair has a prompt for itself")
    (ranking,) = rankings_of(row, place)
    chosen, rejected = (
        text_of(text, name, place)
        for text, name in zip(ranking.responses, ("chosen", "rejected"), strict=True)
    )
    if chosen.strip() == rejected.strip():
        raise UserError(f"{place}: fields 'chosen' and 'rejected' hold the same text")
    origin = text_of(row["origin"], "origin", place) if has(row, "origin") else place
    numbers = (ranking.numbers or PairNumbers())._asdict()
    return Pair(
        *(ranking.messages, chosen, rejected),
        origin=origin,
        facts=ranking.facts,
        labelers=ranking.judges,
        **numbers,
    )
