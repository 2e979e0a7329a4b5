"""Rankings with their labelers' names: what annotation, imports and AI feedback hand on.

A rankings file has one row a prompt: `prompt` (or another column that says it), `responses`,
`orders` (one per labeler, best first, numbers of responses from 0; a list in a number's place
holds tied ones; who is not named was not ranked) and, in the same order, `labelers`. What else is
known of a labeler's work stands in further lists of the same length (`PER_LABELER`).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.data.fields import Problems, has, list_of, text_of
from common.data.prompt_layouts import prompt_of
from common.data.ranking_layouts import order_of, ranks_of_order, responses_of
from common.data.readers import Row, kind_of
from common.data.records import Message
from common.errors import UserError
from common.files import read_json_lines

Order = list[int | list[int]]
"""`[2, [0, 3], 1]`: 2 is best, then 0 and 3, equally good, then 1."""

AI = "ai:"
"""How the name of a labeler begins that is a language model: AI feedback."""

PER_LABELER = ("ratings", "comments", "seconds", "saved", "revisions", "shown", "ai_feedback")
"""Columns with an entry per labeler, null where there is none. `saved` is the time of the order
(ISO 8601), `ratings` has points for each response, `shown` the order in which responses were
shown, `ai_feedback` says of a language model how it was asked."""

OWN_COLUMNS = ("responses", "orders", "ranking_best_to_worst", "labelers", *PER_LABELER)
NOT_RANKED = "orders of fewer than two responses"
UNRANKED = "prompts that nobody ranked"
UNABLE = "cannot_judge"
"""Column of those who saw a prompt and could not judge: objects with `labeler`."""


@dataclass(frozen=True)
class Labeled:
    """One labeler's order of the responses to one prompt."""

    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    labeler: str
    order: Order
    """Empty in the one entry of a prompt that nobody ranked, which names no labeler."""
    origin: str
    notes: dict[str, Any] = field(default_factory=dict, hash=False)
    """This labeler's entries of the columns `PER_LABELER`, where they are known."""
    row: Row = field(default_factory=dict, hash=False)
    """What else stands in the row: the prompt's column, facts, provenance."""


@dataclass(frozen=True)
class Hints:
    """What a file of rankings does not say itself."""

    labeler: str = ""
    """Names labelers that it does not name, with a number behind it; by default its own name."""
    question: str = ""
    """Label Studio's Ranker tag or Argilla's RankingQuestion, where there are several."""
    buckets: tuple[str, ...] = ()
    """Label Studio's, all of them, best first; what was put into none was not ranked."""
    response_fields: tuple[str, ...] = ()
    """Argilla's fields that hold the responses; by default those that the answers name."""


def labeled_of(
    row: Row, origin: str, unnamed: str, left_out: Counter[str] | None = None
) -> list[Labeled]:
    """The orders of one row of a rankings file, one per labeler; where there is none, one entry
    without an order, for what else the row says.

    Args:
        unnamed: names labelers that the row does not name: "unnamed:1", "unnamed:2".
        left_out: takes the number of orders that name fewer than two responses, and of rows that
            nobody ranked; null and empty orders are of labelers who could not judge, who then
            stand in the row's `cannot_judge`.

    Raises:
        UserError: a field is missing or of the wrong type, an order that repeats a response or
            has a number out of range, not as many labelers as orders.
    """
    messages = tuple(prompt_of(row, origin))
    responses = tuple(responses_of(row.get("responses"), origin))
    if row.get("orders") == []:  # as in the annotation's file of what nobody could judge
        orders, at = [], ""
    elif has(row, "orders"):
        orders, at = list_of(row["orders"], "orders", origin), "orders[{}]"
    else:
        orders, at = [order_of(row, len(responses), origin)], "ranking_best_to_worst"
    names = _labelers(row.get("labelers"), len(orders), origin, unnamed)
    notes = _notes(row, len(orders), origin)
    rest = {name: value for name, value in row.items() if name not in OWN_COLUMNS}
    unable = [*_unable(row, origin)]
    unable += [{"labeler": n} for n, o in zip(names, orders, strict=True) if o in (None, [])]
    if unable:
        rest[UNABLE] = unable
    found = []
    for i, (name, order) in enumerate(zip(names, orders, strict=True)):
        if order in (None, []):
            continue
        checked = check_order(order, len(responses), at.format(i), origin)
        if len(named_in(checked)) < 2:
            if left_out is not None:
                left_out[NOT_RANKED] += 1
            continue
        found.append(Labeled(messages, responses, name, checked, origin, notes[i], rest))
    if left_out is not None and all(order in (None, []) for order in orders):
        left_out[UNRANKED] += 1
    return found or [Labeled(messages, responses, "", [], origin, {}, rest)]


