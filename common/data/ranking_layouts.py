"""Rankings of responses in the layouts that we read, checked and cleaned."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from common.data.fields import (
    check_turns,
    facts_of,
    has,
    list_of,
    message_of,
    messages_of,
    text_of,
)
from common.data.prompt_layouts import prompt_of, unknown_layout
from common.data.readers import Row, kind_of
from common.data.records import Message, Ranking
from common.data.trees import ranked_groups, root_of
from common.errors import UserError

RANKING_LAYOUTS = (
    "chosen + rejected, beside a prompt or as whole conversations",
    "responses + orders (best to worst, one per labeler)",
    "responses + ranking_best_to_worst",
    "instruction + output: [better, worse]",
    "Open-Assistant trees",
)
PROMPT_COLUMNS = ("prompt", "instruction", "messages", "conversations", "turns", "question", "text")
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")


def rankings_of(row: Row, origin: str, dropped: Counter[str]) -> list[Ranking]:
    """The rankings of one row: one, or as many as a tree has ranked groups.

    Args:
        dropped: takes the number of answers in trees that carry no rank.

    Raises:
        UnknownLayout: the columns fit no layout.
        UserError: a field is missing or of the wrong type, an order that repeats or omits a
            response or has an index out of range.
    """
    facts = facts_of(row, origin)
    tree = root_of(row)
    if tree:
        return _tree_rankings(*tree, origin, facts, dropped)
    if "chosen" in row or "rejected" in row:
        messages, responses = _chosen_and_rejected(row, origin)
        orders: list[Any] = [[0, 1]]
    elif "responses" in row:
        messages = prompt_of(row, origin)
        responses = responses_of(row["responses"], origin)
        orders = _orders(row, origin)
    elif isinstance(row.get("output"), list):
        messages = prompt_of(row, origin)
        responses = [
            text_of(r, f"output[{i}]", origin, empty=True) for i, r in enumerate(row["output"])
        ]
        if len(responses) < 2:
            raise UserError(f"{origin}: field 'output' must be [better, worse]")
        orders = [list(range(len(responses)))]
    else:
        raise unknown_layout(
            row, origin, "rankings", RANKING_LAYOUTS, "{chosen: better, rejected: worse}"
        )
    field = "orders[{}]" if has(row, "orders") else "ranking_best_to_worst"
    ranks = tuple(
        ranks_of_order(order, len(responses), field.format(i), origin)
        for i, order in enumerate(orders)
    )
    return [Ranking(tuple(messages), tuple(responses), ranks, origin, facts)]


def ranks_of_order(order: Any, responses: int, field: str, origin: str) -> tuple[float, ...]:
    """The rank of each response in an order from best to worst.

    Args:
        order: indices from 0; a list in place of an index holds responses that are tied:
            `[[2, 0], 1]` says that 2 and 0 are equally good and 1 is worse.
        responses: how many there are.

    Returns:
        `[responses]`, 1 is best; tied ones share the mean of the places they take.

    Raises:
        UserError: a response is repeated or omitted, an index is out of range or not a number.
    """
    ranks: dict[int, float] = {}
    for group in list_of(order, field, origin):
        tied = group if isinstance(group, list) else [group]
        place = len(ranks) + (1 + len(tied)) / 2
        for index in tied:
            if type(index) is not int:
                raise UserError(
                    f"{origin}: field '{field}' must hold indices of responses, "
                    f"not {kind_of(index)}"
                )
            if not 0 <= index < responses:
                raise UserError(
                    f"{origin}: field '{field}' has the index {index}, but there are "
                    f"{responses} responses (0 to {responses - 1})"
                )
            if index in ranks:
                raise UserError(f"{origin}: field '{field}' repeats response {index}")
            ranks[index] = place
    omitted = [str(i) for i in range(responses) if i not in ranks]
    if omitted:
        raise UserError(f"{origin}: field '{field}' omits response {', '.join(omitted)}")
    return tuple(ranks[i] for i in range(responses))


def ranks_of_scores(scores: Sequence[float]) -> tuple[float, ...]:
    """Ranks of values of which the lowest is best; equal ones share the mean of their places."""
    return tuple(
        sum(other < score for other in scores) + (1 + sum(other == score for other in scores)) / 2
        for score in scores
    )


def clean(ranking: Ranking, dropped: Counter[str]) -> Ranking | None:
    """Leaves out empty and repeated responses and ranks the rest anew.

    Of responses with the same text (white space at the ends aside) the first in the file stays,
    at its own place. Counts go to `dropped`; None when fewer than two responses are left.
    """
    kept: dict[str, int] = {}
    for i, response in enumerate(ranking.responses):
        text = response.strip()
        if not text:
            dropped["empty responses"] += 1
        elif text in kept:
            dropped["repeated responses"] += 1
        else:
            kept[text] = i
    if len(kept) < 2:
        dropped["rankings with fewer than two responses"] += 1
        return None
    if len(kept) == len(ranking.responses):
        return ranking
    return Ranking(
        ranking.messages,
        tuple(ranking.responses[i] for i in kept.values()),
        tuple(ranks_of_scores([labeler[i] for i in kept.values()]) for labeler in ranking.ranks),
        ranking.origin,
        ranking.facts,
    )


def responses_of(value: Any, origin: str) -> list[str]:
    """`responses`: strings, or objects with the string under `text`.

    Raises:
        UserError: not such a list, or an empty one.
    """
    texts = []
    for i, item in enumerate(list_of(value, "responses", origin)):
        field = f"responses[{i}]"
        if isinstance(item, dict):
            item, field = item.get("text"), f"{field}.text"
        texts.append(text_of(item, field, origin, empty=True))
    return texts


def _orders(row: Row, origin: str) -> list[Any]:
    if has(row, "orders"):
        return list_of(row["orders"], "orders", origin)
    if has(row, "ranking_best_to_worst"):
        return [row["ranking_best_to_worst"]]
    raise UserError(
        f"{origin}: field 'orders' is missing: one list of indices, best to worst, per labeler "
        "(or 'ranking_best_to_worst' with a single one)"
    )


def _chosen_and_rejected(row: Row, origin: str) -> tuple[list[Message], list[str]]:
    """Prompt and the two responses of TRL's preference layout and of its relatives."""
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise UserError(f"{origin}: field '{name}' is missing")
    if any(name in row for name in PROMPT_COLUMNS):
        messages = prompt_of(row, origin)
        return messages, [_response(row, name, messages, origin) for name in ("chosen", "rejected")]
    chosen, rejected = (_dialogue(row[name], name, origin) for name in ("chosen", "rejected"))
    shared = 0
    for a, b in zip(chosen[:-1], rejected[:-1], strict=False):
        if a != b:
            break
        shared += 1
    messages = chosen[:shared]
    check_turns(messages, "chosen", origin, last="user")
    for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
        _check_single_answer(dialogue[shared:], name, origin)
    return messages, [chosen[-1].content, rejected[-1].content]


