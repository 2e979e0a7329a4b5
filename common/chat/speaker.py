"""A model that answers, an answer in the making, and the reward model that scores it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from common.chat.conversation import fit
from common.chat.settings import ChatArguments, ChatSampling
from common.config.arguments import ModelArguments
from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.streaming import stream_response
from common.models.kinds import check_policy, kinds
from common.models.loading import check_model_folder, load_causal_lm, load_tokenizer
from common.models.scalar import load_scalar_model
from common.reward.scoring import RewardScorer, score_scale
from common.training.distributed import device

UNFINISHED = "\ufffd"
"""What a tokenizer gives for a character whose last bytes have not come yet."""
LONGEST_CHARACTER = 8
"""Tokens that are waited for, at most, until a character is whole."""


class Speaker:
    """A language model with its tokenizer and template."""

    def __init__(self, name: str, model: Any, template: Template) -> None:
        self.name = name
        self.model = model
        self.template = template
        self.context: int | None = getattr(model.config, "max_position_embeddings", None)
        """Tokens that the model can see; None where its config names no limit."""


class Reply:
    """One answer in the making: whoever wants it calls `advance` until it is over, or stops."""

    def __init__(
        self, speaker: Speaker, messages: Sequence[Message], sampling: ChatSampling, seed: int
    ) -> None:
        """Args:
            messages: the conversation up to the question.
            seed: of this answer's draws.

        Raises:
            UserError: the question is too long for the model.
        """
        self.speaker = speaker
        self.fitted = fit(messages, speaker.template, speaker.context, sampling.max_response_tokens)
        self.ended = False
        """Whether the model itself has ended."""
        self._ids: list[int] = []
        self._known, self._read = 0, 0
        """Places in `_ids`: text is shown up to the latter, and the former's piece came before."""
        self._begun = False
        self._tokens = stream_response(
            speaker.model,
            self.fitted.ids,
            eos_id=speaker.template.end_id,
            pad_id=speaker.template.tokenizer.pad_token_id,
            max_new_tokens=self.fitted.room,
            sampling=sampling.arguments(),
            seed=seed,
            greedy=sampling.greedy,
        )

    @property
    def tokens(self) -> int:
        """How many it has, the end token included."""
        return len(self._ids)

    @property
    def is_cut(self) -> bool:
        """Whether it came to its longest without an end."""
        return not self.ended and self.tokens == self.fitted.room

    @property
    def text(self) -> str:
        """All of it so far."""
        return self.speaker.template.decode_response(self._ids)

    def advance(self) -> str | None:
        """One token more: the text that it adds, perhaps none; None when the answer is over."""
        token = next(self._tokens, None)
        if token is None:
            return self._piece(last=True) or None
        self._ids.append(token)
        self.ended = token == self.speaker.template.end_id
        return self._piece(last=False)

    def _piece(self, *, last: bool) -> str:
        """What the newest tokens add: decoded behind those before them, for blanks between words.

        Only a few are decoded, however long the answer is.
        """
        before = self._decoded(self._known, self._read)
        text = self._decoded(self._known, len(self._ids))
        waits = text.endswith(UNFINISHED) and len(self._ids) - self._read < LONGEST_CHARACTER
        if len(text) <= len(before) or (waits and not last):
            return ""
        self._known, self._read = self._read, len(self._ids)
        piece = text[len(before) :]
        if not self._begun:  # as in the whole text, blanks before it are left out
            piece = piece.lstrip()
            self._begun = piece != ""
        return piece

    def _decoded(self, start: int, stop: int) -> str:
        tokenizer = self.speaker.template.tokenizer
        return tokenizer.decode(self._ids[start:stop], skip_special_tokens=True)

    def stop(self) -> None:
        """No more tokens; what is there stays."""
        self._tokens.close()


def in_turn(replies: Sequence[Reply]) -> Iterator[tuple[int, str]]:
    """(whose, text) of several answers, a token of each after the other, until all are over."""
    going = dict(enumerate(replies))
    while going:
        for number, reply in list(going.items()):
            piece = reply.advance()
            if piece is None:
                del going[number]
            elif piece:
                yield number, piece


class Judge:
    """The reward model, for each speaker's answers."""

    def __init__(self, path: str, arguments: ModelArguments, template: str) -> None:
        """Raises:
        UserError: no such folder, or one of a language model.
        """
        self.path = path
        check_model_folder(path)
        if "reward" not in kinds(path):
            raise UserError(f"{path}: not a reward model; --reward takes what stage 2 makes")
        model = load_scalar_model(path, "reward", arguments, new_head=False)
        config = model.inner.config
        tokenizer = load_tokenizer(path, trust_remote_code=arguments.trust_remote_code)
        self.context: int | None = getattr(config, "max_position_embeddings", None)
        self.template = Template(tokenizer, template)
        self._scorer = RewardScorer(
            model.to(device()).eval(),
            self.template,
            self.template,
            *score_scale(config.to_dict()),
        )

    def score(self, messages: Sequence[Message], answer: str) -> float | None:
        """The answer's score, in deviations from the mean of reference responses where known.

        None where the reward model cannot see that much.
        """
        ids, _ = self._scorer.encode([messages], [answer])
        if self.context is not None and ids.shape[1] > self.context:
            return None
        raw = self._scorer.score_texts([messages], [answer], batch_size=1)
        mean, std = self._scorer.scale or (0.0, 1.0)
        return (float(raw[0]) - mean) / std


def load_all(settings: ChatArguments) -> tuple[list[Speaker], Judge | None]:
    """The models that are asked for.

    Raises:
        UserError: a folder that is missing, or of another kind.
    """
    paths, reward = folders_of(settings.models, settings.reward)
    for path in paths:
        check_policy(path, reward_option="--reward")
    arguments = ModelArguments(dtype=settings.dtype, trust_remote_code=settings.trust_remote_code)
    judge = Judge(reward, arguments, settings.template) if reward else None
    speakers = []
    for path, name in zip(paths, short_names(paths), strict=True):
        tokenizer = load_tokenizer(path, trust_remote_code=settings.trust_remote_code)
        with torch.no_grad():
            model = load_causal_lm(path, arguments).to(device()).eval()
        speakers.append(Speaker(name, model, Template(tokenizer, settings.template)))
    return speakers, judge


def folders_of(names: Sequence[str], reward: str) -> tuple[list[str], str]:
    """Model folders, with a run's folder replaced by those of its models; and the reward model's.

    Raises:
        UserError: a run that has no model to talk to yet.
    """
    paths: list[str] = []
    for name in names:
        models = Path(name) / "models"
        if not models.is_dir():
            paths.append(name)
            continue
        found = [models / kind for kind in ("sft", "actor") if (models / kind).is_dir()]
        if not found:
            raise UserError(f"{name}: this run has neither models/sft nor models/actor yet")
        paths += map(str, found)
        if not reward and (models / "reward").is_dir():
            reward = str(models / "reward")
    return paths, reward


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path; two or more where that does not tell them apart."""
    parts = [Path(path).resolve().parts if Path(path).exists() else (path,) for path in paths]
    names = []
    for number, own in enumerate(parts):
        length = 1
        others = [p for i, p in enumerate(parts) if i != number and p != own]
        while length < len(own) and any(p[-length:] == own[-length:] for p in others):
            length += 1
        names.append("/".join(own[-length:]))
    return names
