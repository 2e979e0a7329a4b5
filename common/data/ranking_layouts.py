"""Rankings of responses in the layouts that we read, checked."""

import itertools
import re
import sys
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
from common.data.ranks import ranks_of_scores
from common.data.readers import Row, kind_of
from common.data.records import Message, PairNumbers, Ranking, Role
from common.data.trees import answer_groups, root_of
from common.errors import UserError

RANKING_LAYOUTS = (
    "chosen + rejected, beside a prompt or as whole conversations",
    "responses + orders (best to worst, one per labeler)",
    "responses + ranking_best_to_worst",
    "instruction + output: [better, worse]",
    "Open-Assistant trees",
)
PROMPT_COLUMNS = ("prompt", "instruction", "messages", "conversations", "turns", "question", "text")
SCORES = ("score", "preference", "pref_vs_gpt4_1106")
"""Fields of response objects that an order may go by; the last is AlpacaEval's. See `order_of`."""
NO_COMMON_PROMPT = "no common prompt"
"""Why the two dialogues of a row make no pair: they differ in more than their last answers."""
_SPEAKER = re.compile(r"(?:^|\n\n)(Human|Assistant):[ ]?")


def rankings_of(row: Row, origin: str) -> list[Ranking]:
    """The rankings of one row: one, or as many as a tree has groups of answers to one message.

    They are as they were found: with empty and identical responses, with responses or whole groups
    that nobody ranked, and with groups of one. `common.data.pairs` leaves those out and counts.

    Raises:
        UnknownLayout: the columns fit no layout.
        UserError: a field is missing or of the wrong type, an order that repeats a response or has
            an index out of range.
    """
    facts = facts_of(row, origin)
    tree = root_of(row)
    if tree:
        return [
            Ranking(tuple(messages), tuple(texts), (ranks_of_scores(scores),), origin, facts)
            for messages, texts, scores in answer_groups(*tree, origin)
        ]
    if "chosen" in row or "rejected" in row:
        return [_pair(row, origin, facts)]
    absent = 0
    labelers: tuple[str, ...] = ()
    judges: tuple[str, ...] = ()
    saved: tuple[str, ...] = ()
    if "responses" in row:
        messages = prompt_of(row, origin)
        responses = responses_of(row["responses"], origin)
        if has(row, "orders"):
            ranks, absent = _ranks_of_orders(row["orders"], len(responses), origin)
            labelers, judges, saved, others = _labelers(row, row["orders"])
            absent += others
        else:
            order = order_of(row, len(responses), origin)
            ranks = [ranks_of_order(order, len(responses), "ranking_best_to_worst", origin)]
    elif isinstance(row.get("output"), list):
        messages = prompt_of(row, origin)
        responses = [
            text_of(r, f"output[{i}]", origin, empty=True) for i, r in enumerate(row["output"])
        ]
        if len(responses) < 2:
            raise UserError(f"{origin}: field 'output' must be [better, worse]")
        ranks = [tuple(float(i + 1) for i in range(len(responses)))]
    else:
        raise unknown_layout(
            row, origin, "rankings", RANKING_LAYOUTS, "{chosen: better, rejected: worse}"
        )
    return [
        Ranking(
            tuple(messages),
            tuple(responses),
            tuple(ranks),
            origin,
            facts,
            absent=absent,
            labelers=labelers,
            judges=judges,
            saved=saved,
        )
    ]