def _response(row: Row, name: str, prompt: list[Message], origin: str) -> str:
    """One response: a string, one message, or a list with one message behind the prompt or not."""
    value = row[name]
    if isinstance(value, str):
        return text_of(value, name, origin, empty=True)
    if isinstance(value, list):
        messages = _answers(value, name, origin)
        if messages[: len(prompt)] == prompt:
            messages = messages[len(prompt) :]
    else:
        messages = [message_of(value, name, origin, empty=True)]
    _check_single_answer(messages, name, origin)
    return messages[0].content


def _check_single_answer(messages: Sequence[Message], field: str, origin: str) -> None:
    """Checks that what comes after the prompt is one message of the assistant.

    Raises:
        UserError: otherwise.
    """
    roles = [m.role for m in messages]
    if roles != ["assistant"]:
        raise UserError(
            f"{origin}: field '{field}' must hold one message of the assistant after the prompt, "
            f"but holds {', '.join(roles) or 'none'}"
        )


def _dialogue(value: Any, field: str, origin: str) -> list[Message]:
    """A whole conversation: messages, or the "Human: … Assistant: …" text of HH-RLHF."""
    if not isinstance(value, str):
        return _answers(value, field, origin)
    parts = _SPEAKER.split(value)
    if len(parts) < 5 or parts[0].strip():
        raise UserError(
            f"{origin}: field 'prompt' is missing, and field '{field}' is no conversation "
            "(messages, or text with 'Human:' and 'Assistant:' turns) it could be taken from"
        )
    roles, texts = parts[1::2], parts[2::2]
    last = len(roles) - 1
    return [
        Message(
            "user" if role == "Human" else "assistant",
            text_of(text, field, origin, empty=i == last),
        )
        for i, (role, text) in enumerate(zip(roles, texts, strict=True))
    ]


def _answers(value: Any, field: str, origin: str) -> list[Message]:
    """A list of messages of which the last may be empty, as a response in a ranking may."""
    *before, last = list_of(value, field, origin)
    messages = messages_of(before, field, origin) if before else []
    return [*messages, message_of(last, f"{field}[{len(before)}]", origin, empty=True)]


def _tree_rankings(
    root: dict[str, Any],
    path: str,
    origin: str,
    facts: dict[str, Any] | None,
    dropped: Counter[str],
) -> list[Ranking]:
    rankings = []
    for messages, texts, scores, unranked in ranked_groups(root, path, origin):
        if unranked:
            dropped["responses without a rank"] += unranked
        rankings.append(
            Ranking(tuple(messages), tuple(texts), (ranks_of_scores(scores),), origin, facts)
        )
    return rankings
