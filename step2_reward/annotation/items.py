"""The prompts of a labeling project: what was sampled, and gold questions with known orders."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.data.fields import Problems, list_of, text_of
from common.data.prompt_layouts import prompt_of
from common.data.ranking_layouts import ranks_of_order
from common.data.records import Message
from common.errors import UserError
from common.files import read_json_lines

MOST_RESPONSES = 26
"""A response goes by a letter on the page."""


@dataclass(frozen=True)
class Item:
    """One prompt and its responses. The key is made of the content, and tells a labeler nothing."""

    key: str
    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    row: dict[str, Any] = field(hash=False)
    """As it stands in the file, for the export."""
    known: tuple[float, ...] | None = None
    """Ranks of a gold question's responses."""


def read_items(path: Path, *, gold: bool = False) -> list[Item]:
    """The rows of a file of samples (`prompt`, `responses`), or of gold questions (and `orders`).

    Raises:
        UserError: no such file or a broken line; a row without a prompt, with fewer than two or
            more than 26 responses, or with one that is empty; a gold question without an order,
            or with one that ties everything.
            Up to five problems are told at once.
    """
    problems = Problems()
    items: list[Item] = []
    copies: Counter[str] = Counter()
    for number, row in enumerate(read_json_lines(path), start=1):
        origin = f"{path}:{number}"
        try:
            items.append(_item(row, origin, gold, copies))
        except UserError as error:
            problems.add(error)
    problems.raise_if_any()
    if not items:
        raise UserError(f"{path}: the file is empty: there is nothing to label")
    return items


def fingerprint(items: Iterable[Item]) -> str:
    """A hash of all keys: another one means that the file's prompts or responses have changed."""
    return hashlib.sha256("".join(item.key for item in items).encode()).hexdigest()


def groups_in_words(groups: Sequence[Sequence[int]]) -> list[Any]:
    """An order as rankings files have it: a number, or a list of those that are tied."""
    return [group[0] if len(group) == 1 else list(group) for group in groups]


def _item(row: dict[str, Any], origin: str, gold: bool, copies: Counter[str]) -> Item:
    messages = tuple(prompt_of(row, origin))
    responses = tuple(
        text_of(text, f"responses[{i}]", origin)
        for i, text in enumerate(list_of(row.get("responses"), "responses", origin))
    )
    if not 2 <= len(responses) <= MOST_RESPONSES:
        raise UserError(
            f"{origin}: field 'responses' holds {len(responses)}, but labelers rank 2 to "
            f"{MOST_RESPONSES}"
        )
    known = None
    if gold:
        order = list_of(row.get("orders"), "orders", origin)[0]
        known = ranks_of_order(order, len(responses), "orders[0]", origin)
        if len(set(known)) == 1:
            raise UserError(f"{origin}: orders[0] ties all responses: no answer could be wrong")
    content = json.dumps([[[m.role, m.content] for m in messages], responses, gold])
    copies[content] += 1
    key = hashlib.sha256(f"{content}{copies[content]}".encode()).hexdigest()[:20]
    return Item(key, messages, responses, row, known)