def ranks_of_order(
    order: Any, responses: int, field: str, origin: str, *, partial: bool = False
) -> tuple[float | None, ...]:
    """The rank of each response in an order from best to worst.

    Args:
        order: indices from 0; a list in place of an index holds responses that are tied:
            `[[2, 0], 1]` says that 2 and 0 are equally good and 1 is worse.
        responses: how many there are.
        partial: whether responses may be omitted, because the labeler did not rank them.

    Returns:
        `[responses]`, 1 is best; tied ones share the mean of the places they take; None stands for
        those omitted.

    Raises:
        UserError: a response is repeated, or omitted where it must not be, an index is out of range
            or not a number.
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
    if omitted and not partial:
        raise UserError(f"{origin}: field '{field}' omits response {', '.join(omitted)}")
    return tuple(ranks.get(i) for i in range(responses))


def numbers_of(row: Row, origin: str) -> PairNumbers | None:
    """What a row of pairs says beside the texts; None where it says nothing.

    `weight` and `margin` are read from anybody's file, `agreement` and `support` only beside a
    `gap`, which tells a file of ours: elsewhere they may mean anything.

    Raises:
        UserError: one of them is no number, or out of its range.
    """
    names = PairNumbers._fields if has(row, "gap") else ("weight", "margin")
    found = {}
    for name in names:
        if not has(row, name):
            continue
        value, positive = row[name], name in ("gap", "weight")
        most = 1 if name in ("agreement", "support") else sys.float_info.max
        numeric = isinstance(value, int | float) and not isinstance(value, bool)
        if not numeric or not 0 <= value <= most or (positive and not value):
            shown = value if isinstance(value, int | float) else kind_of(value)
            wanted = "a number above 0" if positive else "a number of at least 0"
            wanted = "a number from 0 to 1" if most == 1 else wanted
            raise UserError(f"{origin}: field '{name}' must be {wanted}, not {shown}")
        found[name] = float(value)
    return PairNumbers(**found) if found else None


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


def order_of(row: Row, responses: int, origin: str) -> Any:  # noqa: ANN401
    """`ranking_best_to_worst`, with ties where it can be told that there are some.

    An order that lists every response in turn hides ties. Where each response has a score (see
    `SCORES`) and the order goes by it, responses of the same score are tied.
    """
    if not has(row, "ranking_best_to_worst"):
        raise UserError(
            f"{origin}: field 'orders' is missing: one list of indices, best to worst, per labeler "
            "(or 'ranking_best_to_worst' with a single one)"
        )
    order = row["ranking_best_to_worst"]
    scores = _scores(row["responses"])
    whole = isinstance(order, list) and all(type(i) is int for i in order)
    if not scores or not whole or sorted(order) != list(range(responses)):
        return order
    ordered = [scores[i] for i in order]
    if ordered not in (sorted(ordered), sorted(ordered, reverse=True)):
        return order
    return [list(tied) for _, tied in itertools.groupby(order, key=scores.__getitem__)]


def _ranks_of_orders(
    orders: Any, responses: int, origin: str
) -> tuple[list[tuple[float | None, ...]], int]:
    """Ranks of every labeler who gave an order, and how many could not judge: null, or empty."""
    if not isinstance(orders, list):
        raise UserError(f"{origin}: field 'orders' must be a list, not {kind_of(orders)}")
    ranks = [
        ranks_of_order(order, responses, f"orders[{i}]", origin, partial=True)
        for i, order in enumerate(orders)
        if order is not None and order != []
    ]
    return ranks, len(orders) - len(ranks)


def _labelers(
    row: Row, orders: Sequence[Any]
) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...], int]:
    """Whom the row names, who of them compared any and when, and how many others could not judge.

    `labelers` has a name for each order, or one for all; `cannot_judge` lists others, as the
    annotation's export does, who have no order.
    """
    others = row.get("cannot_judge")
    others = others if isinstance(others, list) else []
    names = row.get("labelers")
    if isinstance(names, str):
        names = [f"{names}:{i + 1}" for i in range(len(orders))]
    names = names if isinstance(names, list) and len(names) == len(orders) else []
    times = row.get("saved")
    times = times if isinstance(times, list) and len(times) == len(orders) else [None] * len(orders)
    judges = [
        (name, time if isinstance(time, str) else "")
        for name, time, order in zip(names, times, orders, strict=False)
        if _size(order) > 1 and isinstance(name, str)
    ]
    names = [*names, *(o.get("labeler") for o in others if isinstance(o, dict))]
    return _texts(names), *_columns(judges), len(others)


def _columns(judges: list[tuple[str, str]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return tuple(name for name, _ in judges), tuple(time for _, time in judges)


def _size(order: Any) -> int:  # noqa: ANN401
    """How many responses a checked order names, or none at all."""
    return sum(len(group) if isinstance(group, list) else 1 for group in order or ())


def _texts(values: Any) -> tuple[str, ...]:  # noqa: ANN401
    """Those that are texts, of a list or of a single one."""
    values = [values] if isinstance(values, str) else values
    return tuple(v for v in values if isinstance(v, str)) if isinstance(values, list) else ()


def _scores(responses: Sequence[Any]) -> list[float]:
    """The scores of response objects, if each has the same one."""
    for name in SCORES:
        values = [r.get(name) if isinstance(r, dict) else None for r in responses]
        if all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            return values
    return []


def _pair(row: Row, origin: str, facts: dict[str, Any] | None) -> Ranking:
    """A row of TRL's preference layout or of its relatives: the first response is the better."""
    for name in ("chosen", "rejected"):
        if row.get(name) is None:
            raise UserError(f"{origin}: field '{name}' is missing")
    numbers, ranks = numbers_of(row, origin), ((1.0, 2.0),)
    judges = _texts(row.get("labelers"))
    if any(name in row for name in PROMPT_COLUMNS):
        messages = prompt_of(row, origin)
        responses = [_response(row, name, messages, origin) for name in ("chosen", "rejected")]
    else:
        chosen, rejected = (_dialogue(row[name], name, origin) for name in ("chosen", "rejected"))
        messages, responses = chosen[:-1], [chosen[-1].content, rejected[-1].content]
        if isinstance(row["chosen"], str) and isinstance(row["rejected"], str):
            if not _answer_the_same(chosen, rejected):
                flaw = NO_COMMON_PROMPT
                return Ranking((), tuple(responses), ranks, origin, facts, flaw=flaw)
        else:
            messages = _shared(chosen, rejected)
            check_turns(messages, "chosen", origin, last="user")
            for name, dialogue in (("chosen", chosen), ("rejected", rejected)):
                _check_single_answer(dialogue[len(messages) :], name, origin)
    return Ranking(
        *(tuple(messages), tuple(responses), ranks, origin, facts),
        labelers=judges,
        judges=judges,
        numbers=numbers,
    )


