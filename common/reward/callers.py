"""Rewards from outside: a function in a user's own file, or an HTTP endpoint.

Both get the texts of prompts and responses, and give back a number for each response.
"""

import hashlib
import importlib.util
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.rollout import Rollout
from common.training.distributed import device, fail_together
from common.training.padding import in_batches
from common.training.watchdog import WATCHDOG
from common.web import NoAnswer, ask, post_json, short

ScoreTexts = Callable[[list[str], list[str]], Sequence[float]]
"""(prompts, responses) -> a score for each response."""


PATIENCE = 0.4
"""Share of the watchdogs' limit in which an endpoint that fails is asked again for the scores of
one rollout, and the most that one answer may take: together they stay below it."""


class TextScorer:
    """Has what `RewardScorer` has, for a function of texts."""

    model = None
    """There are no weights here."""
    same_tokens = False

    def __init__(self, name: str, function: ScoreTexts, policy: Template) -> None:
        """Args:
        name: of the source, for errors.
        policy: of the actor's tokenizer.
        """
        self.name = name
        self.function = function
        self.policy = policy

    def score_rollout(
        self, rollout: Rollout, prompts: Sequence[Sequence[Message]], batch_size: int
    ) -> Tensor:
        """Raw scores of this rank's rows, `[batch]` float32, on its device. A collective.

        Args:
            batch_size: responses per call of the function.

        Raises:
            UserError: the function failed on some rank, or gave something else than a finite
                number for each response; on all ranks.
        """
        asked = [text_of(p) for p in prompts]
        answers = [self.policy.decode_response(ids) for ids in rollout.response_ids()]
        scores: list[float] = []
        fault = ""
        if isinstance(self.function, Endpoint):
            self.function.begin()
        for part in in_batches(len(answers), batch_size):
            WATCHDOG.alive()
            try:
                found = self.function(asked[part], answers[part])
                scores += checked(found, len(answers[part]), self.name, len(scores))
            except UserError as error:
                fault = str(error)
                break
            except (Exception, SystemExit) as error:  # whatever the user's own code raises
                fault = f"reward {self.name}: {type(error).__name__}: {error}"
                break
        fail_together(fault)
        return torch.tensor(scores, dtype=torch.float32, device=device())


def text_of(messages: Sequence[Message]) -> str:
    """A prompt as a function or endpoint gets it: its one message, or "role: message" lines."""
    if len(messages) == 1:
        return messages[0].content
    return "\n".join(f"{m.role}: {m.content}" for m in messages)


def checked(scores: Any, count: int, name: str, before: int = 0) -> list[float]:  # noqa: ANN401
    """Scores as floats.

    Args:
        scores: what a source gave: a list, an array or a tensor.
        count: of the responses.
        before: responses that were scored before these, for the error.

    Raises:
        UserError: not as many as responses, or one that is not a finite number.
    """
    try:
        items = list(scores)
    except TypeError:
        items = None
    if items is None or isinstance(scores, str | dict):
        raise UserError(f"reward {name}: gave {short(scores)}, but must give a list of numbers")
    if len(items) != count:
        raise UserError(f"reward {name}: gave {len(items)} scores for {count} responses")
    numbers = []
    for i, item in enumerate(items, start=before):
        try:
            number = math.nan if isinstance(item, str) else float(item)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(
                f"reward {name}: the score of response {i} of this rank's rollout (from 0) is "
                f"{short(item)}, but must be a finite number"
            )
        numbers.append(number)
    return numbers


def load_function(file: str, name: str) -> ScoreTexts:
    """A function out of a Python file, which is run for it: its user named it.

    Raises:
        UserError: no such file or function, or the file cannot be run.
    """
    path = Path(file).expanduser()
    place = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]  # stems may be alike
    spec = importlib.util.spec_from_file_location(f"reward_of_{path.stem}_{place}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"reward python:{file}:{name}: {file} must be a Python file, *.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses and pickle look there for what a class is of
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[spec.name]
        raise UserError(
            f"reward python:{file}:{name}: {file} cannot be run: {type(error).__name__}: {error}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        raise UserError(f"reward python:{file}:{name}: {file} has no function '{name}'")
    return function


class Endpoint:
    """Scores by POST of {"prompts": […], "responses": […]}; the answer is {"scores": […]}.

    What the environment's RLHF_REWARD_TOKEN holds is sent as a bearer token: in the URL it would
    end up in the run's settings and in the model's card.
    """

    def __init__(self, url: str, timeout: float, retries: int) -> None:
        """Args:
        timeout: seconds that one answer may take.
        retries: further tries where it does not answer, or says that it is busy or broken.
        """
        self.url = url
        self.timeout = timeout
        self.retries = retries
        self._latest = math.inf

    def begin(self) -> None:
        """A rollout's scoring begins: the time in which further tries may be made.

        The other ranks wait for this one, and their watchdogs see no sign of life of it: they
        would end the run as hung, without a word of the endpoint.
        """
        self._latest = time.monotonic() + PATIENCE * WATCHDOG.limit

    def __call__(self, prompts: list[str], responses: list[str]) -> Sequence[float]:
        """See `ScoreTexts`.

        Raises:
            UserError: names the URL and what came back.
        """
        texts = {"prompts": prompts, "responses": responses}
        try:
            return ask(
                lambda: self._scores(self._post(texts)),
                retries=self.retries,
                wait=_wait_alive,
                seconds=self._latest - time.monotonic(),
            )
        except NoAnswer as error:
            place = self.url.partition("?")[0]  # what stands behind may be a secret
            raise UserError(
                f"reward endpoint {place}: {error} (tries: {error.tries}, reward_timeout "
                f"{self.timeout:g} s)"
            ) from None

    def _post(self, texts: dict[str, list[str]]) -> bytes:
        token = os.environ.get("RLHF_REWARD_TOKEN", "")
        timeout = min(self.timeout, PATIENCE * WATCHDOG.limit)
        return post_json(self.url, texts, timeout=timeout, token=token)

    def _scores(self, answer: bytes) -> Sequence[float]:
        try:
            content = json.loads(answer)
        except (ValueError, RecursionError):
            raise ValueError(f"answered no JSON: {short(answer)}") from None
        if not isinstance(content, dict) or "scores" not in content:
            raise ValueError(f'answered no {{"scores": […]}}: {short(answer)}')
        return content["scores"]


def _wait_alive(seconds: float) -> None:
    WATCHDOG.alive()
    time.sleep(seconds)
