"""Open-Assistant conversation trees: every message has a list of `replies`.

A tree is a row with its root under `prompt`, or a row that is the root itself (Köpf et al. 2023,
the files "trees" and "messages" of the release). Messages that were deleted are passed over,
with all below them.
"""

from collections.abc import Iterator
from typing import Any

from common.data.fields import ROLES, text_of
from common.data.readers import Row, kind_of
from common.data.records import Message
from common.errors import UserError


def root_of(row: Row) -> tuple[dict[str, Any], str] | None:
    """The root message of a row and the name of its field, or None when the row is no tree."""
    if isinstance(row.get("prompt"), dict) and "replies" in row["prompt"]:
        return row["prompt"], "prompt"
    if "replies" in row and "role" in row:
        return row, ""
    return None


def message_at(node: dict[str, Any], path: str, origin: str) -> Message:
    """One message of a tree.

    Raises:
        UserError: an unknown role, or a text that is missing.
    """
    role = text_of(node.get("role"), _join(path, "role"), origin)
    if role not in ROLES:
        raise UserError(f"{origin}: field '{_join(path, 'role')}' is the unknown role '{role}'")
    # Empty replies are the caller's matter: in a ranking they are dropped and counted.
    empty = ROLES[role] == "assistant"
    return Message(ROLES[role], text_of(node.get("text"), _join(path, "text"), origin, empty=empty))


def replies_to(
    node: dict[str, Any], path: str, origin: str
) -> list[tuple[dict[str, Any], Message, str]]:
    """(node, message, path) of the replies to a message that were not deleted.

    Raises:
        UserError: `replies` is not a list of messages, or a message answers its own kind, or is
            the system's.
    """
    replies = node.get("replies") or []
    if not isinstance(replies, list) or not all(isinstance(r, dict) for r in replies):
        raise UserError(f"{origin}: field '{_join(path, 'replies')}' must be a list of objects")
    found = []
    for i, reply in enumerate(replies):
        if reply.get("deleted"):
            continue
        at = _join(path, f"replies[{i}]")
        message = message_at(reply, at, origin)
        if message.role == "system":
            raise UserError(f"{origin}: field '{at}.role': a tree has no messages of the system")
        if message.role == ROLES[node["role"]]:
            raise UserError(f"{origin}: field '{at}': the {message.role} answers their own message")
        found.append((reply, message, at))
    return found


def best_path(root: dict[str, Any], path: str, origin: str) -> list[Message]:
    """From the root along the best-ranked reply to the last answer of the assistant.

    Unranked replies come after ranked ones, in the file's order. The list is empty when nobody
    answered the root.
    """
    messages = [_root_message(root, path, origin)]
    node = root
    while True:
        replies = [r for r in replies_to(node, path, origin) if r[1].content.strip()]
        if not replies:
            break
        node, message, path = min(replies, key=lambda r: _rank_or_last(r[0], r[2], origin))
        messages.append(message)
    return messages if messages[-1].role == "assistant" else messages[:-1]


def answer_groups(
    root: dict[str, Any], path: str, origin: str
) -> Iterator[tuple[list[Message], list[str], list[float | None]]]:
    """Every message of a user that was answered, in the order of a walk from the root.

    What lies below an empty answer is passed over: it is no conversation.

    Yields:
        (conversation up to that message, the texts of the answers, one or more; their ranks as in
        the file, where 0 is best and None was not ranked).
    """
    waiting = [(root, path, [_root_message(root, path, origin)])]
    while waiting:
        node, at, messages = waiting.pop()
        replies = replies_to(node, at, origin)
        # Reversed, for the stack gives the last one back first.
        waiting += [(r, p, [*messages, m]) for r, m, p in reversed(replies) if m.content.strip()]
        if messages[-1].role == "user" and replies:
            texts = [message.content for _, message, _ in replies]
            yield messages, texts, [_rank(reply, at, origin) for reply, _, at in replies]


def _root_message(root: dict[str, Any], path: str, origin: str) -> Message:
    message = message_at(root, path, origin)
    if message.role != "user":
        raise UserError(f"{origin}: field '{_join(path, 'role')}': a tree starts with a prompter")
    return message


def _rank(node: dict[str, Any], path: str, origin: str) -> float | None:
    rank = node.get("rank")
    if rank is not None and (isinstance(rank, bool) or not isinstance(rank, int | float)):
        raise UserError(
            f"{origin}: field '{_join(path, 'rank')}' must be a number, not {kind_of(rank)}"
        )
    if rank != rank:
        raise UserError(f"{origin}: field '{_join(path, 'rank')}' must be a number, not NaN")
    return rank


def _rank_or_last(node: dict[str, Any], path: str, origin: str) -> float:
    rank = _rank(node, path, origin)
    return float("inf") if rank is None else rank


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