def _shared(chosen: Sequence[Message], rejected: Sequence[Message]) -> list[Message]:
    """What two conversations begin with alike, at most up to their last messages."""
    both = zip(chosen[:-1], rejected[:-1], strict=False)
    return [a for a, b in itertools.takewhile(lambda turns: turns[0] == turns[1], both)]


def _answer_the_same(chosen: Sequence[Message], rejected: Sequence[Message]) -> bool:
    """Whether two dialogues are well formed, and the same up to one last answer each.

    Of HH-RLHF's rows some are not: speakers lose their turn, or the dialogues part earlier.
    """
    roles = [m.role for m in chosen]
    return (
        roles == ["user", "assistant"] * (len(roles) // 2)
        and all(m.content.strip() for m in chosen[:-1])
        and [m.role for m in rejected] == roles
        and all(
            a.content.strip() == b.content.strip()
            for a, b in zip(chosen[:-1], rejected[:-1], strict=True)
        )
    )


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
    messages: list[Message] = []
    for speaker, text in zip(parts[1::2], parts[2::2], strict=True):
        role: Role = "user" if speaker == "Human" else "assistant"
        text = text_of(text, field, origin, empty=True)
        if messages and messages[-1].role == role:  # one speaker, twice in a row: one turn
            text = f"{messages.pop().content}\n\n{text}"
        messages.append(Message(role, text))
    return messages


def _answers(value: Any, field: str, origin: str) -> list[Message]:
    """A list of messages of which the last may be empty, as a response in a ranking may."""
    *before, last = list_of(value, field, origin)
    messages = messages_of(before, field, origin) if before else []
    return [*messages, message_of(last, f"{field}[{len(before)}]", origin, empty=True)]
