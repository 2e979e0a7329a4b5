"""Single fields of a row, checked: texts and lists of messages."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.data.readers import Row, kind_of
from common.data.records import Message, Role
from common.errors import UserError

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "prompter": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}
"""Names of roles in the formats we read: TRL's, ShareGPT's, Open-Assistant's."""

_SHOWN = 5
_to_json = json.JSONEncoder(ensure_ascii=False).encode


class UnknownLayout(UserError):
    """A row's columns fit no layout: a matter of the whole file, not of one row."""


class Problems:
    """Errors of many rows, to be told at once: users fix files in batches."""

    def __init__(self) -> None:
        self.errors: list[UserError] = []

    def add(self, error: UserError) -> None:
        """Keeps an error for later."""
        self.errors.append(error)

    def raise_if_any(self) -> None:
        """Raises one `UserError` with the first five errors and the number of all.

        Errors of the same words (all rows of a file may stand on one line) are one, with a count.
        """
        if not self.errors:
            return
        told = Counter(map(str, self.errors))
        lines = [
            text + f" ({times} times)" * (times > 1) for text, times in list(told.items())[:_SHOWN]
        ]
        if len(told) > _SHOWN:
            lines.append(f"({len(self.errors)} problems in all, the first {_SHOWN} are shown)")
        raise UserError("\n".join(lines))


def has(row: Row, *names: str) -> bool:
    """Whether the row has all of these columns. Null counts as absent: Parquet pads with it."""
    return all(row.get(name) is not None for name in names)


def text_of(value: Any, field: str, origin: str, *, empty: bool = False) -> str:
    """A string, non-empty unless `empty` is true.

    Raises:
        UserError: missing, not a string, nothing but white space, or not valid Unicode.
    """
    if value is None:
        raise UserError(f"{origin}: field '{field}' is missing")
    if not isinstance(value, str):
        raise UserError(f"{origin}: field '{field}' must be a string, not {kind_of(value)}")
    if not empty and not value.strip():
        raise UserError(f"{origin}: field '{field}' is empty")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # JSON can spell half of a surrogate pair, tokenizers reject it
        raise UserError(
            f"{origin}: field '{field}' holds half of a surrogate pair (\\ud800 to \\udfff)"
        ) from None
    return value


def list_of(value: Any, field: str, origin: str) -> list[Any]:
    """A non-empty list.

    Raises:
        UserError: missing, not a list, empty.
    """
    if value is None:
        raise UserError(f"{origin}: field '{field}' is missing")
    if not isinstance(value, list):
        raise UserError(f"{origin}: field '{field}' must be a list, not {kind_of(value)}")
    if not value:
        raise UserError(f"{origin}: field '{field}' is empty")
    return value


def facts_of(row: Row, origin: str) -> dict[str, Any] | None:
    """The `facts` column, which is passed through.

    Raises:
        UserError: it is not an object, or nothing that a later stage could write as JSON.
    """
    facts = row.get("facts")
    if facts is not None and not isinstance(facts, dict):
        raise UserError(f"{origin}: field 'facts' must be an object, not {kind_of(facts)}")
    try:
        _to_json(facts).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise UserError(f"{origin}: field 'facts' cannot be written as JSON: {error}") from None
    return facts


def message_of(value: Any, field: str, origin: str, *, empty: bool = False) -> Message:
    """One message, as {role, content} or as ShareGPT's {from, value}.

    Raises:
        UserError: not an object, a key missing, an unknown role, empty content (unless `empty` is
            true, or it is the system's).
    """
    if not isinstance(value, dict):
        raise UserError(f"{origin}: field '{field}' must be an object, not {kind_of(value)}")
    role_key, content_key = ("from", "value") if has(value, "from") else ("role", "content")
    role = text_of(value.get(role_key), f"{field}.{role_key}", origin)
    if role not in ROLES:
        raise UserError(
            f"{origin}: field '{field}.{role_key}' is the unknown role '{role}'; "
            f"known: {', '.join(ROLES)}"
        )
    empty = empty or ROLES[role] == "system"
    content = text_of(value.get(content_key), f"{field}.{content_key}", origin, empty=empty)
    return Message(ROLES[role], content)


def messages_of(value: Any, field: str, origin: str, role: Role = "user") -> list[Message]:
    """A list of messages; a plain string is one message of `role`.

    An empty system message is left out.
    """
    if not isinstance(value, list):
        return [Message(role, text_of(value, field, origin))]
    messages = [
        message_of(item, f"{field}[{i}]", origin)
        for i, item in enumerate(list_of(value, field, origin))
    ]
    return [m for m in messages if m.role != "system" or m.content.strip()]


def check_turns(messages: Sequence[Message], field: str, origin: str, *, last: Role) -> None:
    """Checks that after an optional system message user and assistant alternate, up to `last`.

    Raises:
        UserError: names the first message that is out of turn.
    """
    turns = [m.role for m in messages]
    offset = 1 if turns[:1] == ["system"] else 0
    for i, role in enumerate(turns[offset:]):
        expected = ("user", "assistant")[i % 2]
        if role != expected:
            raise UserError(
                f"{origin}: field '{field}': message {i + offset + 1} is the {role}'s where the "
                f"{expected}'s turn is (a system message only at the start, then user and "
                "assistant alternate)"
            )
    if len(turns) == offset or turns[-1] != last:
        raise UserError(f"{origin}: field '{field}' must end with a message of the {last}")
