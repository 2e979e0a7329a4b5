"""Log-probabilities, values and advantages at every token of some of the evaluation's answers.

Actor and SFT model score the answers of both, so that a reader sees where the one departs from
the other; the critic says what it expected at each token, and the same pure functions that PPO was
trained with say how much better each token was than that.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from common.config.arguments import ModelArguments, ZeroArguments
from common.data.encoding import EncodedPrompt
from common.data.template import Template
from common.evaluation.health import points
from common.evaluation.policy import own_share
from common.evaluation.run_files import MODELS, read_metrics
from common.hybrid_engine.rollout import Rollout
from common.models.loading import load_causal_lm
from common.models.policy import PolicyModel, score_responses
from common.models.scalar import load_scalar_model
from common.ppo.advantages import generalized_advantages
from common.ppo.experience import chunks, response_values
from common.ppo.kl import kl_k1
from common.ppo.rewards import clipped_scores, score_penalties, token_rewards, weighted_scores
from common.reward.places import RewardPlace, parse_rewards
from common.training.distributed import device, gather_objects
from common.training.engine import build_frozen
from common.training.padding import left_pad, right_pad
from common.training.watchdog import WATCHDOG
from common.zero.config import resolve_dtype

DIGITS = 4
"""Behind the point: nats and deviations are read, not added up."""

ForwardTokens = Callable[[Tensor, Tensor, int], Tensor]
"""(ids, mask, R): `[batch, P + R]` twice -> one number a response token, `[batch, R]`."""


@dataclass(frozen=True)
class TrainingFacts:
    """What PPO's rewards and advantages were made with; as the settings of the same names."""

    gamma: float
    lam: float
    kl_coefficient: float
    """β at the end of training."""
    score_clip: float
    no_end_score: float
    length_penalty: float
    repeat_penalty: float
    repeat_size: int
    temperature: float
    reward: RewardPlace | None
    """The reward model; None where the score came from several sources, or from something else
    than what the evaluation scores by."""


@dataclass(frozen=True)
class TokenScorer:
    """Who scores tokens, and how they are loaded: one model at a time."""

    paths: dict[str, str]
    """"sft" and "rlhf", and "values" for the critic where there is one -> model folder."""
    settings: ModelArguments
    zero: ZeroArguments
    """Resolved."""
    batch_size: int
    temperature: float

    def __call__(
        self,
        name: str,
        rows: Sequence[dict[str, Any]],
        prompts: Mapping[str, Mapping[int, EncodedPrompt]],
        pad_id: int,
    ) -> list[list[float]]:
        """What one of the models says of each token of the rows. A collective.

        Args:
            name: a key of `paths`.
            rows: of answers, with `split`, `index` and `ids`.
            prompts: of each split, by `index`.
        """
        model = self._load(name)
        WATCHDOG.at(f"the evaluation's scores of tokens by {self.paths[name]}")

        def forward(ids: Tensor, attention: Tensor, width: int) -> Tensor:
            WATCHDOG.alive()
            if name == "values":
                return response_values(model, ids, attention, width)
            return score_responses(model, ids, attention, width, self.temperature).logprobs

        asked = [prompts[row["split"]][row["index"]].ids for row in rows]
        return score_tokens(forward, asked, [row["ids"] for row in rows], pad_id, self.batch_size)

    def _load(self, name: str) -> nn.Module:
        path = self.paths[name]
        if name == "values":
            model: nn.Module = load_scalar_model(path, "critic", self.settings, new_head=False)
        else:
            model = PolicyModel(load_causal_lm(path, self.settings), self.settings.most_logits)
        return build_frozen(model, zero=self.zero, dtype=resolve_dtype(self.settings.dtype))


def wanted(row: dict[str, Any], prompts: int) -> bool:
    """Whether an answer's tokens are scored: SFT's and RLHF's first sample, and the greedy one."""
    return row["model"] in MODELS and row["sample"] == 0 and row["index"] < prompts


def read_training(run: Path, sft: str, reward: str) -> TrainingFacts | None:
    """How the run's PPO was set; None where it has none, or its files cannot be read.

    Args:
        run: the run directory; the last β is in the metrics of its `rlhf`, as it may have adapted.
        sft, reward: model folders of this evaluation. Where PPO had others, its advantages cannot
            be told from their scores, nor where its scores were scaled by those before them.
    """
    try:
        settings = yaml.safe_load((run / "rlhf" / "config.yaml").read_text(encoding="utf-8"))
        names = [n for n in TrainingFacts.__dataclass_fields__ if n != "reward"]
        found = {name: settings[name] for name in names}
        places = parse_rewards(settings["reward"], default=str(run / "models" / "reward"))
        reference = settings["actor"] or str(run / "models" / "sft")
        same = _same(reference, sft) and _same(places[0].path, reward)
        known = same and len(places) == 1 and settings["score_scaling"] == "reference"
    except (OSError, KeyError, TypeError, ValueError, yaml.YAMLError):
        return None
    adapted = points(read_metrics(run / "rlhf" / "metrics.jsonl"), "kl/coefficient")
    if adapted.size:
        found["kl_coefficient"] = float(adapted[-1])
    return TrainingFacts(**found, reward=places[0] if known else None)


def _same(path: str, other: str) -> bool:
    return Path(path).resolve() == Path(other).resolve()


