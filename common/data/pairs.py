"""From rankings to pairs for the reward model (§3.2): the top two against the bottom two."""

import hashlib
import itertools
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.data.fields import Problems, has, text_of
from common.data.ranking_layouts import rankings_of
from common.data.readers import Row, kind_of, read_rows
from common.data.records import Message, Pair, Ranking
from common.data.sources import DataSource
from common.data.trees import root_of
from common.errors import UserError
from common.files import write_json_lines


def aggregate(ranks: Sequence[Sequence[float]]) -> list[float]:
    """The mean rank of each response over labelers.

    Args:
        ranks: `[labelers][responses]`, 1 is best.

    Returns:
        `[responses]`.
    """
    return [sum(column) / len(column) for column in zip(*ranks, strict=True)]


def top_bottom_pairs(
    ranking: Ranking, *, top: int = 2, bottom: int = 2, seed: int
) -> tuple[list[Pair], Counter[str]]:
    """Pairs (i, j): i among the `top` best, j among the `bottom` worst, i strictly better.

    "Better" compares mean ranks over labelers. Which of several equal responses count among the
    best or the worst is drawn by `seed`, the prompt and the response's text: neither the order in
    the file nor other prompts change the draw.

    With fewer than `top + bottom` responses the two sets overlap; as i must be strictly better,
    a pair still comes up only once: two responses give one pair, three give all three.

    Returns:
        (pairs, best first; counts of candidates left out: "pairs with an empty response",
        "pairs of identical responses", "pairs of equal rank").
    """
    means = aggregate(ranking.ranks)
    texts = ranking.responses
    key = ranking.prompt_key

    def place(i: int) -> tuple[float, bytes, int]:
        draw = hashlib.sha256(json.dumps([seed, key, texts[i]]).encode()).digest()
        return means[i], draw, i

    order = sorted(range(len(texts)), key=place)
    best, worst = order[:top], order[max(0, len(order) - bottom) :]
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for i, j in itertools.combinations(order, 2):  # i stands before j
        if i not in best or j not in worst:
            continue
        if not texts[i].strip() or not texts[j].strip():
            dropped["pairs with an empty response"] += 1
        elif texts[i].strip() == texts[j].strip():
            dropped["pairs of identical responses"] += 1
        elif means[i] == means[j]:
            dropped["pairs of equal rank"] += 1
        else:
            gap = means[j] - means[i]
            pairs.append(
                Pair(ranking.messages, texts[i], texts[j], gap, ranking.origin, ranking.facts)
            )
    return pairs, dropped


def all_pairs(
    rankings: Sequence[Ranking], *, top: int = 2, bottom: int = 2, seed: int
) -> tuple[list[Pair], Counter[str]]:
    """`top_bottom_pairs` of every ranking, in order, and the summed counts of what was left out.

    Raises:
        UserError: no pair is left.
    """
    pairs: list[Pair] = []
    dropped: Counter[str] = Counter()
    for ranking in rankings:
        found, left_out = top_bottom_pairs(ranking, top=top, bottom=bottom, seed=seed)
        pairs += found
        dropped += left_out
    if not pairs:
        raise UserError(
            f"no pair is left of {len(rankings)} rankings ("
            + (", ".join(f"{n} {name}" for name, n in dropped.items()) or "there are none")
            + ")"
        )
    return pairs, dropped


def write_pairs(path: Path, pairs: Sequence[Pair]) -> None:
    """Writes JSON lines: TRL's `prompt`, `chosen`, `rejected`, and `gap`, `origin`, `facts`.

    A prompt of a single user message is a string, and so are its responses; a longer one is a
    list of messages, and so are they. The file appears under its name only when it is whole.
    """
    write_json_lines(path, map(_row_of, pairs))


def read_pairs(path: Path) -> list[Pair]:
    """Reads what `write_pairs` wrote; any file in TRL's preference columns will do (gap 1 then).

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
    row |= {"gap": pair.gap, "origin": pair.origin}
    return row if pair.facts is None else row | {"facts": pair.facts}


def _message(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.content}


def _pair_of(row: Row, place: str) -> Pair:
    for name in ("prompt", "chosen", "rejected"):
        if not row.get(name):
            state = "empty" if name in row else "missing"
            raise UserError(f"{place}: field '{name}' is {state}")
    gap = row.get("gap", 1.0)
    numeric = isinstance(gap, int | float) and not isinstance(gap, bool)
    if not numeric or not 0 < gap <= sys.float_info.max:
        shown = gap if isinstance(gap, int | float) else kind_of(gap)
        raise UserError(f"{place}: field 'gap' must be a number above 0, not {shown}")
    if root_of(row):
        raise UserError(f"{place}: field 'replies' is a tree's; a pair has a prompt for itself")
    (ranking,) = rankings_of(row, place, Counter())
    chosen, rejected = (
        text_of(text, name, place)
        for text, name in zip(ranking.responses, ("chosen", "rejected"), strict=True)
    )
    if chosen.strip() == rejected.strip():
        raise UserError(f"{place}: fields 'chosen' and 'rejected' hold the same text")
    origin = text_of(row["origin"], "origin", place) if has(row, "origin") else place
    return Pair(ranking.messages, chosen, rejected, float(gap), origin, ranking.facts)