def check_order(order: Any, responses: int, name: str, origin: str) -> Order:  # noqa: ANN401
    """An order in its plainest form: ties sorted, no list of one.

    Raises:
        UserError: a response is repeated, a number is out of range, or something is no number.
    """
    groups = [
        group if isinstance(group, list) else [group] for group in list_of(order, name, origin)
    ]
    named = [i for group in groups for i in group]
    # Those that are not named stand last here, which only serves the check of the others.
    rest = [i for i in range(responses) if i not in named]
    ranks_of_order([*groups, *[rest] * bool(rest)], responses, name, origin)
    return [sorted(group) if len(group) > 1 else group[0] for group in groups if group]


def named_in(order: Order) -> list[int]:
    """The responses that an order ranks, best first."""
    return [i for group in order for i in (group if isinstance(group, list) else [group])]


def prompt_column(messages: Sequence[Message]) -> Any:  # noqa: ANN401
    """What stands under `prompt`: the text of a single message of the user, or all messages."""
    if [m.role for m in messages] == ["user"]:
        return messages[0].content
    return [{"role": m.role, "content": m.content} for m in messages]


@dataclass(frozen=True)
class Sample:
    """A prompt with its responses, to be ranked, and the row that it came from."""

    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    row: Row = field(hash=False)


def read_samples(path: Path) -> list[Sample]:
    """Rows of a file of samples: JSON lines with `prompt` and `responses`.

    Orders and labelers of rows that are ranked already are left behind.

    Raises:
        UserError: no such file, a broken line, a field that is missing or of the wrong type. Up
            to five problems are told at once.
    """
    problems = Problems()
    samples = []
    for number, row in enumerate(read_json_lines(path), start=1):
        origin = f"{path}:{number}"
        try:
            messages = tuple(prompt_of(row, origin))
            responses = tuple(responses_of(row.get("responses"), origin))
        except UserError as error:
            problems.add(error)
            continue
        rest = {n: v for n, v in row.items() if n == "responses" or n not in OWN_COLUMNS}
        samples.append(Sample(messages, responses, rest))
    problems.raise_if_any()
    if not samples:
        raise UserError(f"{path}: the file is empty: there is nothing to rank")
    return samples


def _labelers(value: Any, orders: int, origin: str, unnamed: str) -> list[str]:  # noqa: ANN401
    """A name for each order. (A single text, as simulated labelers have it, is numbered.)"""
    if value is None or isinstance(value, str):
        return [f"{value or unnamed}:{i + 1}" for i in range(orders)]
    given = [] if value == [] and not orders else list_of(value, "labelers", origin)
    names = [text_of(name, f"labelers[{i}]", origin) for i, name in enumerate(given)]
    if len(names) != orders:
        raise UserError(f"{origin}: field 'labelers' has {len(names)} names for {orders} orders")
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise UserError(f"{origin}: field 'labelers' names '{twice[0]}' twice")
    return names


def _unable(row: Row, origin: str) -> list[Row]:
    """Those who could not judge."""
    value = row.get(UNABLE) or []
    if not isinstance(value, list) or not all(
        isinstance(x, dict) and isinstance(x.get("labeler"), str) for x in value
    ):
        raise UserError(f"{origin}: field '{UNABLE}' must be a list of objects with 'labeler'")
    return value


def _notes(row: Row, orders: int, origin: str) -> list[dict[str, Any]]:
    """Each labeler's entries of the columns that have one for each."""
    notes: list[dict[str, Any]] = [{} for _ in range(orders)]
    for name in PER_LABELER:
        if not has(row, name):
            continue
        if not isinstance(row[name], list):
            kind = kind_of(row[name])
            raise UserError(f"{origin}: field '{name}' must be a list, not {kind}")
        if len(row[name]) != orders:
            raise UserError(
                f"{origin}: field '{name}' has {len(row[name])} entries for {orders} orders"
            )
        for note, value in zip(notes, row[name], strict=True):
            if value is not None:
                note[name] = value
    return notes
