"""What every layout of a data file becomes: conversations, prompts, rankings and pairs."""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True)
class Conversation:
    """An example for SFT: user and assistant take turns, the assistant has the last word.

    Every assistant turn is trained on. `origin` is "path:line" of the row in the user's file, or
    "path[row]" (from 0) where rows have no lines. `facts` is the row's `facts` column, if any.
    """

    messages: tuple[Message, ...]
    origin: str
    facts: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def prompt_key(self) -> str:
        """See `prompt_key`."""
        return prompt_key(self.messages)


@dataclass(frozen=True)
class Prompt:
    """Messages that end with the user's: what a model is to answer."""

    messages: tuple[Message, ...]
    origin: str
    facts: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def prompt_key(self) -> str:
        """See `prompt_key`."""
        return prompt_key(self.messages)


@dataclass(frozen=True)
class Ranking:
    """Responses to one prompt, as ranked by each labeler.

    `ranks[labeler][response]` is 1 for the best response; tied ones share their mean rank.
    """

    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[tuple[float, ...], ...]
    origin: str
    facts: dict[str, Any] | None = field(default=None, hash=False)

    @property
    def prompt_key(self) -> str:
        """See `prompt_key`."""
        return prompt_key(self.messages)


@dataclass(frozen=True)
class RankingSet:
    """Rankings, and how many responses and rankings were left out, by reason."""

    rankings: list[Ranking]
    dropped: Counter[str]


@dataclass(frozen=True)
class Pair:
    """A better and a worse response to one prompt: an example for the reward model."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    gap: float
    """Mean rank of the rejected minus mean rank of the chosen response, above 0."""
    origin: str
    facts: dict[str, Any] | None = field(default=None, hash=False)
    weight: float = 1.0
    """How much the pair counts in a loss, above 0."""
    margin: float | None = None
    """By how much the scores are to differ; None leaves it to the loss."""

    @property
    def prompt_key(self) -> str:
        """See `prompt_key`."""
        return prompt_key(self.messages)


def prompt_key(messages: Sequence[Message]) -> str:
    """Text of the messages up to the last user turn: equal for what counts as the same prompt.

    Case, runs of white space and Unicode compatibility forms make no difference, so that a
    prompt and its retyped copy never fall on two sides of a split.
    """
    last_user = max((i for i, m in enumerate(messages) if m.role == "user"), default=-1)
    turns = []
    for message in messages[: last_user + 1]:
        text = unicodedata.normalize("NFKC", message.content).casefold()
        turns.append(f"{message.role}: {' '.join(text.split())}")
    return "\n".join(turns)