def score_tokens(
    forward: ForwardTokens,
    prompts: Sequence[Sequence[int]],
    responses: Sequence[Sequence[int]],
    pad_id: int,
    batch_size: int,
) -> list[list[float]]:
    """One number at every token of each response, on every rank. A collective.

    Rows are dealt out over ranks in order of length, equally many to each.

    Args:
        forward: a model's `score_responses` or `response_values`.
        prompts, responses: token ids; a response's end token is one of them.
        batch_size: rows of a forward, on each rank.
    """
    if not prompts:
        return []
    mine = own_share([len(p) + len(r) for p, r in zip(prompts, responses, strict=True)])
    rollout = as_rollout([prompts[i] for i in mine], [responses[i] for i in mine], pad_id)
    rows: dict[int, list[float]] = {}
    with torch.no_grad():
        for places, ids, attention, width in chunks(rollout, batch_size):
            values = forward(ids, attention, width).float().tolist()
            for place, value in zip(places.tolist(), values, strict=True):
                row = mine[place]
                rows[row] = [round(x, DIGITS) for x in value[: len(responses[row])]]
    everything: dict[int, list[float]] = {}
    for part in gather_objects(rows):
        everything |= part  # type: ignore[operator]
    return [everything[i] for i in range(len(prompts))]


def as_rollout(
    prompts: Sequence[Sequence[int]], responses: Sequence[Sequence[int]], pad_id: int
) -> Rollout:
    """Answers of before as they were when they were generated, on this rank's device."""
    prompt_ids, prompt_mask = left_pad(prompts, pad_id)
    ids, mask = right_pad(responses, pad_id)
    return Rollout(
        torch.cat([prompt_ids, ids], dim=1).to(device()),
        torch.cat([prompt_mask, mask], dim=1).to(device()),
        ids.shape[1],
        torch.zeros(len(ids), dtype=torch.bool),
        torch.zeros(ids.shape),
    )


def token_advantages(
    ids: Sequence[int],
    logprobs: Sequence[float],
    ref_logprobs: Sequence[float],
    values: Sequence[float],
    raw_score: float,
    ended: bool,
    training: TrainingFacts,
    scale: tuple[float, float] | None,
) -> list[float]:
    """A_t of one answer as PPO would have had it, `[response]`, deviations; not normalized.

    Normalization is over a whole rollout, which one answer is not.

    Args:
        ids, logprobs, ref_logprobs, values: `[response]`; the actor's, the reference's (nats), and
            the critic's.
        raw_score: of the reward model, and `scale` the mean and deviation that normalize it, where
            the setting gave none.
    """
    mask = torch.ones(1, len(ids), dtype=torch.bool)
    place = training.reward or RewardPlace("")
    given = place.mean is not None and place.std is not None
    mean, std = (place.mean, place.std) if given else scale or (0.0, 1.0)
    scores = clipped_scores(
        weighted_scores([torch.tensor([raw_score])], [mean], [std], [place.weight]),
        training.score_clip,
        torch.tensor([ended]),
        training.no_end_score,
    ) - score_penalties(
        torch.tensor([list(ids)]),
        mask,
        training.length_penalty,
        training.repeat_penalty,
        training.repeat_size,
    )
    kl = kl_k1(torch.tensor([list(logprobs)]), torch.tensor([list(ref_logprobs)]))
    rewards = token_rewards(scores, kl, training.kl_coefficient, mask)
    advantages, _ = generalized_advantages(
        rewards, torch.tensor([list(values)]), mask, training.gamma, training.lam
    )
    return [round(x, DIGITS) for x in advantages[0].tolist()]


def token_texts(decode: Callable[[Sequence[int]], str], ids: Sequence[int]) -> list[str]:
    """The text that each token adds; joined they are the whole text. `[response]`.

    A token that holds part of a character adds nothing, and the one that completes it adds it all.
    Each is decoded together with the one before it, since a decoder may drop or add a blank at the
    front.

    Args:
        decode: gives the text of ids as it is, blanks at its ends included.
    """
    texts: list[str] = []
    start = done = 0
    for end in range(1, len(ids) + 1):
        before, now = decode(ids[start:done]), decode(ids[start:end])
        whole = not now.endswith("\ufffd") or end == len(ids)
        texts.append(now[len(before) :] if whole else "")
        if whole:
            start, done = done, end
    return texts


def token_row(
    row: dict[str, Any],
    scores: dict[str, list[float]],
    template: Template,
    training: TrainingFacts | None,
    scale: tuple[float, float] | None,
) -> dict[str, Any]:
    """A row of `tokens.jsonl`: which answer it is, its tokens' texts, and what is known of each.

    Args:
        row: of an answer, with its `ids`.
        scores: "rlhf" and "sft", log-probabilities in nats, and "values", where there is a critic.
        scale: mean and deviation of the reward model's scores; None where nobody knows them.
    """

    def decode(ids: Sequence[int]) -> str:
        return template.tokenizer.decode(ids, skip_special_tokens=True)

    names = ("split", "index", "model", "decoding", "sample")
    found = {name: row[name] for name in names}
    found |= {"tokens": token_texts(decode, row["ids"]), **scores}
    known = training is not None and training.reward is not None
    known = known and (scale is not None or training.reward.mean is not None)
    if known and "values" in scores and row["reward"] is not None:
        found["advantages"] = token_advantages(
            row["ids"],
            scores["rlhf"],
            scores["sft"],
            scores["values"],
            row["reward"],
            row["ended"],
            training,
            scale,
        )
    return found
