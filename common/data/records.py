"""What every layout of a data file becomes: conversations, prompts, rankings and pairs."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

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
    """Responses to one prompt, as ranked by each labeler; as found, so that all can be counted.

    `ranks[labeler][response]` is 1 for the best response that this labeler ranked; tied ones share
    their mean rank, and None was not ranked. Labelers who could not judge are `absent`.
    """

    messages: tuple[Message, ...]
    responses: tuple[str, ...]
    ranks: tuple[tuple[float | None, ...], ...]
    origin: str
    facts: dict[str, Any] | None = field(default=None, hash=False)
    absent: int = 0
    """How many labelers were asked and could not judge."""
    labelers: tuple[str, ...] = ()
    """The names of all who were asked, where the file has them."""
    judges: tuple[str, ...] = ()
    """Those of them whose orders the ranks come from."""
    saved: tuple[str, ...] = ()
    """For each of `judges` when the order was saved, "" where that is not known."""
    flaw: str = ""
    """Why it cannot be used, where that showed when it was read."""
    numbers: "PairNumbers | None" = None
    """Of a file of pairs: what it says about the pair beside its texts."""

    @property
    def prompt_key(self) -> str:
        """See `prompt_key`."""
        return prompt_key(self.messages)


class PairNumbers(NamedTuple):
    """What a pair carries beside its texts."""

    gap: float = 1.0
    """Places between the two: the rejected response's aggregated rank minus the chosen one's, in
    ranks from 1 to the number of responses; above 0."""
    weight: float = 1.0
    """How much the pair counts in the loss, above 0; 1 unless its labelers disagree."""
    margin: float | None = None
    """The margin that the hinge loss asks of this pair, in units of the score; None: as set."""
    agreement: float | None = None
    """Kendall's W of the prompt's labelers, 0 to 1; None with a single labeler."""
    support: float | None = None
    """Share of the labelers who compared the two that prefer the chosen one, ties half; None where
    nobody's own comparison is known."""


@dataclass(frozen=True)
class Pair:
    """A better and a worse response to one prompt: an example for the reward model."""

    messages: tuple[Message, ...]
    chosen: str
    rejected: str
    gap: float
    """See `PairNumbers`, as for the last four."""
    origin: str
    facts: dict[str, Any] | None = field(default=None, hash=False)
    weight: float = 1.0
    margin: float | None = None
    agreement: float | None = None
    support: float | None = None
    labelers: tuple[str, ...] = ()
    """The names of those who ranked, where the file has them."""

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


def opening_key(messages: Sequence[Message]) -> str:
    """`prompt_key` of the user's first message alone: equal for all prompts of one conversation.

    A later turn's prompt quotes the responses to an earlier one, so that these prompts belong on
    one side of a split.
    """
    return prompt_key([m for m in messages if m.role == "user"][:1])
