"""One rankings file out of several: each labeler's newest order, once."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from common.data.labeled import PER_LABELER, UNABLE, Labeled, Order, check_order
from common.data.ranking_layouts import PROMPT_COLUMNS
from common.data.readers import Row
from common.data.records import Message

ADDED = "added"
REPLACED = "replaced by the labeler's later ones"
UNCHANGED = "there already"
OLDER = "older than what is there"
WITHDRAWN = "withdrawn: the labeler could not judge after all"


@dataclass
class _Prompt:
    """A row of the merged file."""

    row: Row
    responses: tuple[str, ...]
    orders: dict[str, Order] = field(default_factory=dict)
    """By labeler, in the order in which they came."""
    notes: dict[str, dict[str, Any]] = field(default_factory=dict)


def merge(items: Iterable[Labeled]) -> tuple[list[Row], Counter[str]]:
    """Rows of a rankings file in which each labeler has one order a prompt: the newest.

    Prompts are the same where messages and responses are, whatever the responses' order. The
    newest is the one that was `saved` last, where both times are known; otherwise the one that
    comes last. Whoever could not judge, and `saved` that later than the order, has none.

    Returns:
        the rows, in the order of their first item, those without an order last, and how many
        orders were `ADDED`, `REPLACED` what was there, were `UNCHANGED` (the same order again) or
        `OLDER`, and how many were `WITHDRAWN`.
    """
    prompts: dict[str, _Prompt] = {}
    counts: Counter[str] = Counter()
    for item in items:
        prompt = prompts.setdefault(
            key_of(item.messages, item.responses), _Prompt(item.row, item.responses)
        )
        numbers = numbers_among(item.responses, prompt.responses)
        if item.order and not _takes(prompt, item, numbers, counts):
            continue
        prompt.row = _joined(prompt.row, _renumbered_columns(item.row, numbers))
        for name, unable in _unable(item.row).items():
            if name in prompt.orders and is_older(prompt.notes[name], unable):
                counts[WITHDRAWN] += 1
                del prompt.orders[name]
    ranked_first = sorted(prompts.values(), key=lambda prompt: not prompt.orders)
    return [_row_of(prompt) for prompt in ranked_first], counts


def _takes(prompt: _Prompt, item: Labeled, numbers: Sequence[int], counts: Counter[str]) -> bool:
    """Adds an order to a prompt, and counts it; False when there is a newer one already."""
    order = _renumbered(item.order, numbers, len(numbers), item.origin)
    notes = _renumbered_notes(item.notes, numbers)
    before = prompt.orders.get(item.labeler)
    if before is None and is_older(notes, _unable(prompt.row).get(item.labeler, {})):
        counts[OLDER] += 1
        return False
    if before is None:
        counts[ADDED] += 1
    elif is_older(notes, prompt.notes[item.labeler]):
        counts[OLDER if order != before else UNCHANGED] += 1
        return False
    else:
        counts[REPLACED if order != before else UNCHANGED] += 1
    prompt.orders[item.labeler] = order
    # Notes on an earlier order say nothing of this one.
    known = prompt.notes.get(item.labeler, {}) if order == before and "saved" not in notes else {}
    prompt.notes[item.labeler] = known | notes
    return True


def _row_of(prompt: _Prompt) -> Row:
    names = list(prompt.orders)
    row = {**prompt.row, "responses": list(prompt.responses)}
    row |= {"orders": [prompt.orders[name] for name in names], "labelers": names}
    for column in PER_LABELER:
        entries = [prompt.notes[name].get(column) for name in names]
        if any(entry is not None for entry in entries):
            row[column] = entries
    if UNABLE in row:  # some of them may have judged since
        row[UNABLE] = [x for x in row[UNABLE] if x["labeler"] not in prompt.orders]
    return row


def _joined(old: Row, new: Row) -> Row:
    """Both rows' columns; where both have one, the old one's, and all who could not judge."""
    unable = _unable(old)
    for name, entry in _unable(new).items():
        if not is_older(entry, unable.get(name, {})):
            unable[name] = entry
    return {**new, **old} | ({UNABLE: list(unable.values())} if unable else {})


def _unable(row: Row) -> dict[str, dict[str, Any]]:
    """Those who could not judge, by name."""
    return {entry["labeler"]: entry for entry in row.get(UNABLE, [])}


def key_of(messages: Sequence[Message], responses: Sequence[str]) -> str:
    """The same for the same messages and responses, whatever the responses' order."""
    return json.dumps([[[m.role, m.content] for m in messages], sorted(responses)])


def numbers_among(given: Sequence[str], wanted: Sequence[str]) -> list[int]:
    """For each given response the place of the same text among the wanted; copies in order."""
    places: dict[str, list[int]] = {}
    for place, text in enumerate(wanted):
        places.setdefault(text, []).append(place)
    return [places[text].pop(0) for text in given]


def _renumbered(order: Order, numbers: Sequence[int], responses: int, origin: str) -> Order:
    moved = [
        [numbers[i] for i in group] if isinstance(group, list) else numbers[group]
        for group in order
    ]
    return check_order(moved, responses, "orders", origin)


def _renumbered_notes(notes: dict[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    """The notes that go by response, for the places that the responses have here."""
    moved = dict(notes)
    ratings, shown = notes.get("ratings"), notes.get("shown")
    if isinstance(ratings, list) and len(ratings) == len(numbers):
        back = sorted(range(len(numbers)), key=numbers.__getitem__)
        moved["ratings"] = [ratings[i] for i in back]
    if isinstance(shown, list) and sorted(map(str, shown)) == sorted(map(str, range(len(numbers)))):
        moved["shown"] = [numbers[int(i)] for i in shown]
    return moved


def _renumbered_columns(row: Row, numbers: Sequence[int]) -> Row:
    """A row whose lists with an entry per response, as `ended`, follow the responses' new places.

    Told by their length, of which a list of something else may be as well; that one's order is
    lost only where responses stand in another order than in the row that was first.
    """
    back = sorted(range(len(numbers)), key=numbers.__getitem__)
    if back == list(numbers):
        return row
    return {
        name: [value[i] for i in back]
        if isinstance(value, list)
        and len(value) == len(numbers)
        and name not in (*PROMPT_COLUMNS, UNABLE)
        else value
        for name, value in row.items()
    }


def is_older(new: dict[str, Any], old: dict[str, Any]) -> bool:
    """Whether the notes' `saved` are known both, and the new one's is the earlier."""
    one, other = _time(new.get("saved")), _time(old.get("saved"))
    return one is not None and other is not None and one < other


def _time(value: Any) -> datetime | None:  # noqa: ANN401
    """A time as ISO 8601 has it; UTC where it names no zone."""
    try:
        time = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
