"""The last stage: SFT, RLHF and others answer held-out prompts, sampled and greedily."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.arguments import (
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
    check_range,
    option,
)
from common.data.encoding import EncodedPrompt, describe, encode_prompts
from common.data.layouts import read_prompts
from common.data.sources import parse_sources
from common.data.template import Template
from common.errors import UserError
from common.evaluation.contenders import Contender, contenders, keep_best, kl_bound
from common.evaluation.judged import Judged
from common.evaluation.policy import mean_of, respond
from common.evaluation.run_files import MODELS
from common.evaluation.tokens import TokenScorer, read_training
from common.files import write_json_lines
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.hybrid_engine.rollout import Rollout
from common.models.loading import check_model_folder, load_causal_lm, load_tokenizer
from common.models.policy import PolicyModel
from common.ppo.models import load_reward
from common.reward.scoring import RewardScorer
from common.training.distributed import is_main
from common.training.engine import build_frozen
from common.training.metrics import progress_bar
from common.training.once_per_node import once_per_node
from common.training.resume.checkpoints import CheckpointArguments
from common.training.seeding import derive_seed
from common.training.stage import Stage, run_stage
from common.training.watchdog import WATCHDOG
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


ARGUMENTS = (
    RunArguments,
    EvaluationArguments,
    ModelArguments,
    TextArguments,
    SamplingArguments,
    RolloutArguments,
    ZeroArguments,
    CheckpointArguments,
)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    settings: EvaluationArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    sampling: SamplingArguments,
    rollout: RolloutArguments,
    zero: ZeroArguments,
    saving: CheckpointArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    compared = contenders(
        settings.sft or str(stage.models / "sft"),
        settings.rlhf or str(stage.models / "actor"),
        settings.further,
        settings.samples,
        settings.best_of,
    )
    sources = parse_sources(settings.data)
    reward = settings.reward or str(stage.models / "reward")
    for contender in compared:
        check_model_folder(contender.path)
    if settings.best_of and not settings.reward and not Path(reward).exists():
        raise UserError(
            f"best_of chooses by a reward model, but {reward} is not there: set reward, or "
            "--best_of 0"
        )
    scored = token_models(stage, settings, compared)
    inputs = dict.fromkeys([*(c.path for c in compared), *scored.values(), reward])
    stage.begin([*inputs, *(s.path for s in sources)])
    names = [s.name for s in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"two splits are named '{name}'; give each source its own `name`")
    splits = once_per_node(lambda: {s.name: read_prompts([s]) for s in sources})
    answered: dict[str, int] = {}
    left_out: Counter[str] = Counter()
    dtype, spread = resolve_dtype(model_settings.dtype), stage.resolve_zero(zero)
    judged = Judged()
    encoded: dict[str, list[EncodedPrompt]] = {}
    total = len(splits) * sum(c.passes for c in compared) + len(scored)
    with (
        stage.checkpoints(saving, shared={"judged": judged}) as checkpoints,
        progress_bar(total, "evaluation", done=checkpoints.restore(), shown=run.progress) as bar,
    ):
        done, step, loaded = checkpoints.step, 0, ""
        for contender in compared:
            path = contender.path
            tokenizer = load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
            template = Template(tokenizer, text.template)
            if path != loaded and step + len(splits) * contender.passes > done:
                loaded, model, rollouts, scorer = path, None, None, None  # let the last ones go
                WATCHDOG.at(f"loading {path} for the evaluation")
                model = build_frozen(
                    PolicyModel(load_causal_lm(path, model_settings), model_settings.most_logits),
                    zero=spread,
                    dtype=dtype,
                )
                rollouts = HybridRollout.for_template(model, template, text, sampling, rollout)
                scorer = reward_scorer(stage, settings, model_settings, text, template, spread)
                judged.scale = (scorer.mean, scorer.std) if scorer else None
            for split, records in splits.items():
                prompts, counts = encode_prompts(records, template, text)
                encoded[split] = prompts = prompts[: settings.limit or None]
                if split not in answered:  # the second model has the same tokenizer
                    answered[split] = len(prompts)
                    left_out += counts
                for number in range(contender.passes):
                    step += 1
                    if step <= done:
                        continue
                    greedy = number == contender.samples
                    WATCHDOG.at(f"the evaluation of {contender.name} on {split}")
                    answers = answer(
                        rollouts,
                        prompts,
                        template,
                        scorer,
                        seed=derive_seed(run.seed, contender.purpose, split, number),
                        greedy=greedy,
                        check=number == 0,
                    )
                    for i, row in enumerate(answers):
                        place = {"split": split, "index": i, "model": contender.name}
                        place |= {"decoding": "greedy" if greedy else "sample"}
                        place["sample"] = 0 if greedy else number
                        judged.add(place, row, settings.token_prompts)
                    bar.update()
                    checkpoints.after(step, {}, last=step == total)
        model, rollouts, scorer = None, None, None
        training = read_training(stage.root)
        score = TokenScorer(
            scored,
            model_settings,
            spread,
            sampling.generation_batch_size,
            training.temperature if training else sampling.temperature,
        )
        for name in scored:
            step += 1
            if step <= done:
                continue
            pad_id = template.tokenizer.pad_token_id
            judged.token_scores[name] = score(name, judged.scored, encoded, pad_id)
            bar.update()
            checkpoints.after(step, {}, last=step == total)
    rows = keep_best(judged.rows, f"best_of_{settings.best_of}")
    if is_main():
        write_json_lines(stage.folder / "responses.jsonl", rows)
        write_json_lines(stage.folder / "tokens.jsonl", judged.token_rows(template, training))
    means = {
        f"{c.name}_{key}": mean_of([r for r in rows if r["model"] == c.name], key)
        for c in compared
        for key in ("overall", "reward")
    }
    stage.finish(
        {
            "prompts": answered,
            "samples": settings.samples,
            "left_out": dict(left_out),
            **means,
            **({"best_of_kl_bound": kl_bound(settings.best_of)} if settings.best_of else {}),
        },
        ", ".join(filter(None, [f"{len(rows)} responses judged", describe(left_out)]))
        + f", in {stage.folder / 'responses.jsonl'}",
        outputs=[stage.folder / "responses.jsonl", stage.folder / "tokens.jsonl"],
        checkpoints=checkpoints,
    )


def token_models(
    stage: Stage, settings: EvaluationArguments, compared: Sequence[Contender]
) -> dict[str, str]:
    """Who scores tokens -> model folder: both models, and the critic where there is one.

    Raises:
        UserError: the critic that is asked for is not there.
    """
    if not settings.token_prompts:
        return {}
    found = {c.name: c.path for c in compared if c.name in MODELS}
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


if __name__ == "__main__":
    run_stage("evaluation", ARGUMENTS, main)
