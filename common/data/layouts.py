"""Users' files into records: the layout of each row is told by its columns.

Every problem of every row is gathered and told at once, before any training starts.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from common.data.cleaning import clean
from common.data.fields import (
    Problems,
    UnknownLayout,
    check_turns,
    facts_of,
    has,
    messages_of,
    text_of,
)
from common.data.prompt_layouts import alpaca_prompt, prompt_of, unknown_layout, with_system
from common.data.ranking_layouts import rankings_of
from common.data.readers import Row, read_rows
from common.data.records import Conversation, Message, Prompt, Ranking
from common.data.sources import DataSource
from common.data.trees import best_path, root_of
from common.errors import UserError

CONVERSATION_LAYOUTS = (
    "messages",
    "prompt + completion",
    "instruction + output (+ input, system, history)",
    "conversations",
    "Open-Assistant trees",
)

T = TypeVar("T")


def read_conversations(sources: Sequence[DataSource]) -> list[Conversation]:
    """Examples for SFT, sources and rows in their order.

    Raises:
        UserError: all that `read_rows` raises; a field that is missing, empty or of the wrong
            type, an unknown role, roles that do not alternate or do not end with the assistant, a
            source without a single example. Up to five problems are told at once.
    """
    return _read(sources, conversations_of, "conversation")


def read_prompts(sources: Sequence[DataSource]) -> list[Prompt]:
    """Prompts to sample from, sources and rows in their order.

    Raises:
        UserError: as `read_conversations`; messages must end with the user.
    """

    def convert(row: Row, origin: str) -> list[Prompt]:
        return [Prompt(tuple(prompt_of(row, origin)), origin, facts_of(row, origin))]

    return _read(sources, convert, "prompt")


def read_rankings(sources: Sequence[DataSource]) -> list[Ranking]:
    """Ranked responses, sources and rows in their order, as they were found (see `rankings_of`).

    Raises:
        UserError: as `read_conversations`; an order that repeats a response. A source counts as
            empty, too, when no ranking in it holds two different responses that were ranked.
    """
    return _read(
        sources,
        rankings_of,
        "ranking of two different responses",
        lambda ranking: clean(ranking).ranking is not None,
    )


def conversations_of(row: Row, origin: str) -> list[Conversation]:
    """The example of one row; none for a tree that nobody answered.

    Raises:
        UnknownLayout: the columns fit no layout.
        UserError: see `read_conversations`.
    """
    tree = root_of(row)
    if tree:
        field, messages = tree[1] or "replies", best_path(*tree, origin)
        if not messages:
            return []
    elif has(row, "messages"):
        field, messages = "messages", messages_of(row["messages"], "messages", origin)
    elif has(row, "conversations"):
        field, messages = (
            "conversations",
            messages_of(row["conversations"], "conversations", origin),
        )
    elif "prompt" in row or "completion" in row:
        field = "completion"
        messages = [
            *messages_of(row.get("prompt"), "prompt", origin),
            *messages_of(row.get("completion"), "completion", origin, "assistant"),
        ]
    elif "instruction" in row or "output" in row:
        field = "output"
        answer = text_of(row.get("output"), "output", origin)
        messages = [*alpaca_prompt(row, origin), Message("assistant", answer)]
    else:
        raise unknown_layout(
            row,
            origin,
            "conversations",
            CONVERSATION_LAYOUTS,
            "{prompt: question, completion: answer}",
        )
    messages = with_system(row, messages, origin)
    check_turns(messages, field, origin, last="assistant")
    return [Conversation(tuple(messages), origin, facts_of(row, origin))]


def _read(
    sources: Sequence[DataSource],
    convert: Callable[[Row, str], list[T]],
    what: str,
    usable: Callable[[T], bool] = lambda record: True,
) -> list[T]:
    """Converts every row of every source, and tells the problems of all of them together.

    A source without a single usable record is a problem, too.
    """
    problems = Problems()
    records: list[T] = []
    for source in sources:
        before, told = len(records), len(problems.errors)
        for origin, row in read_rows(source, problems.add):
            try:
                records += convert(row, origin)
            except UnknownLayout as error:
                problems.add(error)
                break  # every other row of the file would say the same
            except UserError as error:
                problems.add(error)
        if told == len(problems.errors) and not any(map(usable, records[before:])):
            problems.add(UserError(f"{source.path}: the data set is empty: not one {what} in it"))
    problems.raise_if_any()
    return records
