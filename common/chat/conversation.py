"""What was said: the same questions to every model, and each model's own answers."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.files import read_json_lines, write_text


@dataclass
class Turn:
    """A question, and each model's answer to it."""

    question: str
    answers: list[str]
    scores: list[float | None]
    """The reward model's, in its deviations; None where it gave none."""


@dataclass
class Conversation:
    """Turns, after an optional system message."""

    models: Sequence[str]
    """Names, in the order of every turn's answers."""
    system: str = ""
    turns: list[Turn] = field(default_factory=list)

    def messages(self, model: int, question: str) -> tuple[Message, ...]:
        """What one model is to answer: its own history, and a new question."""
        found = [Message("system", self.system)] if self.system else []
        for turn in self.turns:
            found += [Message("user", turn.question), Message("assistant", turn.answers[model])]
        return (*found, Message("user", question))

    def save(self, path: Path) -> None:
        """JSON lines, a row a model: `model`, `messages`, and a score for each answer.

        Raises:
            UserError: there is no writing there.
        """
        rows = []
        for model, name in enumerate(self.models):
            said = self.messages(model, "")[:-1]
            messages = [{"role": m.role, "content": m.content} for m in said]
            scores = [turn.scores[model] for turn in self.turns]
            rows.append({"model": name, "messages": messages, "scores": scores})
        try:
            write_text(path, "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
        except OSError as error:
            raise UserError(f"{path}: cannot be written: {error.strerror}") from None

    @classmethod
    def load(cls, path: Path, models: Sequence[str]) -> "Conversation":
        """Reads what `save` wrote; a single row becomes the history of every model.

        Raises:
            UserError: no such file, another number of models, questions that differ between them,
                or a row that is no conversation.
        """
        if not path.is_file():
            raise UserError(f"{path}: there is no such file")
        rows = read_json_lines(path)
        if len(rows) == 1:
            rows = rows * len(models)
        if len(rows) != len(models):
            raise UserError(
                f"{path}: holds {len(rows)} models' conversations, but {len(models)} talk here; "
                "keep one row of it, or as many"
            )
        read = [_read_row(row, f"{path}:{n + 1}") for n, row in enumerate(rows)]
        if any(other[:2] != read[0][:2] for other in read):
            raise UserError(f"{path}: its rows ask the models different questions")
        system, questions = read[0][:2]
        turns = [
            Turn(question, [r[2][i] for r in read], [r[3][i] for r in read])
            for i, question in enumerate(questions)
        ]
        return cls(models, system, turns)


def _read_row(
    row: dict[str, Any], where: str
) -> tuple[str, list[str], list[str], list[float | None]]:
    """System message, questions, answers, scores."""
    said = row.get("messages")
    if not isinstance(said, list) or not all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in said
    ):
        raise UserError(f"{where}: 'messages' must be a list of messages with role and content")
    system = ""
    if said and said[0].get("role") == "system":
        system, said = said[0]["content"], said[1:]
    roles = [m.get("role") for m in said]
    if roles != ["user", "assistant"] * (len(said) // 2):
        raise UserError(f"{where}: user and assistant must take turns, the assistant last")
    texts = [m["content"] for m in said]
    scores = row.get("scores")
    known = isinstance(scores, list) and len(scores) == len(texts) // 2
    numbers = scores if known else [None] * (len(texts) // 2)
    return (
        system,
        texts[::2],
        texts[1::2],
        [float(s) if isinstance(s, int | float) else None for s in numbers],
    )


@dataclass(frozen=True)
class Fitted:
    """What of a conversation goes to a model."""

    messages: tuple[Message, ...]
    ids: list[int]
    room: int
    """Tokens that the answer may have."""
    left_out: int
    """Oldest turns that did not fit."""


def fit(
    messages: Sequence[Message], template: Template, context: int | None, longest: int
) -> Fitted:
    """Leaves out the oldest turns until question and answer fit into a model's context.

    As much as `longest`, but no more than half of the context, is kept free for the answer; where
    the question by itself takes more, the answer gets the rest.

    Args:
        context: tokens that the model can see; None where there is no limit.

    Raises:
        UserError: the question alone fills the context.
    """
    kept, left_out = list(messages), 0
    ids = template.encode_prompt(kept)
    if context is None:
        return Fitted(tuple(kept), ids, longest, 0)
    reserve = min(longest, context // 2)
    first = int(bool(kept) and kept[0].role == "system")
    while len(ids) + reserve > context and len(kept) - first > 1:
        del kept[first : first + 2]
        left_out += 1
        ids = template.encode_prompt(kept)
    room = min(longest, context - len(ids))
    if room < 1:
        raise UserError(
            f"this message takes {len(ids)} tokens, but the model sees {context}, its answer "
            "included; write a shorter one"
        )
    return Fitted(tuple(kept), ids, room, left_out)
