"""Stage 2: ICE-Instruct becomes ICE-Reward by ranking loss on pairs (paper §3.2).

Starts from any model folder: the reward model's size is independent of the actor's.
"""

from dataclasses import dataclass
from typing import Any

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    RunArguments,
    TextArguments,
    ZeroArguments,
    option,
)
from common.data.blending import split_by_prompt
from common.data.encoding import describe
from common.data.layouts import read_rankings
from common.data.pairs import all_pairs, read_pairs
from common.data.records import Pair
from common.data.sources import parse_sources, paths_of
from common.data.template import Template
from common.models.cards import Card
from common.models.loading import load_tokenizer, save_model, separate_pad
from common.models.merge import reload_to_merge
from common.models.scalar import load_scalar_model
from common.reward import diagnostics
from common.reward.probe import read_probe
from common.reward.training import PairObjective, RewardArguments, encode_pairs
from common.training.engine import build_engine
from common.training.guard import GuardArguments
from common.training.once_per_node import once_per_node
from common.training.packing import can_pack
from common.training.resume.checkpoints import CheckpointArguments
from common.training.stage import Stage, run_stage
from common.training.supervised import evaluate_supervised, total_steps, train_supervised
from common.zero.config import resolve_dtype

KIND = "A reward model: one score for a prompt and a response, from rankings of responses."
LIMITS = (
    "Scores compare responses to one prompt; across prompts they mean little.",
    "Accuracy is over held-out pairs of the same labelers: how often it agrees with them, not how "
    "often it is right.",
    "What PPO's responses exploit in it shows only after PPO: read its scores with the evaluation.",
)


@dataclass
class RewardStageArguments:
    """Where the reward model starts and what it learns from."""

    model: str = option("", "model folder or hub name to start from; by default RUN/models/sft")
    data: list[str] = option([], "pairs or rankings; by default RUN/pairs/pairs.jsonl")
    eval_fraction: float = option(0.13, "share of prompts whose pairs are held out")
    probe: str = option("", "file of right and wrong answers to the same prompts, to test it with")


ARGUMENTS = (
    RunArguments,
    RewardStageArguments,
    RewardArguments,
    ModelArguments,
    TextArguments,
    LoraArguments,
    ZeroArguments,
    OptimizerArguments,
    CheckpointArguments,
    GuardArguments,
)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    source: RewardStageArguments,
    reward: RewardArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    lora: LoraArguments,
    zero: ZeroArguments,
    optimizer: OptimizerArguments,
    saving: CheckpointArguments,
    watching: GuardArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    base = source.model or str(stage.models / "sft")
    files = paths_of(source.data) or [str(stage.root / "pairs" / "pairs.jsonl")]
    stage.begin([base, *files, *filter(None, [source.probe])])
    tokenizer = separate_pad(
        load_tokenizer(base, trust_remote_code=model_settings.trust_remote_code)
    )
    template = Template(tokenizer, text.template)
    probe = read_probe(source.probe)  # a mistake in it must not cost a training
    pairs = once_per_node(lambda: load_pairs(stage, source, run.seed))
    train, held_out = split_by_prompt(pairs, fraction=source.eval_fraction, seed=run.seed)
    (train_set, counts), (held_out_set, more) = once_per_node(
        lambda: (
            encode_pairs(train, template, text),
            encode_pairs(held_out, template, text, "held-out pair"),
        )
    )
    counts += more
    sizes = f"{len(train)} pairs for {len(train_set)} prompts, {len(held_out)} pairs held out"
    stage.say(", ".join(filter(None, [sizes, describe(counts)])))

    model = load_scalar_model(
        base,
        "reward",
        model_settings,
        new_head=True,
        seed=run.seed,
        tokenizer=tokenizer,
        lora=lora,
    )
    objective, held_out_objective = (
        PairObjective(part, tokenizer.pad_token_id, reward, share_prompts=can_pack(model.inner))
        for part in (train_set, held_out_set)
    )
    engine = build_engine(
        model,
        zero=stage.resolve_zero(zero),
        dtype=resolve_dtype(model_settings.dtype),
        optimizer=optimizer,
        total_steps=total_steps(len(train_set), optimizer),
        new_modules=("score",),
    )

    def evaluate() -> dict[str, float]:
        sums, count = evaluate_supervised(engine, held_out_objective, optimizer.eval_batch_size)
        return {f"eval/{name}": value / count for name, value in sums.items()}

    with stage.loop(saving, watching, engines={"model": engine}) as loop:
        train_supervised(
            loop,
            engine,
            objective,
            optimizer,
            seed=run.seed,
            evaluate=evaluate,
            title="stage 2, reward model",
            shown=run.progress,
        )
    facts = diagnostics.diagnose(
        engine, held_out_objective, template, probe, optimizer.eval_batch_size
    )
    set_normalization(engine, facts["scores"])
    folder = stage.models / "reward"
    gap = facts["right_minus_wrong"]
    facts |= {
        "pairs": len(train),
        "held_out_pairs": len(held_out),
        "left_out": dict(counts),
    }
    card = Card("ICE-Reward", KIND, "reward", stage.settings, files, facts, limits(stage), base)
    save_model(engine, tokenizer, folder, card, reload_to_merge(lora, "reward", model_settings))
    stage.finish(
        facts,
        f"held-out pair accuracy {facts['accuracy']:.3f}"
        + (f", right minus wrong {gap:.2f} deviations" if gap is not None else "")
        + f", saved in {folder}",
        outputs=[folder],
        checkpoints=loop.checkpoints,
    )


def load_pairs(stage: Stage, source: RewardStageArguments, seed: int) -> list[Pair]:
    """Pairs that `pairs.py` made, or pairs made here from files of rankings or of pairs."""
    if not source.data:
        return read_pairs(stage.root / "pairs" / "pairs.jsonl")
    rankings = read_rankings(parse_sources(source.data))
    pairs, dropped = all_pairs(rankings.rankings, seed=seed)
    counts = describe(dropped + rankings.dropped)
    stage.say(
        f"{len(pairs)} pairs from {len(rankings.rankings)} rankings" + f", {counts}" * bool(counts)
    )
    return pairs


def limits(stage: Stage) -> list[str]:
    """What the reward model's figures do not show."""
    simulated = (stage.root / "rank").is_dir()
    return ["Its labelers were simulated: a rubric with noise, not people."] * simulated + list(
        LIMITS
    )


def set_normalization(engine: Any, spread: dict[str, float]) -> None:
    """Writes the scores' mean and deviation over reference responses into the model's config."""
    config = engine.module.inner.config
    config.score_mean = spread["mean"]
    config.score_std = max(spread["std"], 1e-6)


if __name__ == "__main__":
    run_stage("reward", ARGUMENTS, main)
