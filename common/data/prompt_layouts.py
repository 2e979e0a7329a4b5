"""The prompt of a row, in whichever layout: for prompt files, and for the prompts of rankings."""

from common.data.fields import (
    UnknownLayout,
    check_turns,
    has,
    list_of,
    messages_of,
    text_of,
)
from common.data.readers import Row, kind_of
from common.data.records import Message
from common.data.trees import message_at, root_of
from common.errors import UserError

PROMPT_LAYOUTS = (
    "prompt",
    "instruction (+ input, + history, or + instances)",
    "messages",
    "conversations",
    "question",
    "turns",
    "text",
    "Open-Assistant trees",
)
INPUT_SEPARATOR = "\n"
"""Between Alpaca's `instruction` and `input`."""


def prompt_of(row: Row, origin: str) -> list[Message]:
    """The messages of a row up to the user's last turn.

    Of `messages` and `conversations` that go on, the assistant's last answer is cut off; of
    `turns` (MT-bench) the first is taken, for the second needs an answer; of a tree the root. A
    `system` column comes first.

    Raises:
        UnknownLayout: no known column.
        UserError: a field is missing, empty, of the wrong type, or roles do not alternate.
    """
    tree = root_of(row)
    if tree:
        messages, field = [message_at(*tree, origin)], tree[1] or "text"
    elif "prompt" in row:
        messages, field = messages_of(row["prompt"], "prompt", origin), "prompt"
    elif "instruction" in row:
        messages, field = alpaca_prompt(row, origin), "instruction"
    elif has(row, "messages"):
        messages, field = (
            _without_answer(messages_of(row["messages"], "messages", origin)),
            "messages",
        )
    elif has(row, "conversations"):
        field = "conversations"
        messages = _without_answer(messages_of(row[field], field, origin))
    elif has(row, "turns"):
        field = "turns"
        messages = [
            Message("user", text_of(list_of(row[field], field, origin)[0], "turns[0]", origin))
        ]
    elif "question" in row or "text" in row:
        field = "question" if "question" in row else "text"
        messages = [Message("user", text_of(row[field], field, origin))]
    else:
        raise unknown_layout(row, origin, "prompts", PROMPT_LAYOUTS, "{prompt: question}")
    messages = with_system(row, messages, origin)
    check_turns(messages, field, origin, last="user")
    return messages


def alpaca_prompt(row: Row, origin: str) -> list[Message]:
    """`history` ([[user, assistant], …]) and `instruction` with `input` below it."""
    messages = []
    history = row.get("history") or []
    if not isinstance(history, list):
        raise UserError(f"{origin}: field 'history' must be a list, not {kind_of(history)}")
    for i, turn in enumerate(history):
        if not isinstance(turn, list) or len(turn) != 2:
            raise UserError(f"{origin}: field 'history[{i}]' must be [instruction, response]")
        messages.append(Message("user", text_of(turn[0], f"history[{i}][0]", origin)))
        messages.append(Message("assistant", text_of(turn[1], f"history[{i}][1]", origin)))
    text = text_of(row.get("instruction"), "instruction", origin)
    field, more = "input", row.get("input")
    if more is None and has(row, "instances"):  # the seed tasks of Self-Instruct
        first = list_of(row["instances"], "instances", origin)[0]
        field, more = "instances[0].input", first.get("input") if isinstance(first, dict) else None
    if more is not None:
        more = text_of(more, field, origin, empty=True)
        text += INPUT_SEPARATOR + more if more.strip() else ""
    return [*messages, Message("user", text)]


def with_system(row: Row, messages: list[Message], origin: str) -> list[Message]:
    """The messages behind the row's `system` column, if it has one with text in it."""
    if not has(row, "system"):
        return messages
    text = text_of(row["system"], "system", origin, empty=True)
    if not text.strip() or [m.role for m in messages[:1]] == ["system"]:
        return messages
    return [Message("system", text), *messages]


def unknown_layout(
    row: Row, origin: str, what: str, layouts: tuple[str, ...], example: str
) -> UnknownLayout:
    """The error for a row whose columns fit none of the layouts."""
    return UnknownLayout(
        f"{origin}: no known layout of {what} fits the columns: "
        f"{', '.join(map(str, row)) or 'none'}\n"
        f"  known layouts: {'; '.join(layouts)}\n"
        f"  other names can be mapped (ours: theirs), for example `columns: {example}`"
    )


def _without_answer(messages: list[Message]) -> list[Message]:
    return messages[:-1] if [m.role for m in messages[-1:]] == ["assistant"] else messages
