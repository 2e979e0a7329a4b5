"""What the evaluation is told, which models it loads, and how one of them answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.arguments import (
    ModelArguments,
    TextArguments,
    ZeroArguments,
    check_range,
    option,
)
from common.data.encoding import EncodedPrompt
from common.data.template import Template
from common.errors import UserError
from common.evaluation.contenders import Contender
from common.evaluation.policy import respond
from common.evaluation.run_files import MODELS
from common.hybrid_engine.engine import HybridRollout
from common.hybrid_engine.rollout import Rollout
from common.models.loading import check_model_folder, load_tokenizer
from common.ppo.models import load_reward
from common.reward.scoring import RewardScorer, reads_tokens_of
from common.training.engine import build_frozen
from common.training.stage import Stage
from common.zero.config import resolve_dtype


@dataclass
class EvaluationArguments:
    """What is compared on what."""

    sft: str = option("", "model folder before RLHF; by default RUN/models/sft")
    rlhf: str = option("", "model folder after RLHF; by default RUN/models/actor")
    reward: str = option("", "reward model; by default RUN/models/reward, where there is one")
    data: list[str] = option(
        [], "held-out prompts; each entry is a split, named by its key `name` or its file"
    )
    samples: int = option(4, "sampled responses a prompt; one greedy response is added")
    limit: int = option(0, "prompts per split; 0 takes all")
    further: list[str] = option(
        [], "further model folders to compare, each named by its folder; e.g. RUN/models/dpo"
    )
    best_of: int = option(
        0, "also keep the best of so many SFT samples by the reward model, 2 or more; 0: don't"
    )
    token_prompts: int = option(
        40, "prompts per split whose answers are scored token by token, for the report; 0: none"
    )
    critic: str = option(
        "", "critic of that RLHF model, for those scores; by default RUN/models/critic, if there"
    )

    def __post_init__(self) -> None:
        check_range(self, 0, "samples", "limit", "best_of", "token_prompts")
        if self.best_of == 1:
            raise UserError("best_of is 1, which is plain sampling: it must be 0, or at least 2")


def token_models(
    stage: Stage,
    settings: EvaluationArguments,
    model_settings: ModelArguments,
    compared: Sequence[Contender],
) -> dict[str, str]:
    """Who scores tokens -> model folder: both models, and the critic where there is one.

    Nobody, where the two read ids otherwise: neither could score the other's answers.

    Raises:
        UserError: the critic that is asked for is not there.
    """
    if not settings.token_prompts:
        return {}
    found = {c.name: c.path for c in compared if c.name in MODELS}
    sft, rlhf = (
        load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
        for path in found.values()
    )
    if not (reads_tokens_of(sft, rlhf) and reads_tokens_of(rlhf, sft)):
        stage.say("SFT and RLHF have different tokenizers: no answer is scored by token")
        return {}
    critic = settings.critic or str(stage.models / "critic")
    if settings.critic or (not settings.rlhf and Path(critic).exists()):
        check_model_folder(critic)
        found["values"] = critic
    return found


def answer(
    rollouts: HybridRollout,
    prompts: list[EncodedPrompt],
    template: Template,
    scorer: RewardScorer | None,
    *,
    seed: int,
    greedy: bool,
    check: bool,
) -> list[dict[str, Any]]:
    """One judged response a prompt; without a scorer there are no rewards. A collective."""

    def score(rollout: Rollout, batch: Sequence[EncodedPrompt]) -> list[float]:
        size = rollouts.sampling.generation_batch_size
        return scorer.score_rollout(rollout, [p.record.messages for p in batch], size).tolist()

    return respond(
        prompts,
        template,
        lambda batch, places: rollouts.respond(
            [p.ids for p in batch], seed, streams=places, greedy=greedy, check=check
        ),
        score if scorer else None,
    )


def reward_scorer(
    stage: Stage,
    settings: EvaluationArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    template: Template,
    zero: ZeroArguments,
) -> RewardScorer | None:
    """The reward model; None where the run has none: PPO can do without."""
    path = settings.reward or str(stage.models / "reward")
    if not settings.reward and not Path(path).exists():
        stage.say(f"{path} is not there: responses are not scored by a reward model")
        return None
    tokenizer = load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
    found = load_reward(path, tokenizer, model_settings)
    return RewardScorer(
        build_frozen(found.model, zero=zero, dtype=resolve_dtype(model_settings.dtype)),
        Template(tokenizer, text.template),
        template,
        found.mean,
        found.std,
    )
