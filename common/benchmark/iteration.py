"""One PPO iteration by phase: where its time goes, and how many tokens it makes and learns from."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch

from common.benchmark.measuring import best
from common.benchmark.shapes import BOS, EOS, PAD, QUICKSTART, WIDE, Lengths, Shape, causal_lm
from common.config.arguments import RunArguments, SamplingArguments, ZeroArguments, option
from common.data.encoding import EncodedPrompt
from common.data.records import Message, Prompt
from common.files import write_json
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.policy import PolicyModel
from common.models.scalar import ScalarModel
from common.ppo.arguments import PPOArguments
from common.ppo.running import Scale
from common.ppo.sources import RewardSource
from common.ppo.trainer import PPOTrainer
from common.reward.scoring import RewardScorer
from common.training.distributed import is_main, rank, world_size
from common.training.engine import build_engine, build_frozen
from common.training.metrics import progress_bar
from common.training.peak import PeakMemory
from common.training.run import run_stage
from common.training.stage import Stage
from common.zero.config import resolve_dtype, resolve_zero

CASES = (
    (QUICKSTART, Lengths("full length", 64, 1, 32, 32, 56, 0)),
    (QUICKSTART, Lengths("real lengths", 64, 1, 16, 40, 56, 36)),
    (WIDE, Lengths("full length", 32, 1, 64, 64, 64, 0)),
    (WIDE, Lengths("real lengths", 32, 1, 32, 64, 64, 40)),
)
GROWTH = (
    *((QUICKSTART, Lengths(f"batch {n}", n, 1, 16, 40, 56, 36)) for n in (16, 32, 128)),
    *((QUICKSTART, Lengths(f"{n} new tokens", 64, 1, 16, 40, n, n * 0.6)) for n in (28, 112)),
)
PHASES = ("generate", "score", "train")


@dataclass
class IterationBenchmark:
    """What is measured."""

    repeats: int = option(4, "iterations after the first, of which the best counts")
    growth: bool = option(True, "also how an iteration grows with batch and length")


ARGUMENTS = (RunArguments, IterationBenchmark, ZeroArguments)
"""Every setting; the order is that of `main`'s parameters."""


def main(
    stage: Stage, run: RunArguments, settings: IterationBenchmark, zero: ZeroArguments
) -> None:
    """Writes a row for each shape and lengths: seconds and share of each phase."""
    stage.begin_anew()
    rows = []
    cases = (*CASES, *GROWTH) if settings.growth else CASES
    with progress_bar(len(cases), "PPO iterations", shown=run.progress) as bar:
        for shape, lengths in cases:
            rows.append(measure(shape, lengths, settings.repeats, zero))
            bar.update()
    if is_main():
        write_json(stage.folder / "rows.json", rows)
    stage.finish({}, ", ".join(f"{r['shape']} {r['lengths']} {r['seconds']:.2f} s" for r in rows))


def measure(shape: Shape, lengths: Lengths, repeats: int, zero: ZeroArguments) -> dict[str, Any]:
    """Seconds of an iteration with one PPO epoch and one update of actor and critic each.

    Args:
        lengths: with one sample a prompt.
    """
    memory = PeakMemory()
    trainer = build(shape, lengths, zero, steps=repeats + 1)
    ids = lengths.draw(shape.vocabulary)[rank() :: world_size()]
    record = Prompt((Message("user", ""),), "benchmark")
    prompts = [EncodedPrompt(row, record) for row in ids]
    measured = [trainer.iterate(step, prompts) for step in range(1, repeats + 2)][1:]
    seconds = {phase: best([m[f"time/{phase}"] for m in measured]) for phase in PHASES}
    whole = best([m["time/step"] for m in measured])
    return {
        "shape": shape.name,
        "lengths": lengths.name,
        "rows": lengths.prompts,
        "ranks": world_size(),
        "zero": zero.zero,
        "seconds": whole,
        **{f"{phase}_seconds": s for phase, s in seconds.items()},
        **{f"{phase}_share": s / sum(seconds.values()) for phase, s in seconds.items()},
        "tokens_per_second": max(m["time/tokens_per_second"] for m in measured),
        "megabytes": memory.megabytes(),
    }


def build(shape: Shape, lengths: Lengths, zero: ZeroArguments, steps: int) -> PPOTrainer:
    """A trainer of four models of one shape with random weights."""
    zero, dtype = resolve_zero(zero, world_size()), resolve_dtype("auto")
    settings = PPOArguments(
        steps=steps,
        rollout_batch_size=lengths.prompts,
        mini_batch_size=lengths.prompts,
        micro_batch_size=lengths.prompts // world_size(),
        score_batch_size=lengths.prompts // world_size(),
        ppo_epochs=1,
        critic_warmup_steps=0,
    )
    tokenizer = SimpleNamespace(eos_token_id=EOS, pad_token_id=PAD, get_vocab=dict)
    template: Any = SimpleNamespace(end_id=EOS, form="", tokenizer=tokenizer)
    common = {"zero": zero, "dtype": dtype, "total_steps": steps, "whole": None}
    actor = build_engine(
        PolicyModel(causal_lm(shape, lengths.mean)),
        optimizer=settings.optimizer(settings.actor_learning_rate),
        **common,
    )
    scorer = RewardScorer(
        build_frozen(scalar(shape, "LlamaForSequenceClassification"), zero=zero, dtype=dtype),
        template,
        template,
        mean=0.0,
        std=1.0,
    )
    return PPOTrainer(
        actor=actor,
        critic=build_engine(
            scalar(shape, "LlamaForTokenClassification"),
            optimizer=settings.optimizer(settings.critic_learning_rate),
            **common,
        ),
        reference=build_frozen(PolicyModel(causal_lm(shape, lengths.mean)), zero=zero, dtype=dtype),
        rewards=[RewardSource("reward", scorer, Scale())],
        rollouts=HybridRollout(
            actor,
            SamplingArguments(generation_batch_size=lengths.prompts),
            RolloutArguments(),
            eos_id=EOS,
            pad_id=PAD,
            max_new_tokens=lengths.new_tokens,
        ),
        template=template,
        settings=settings,
        seed=0,
        dtype=dtype,
    )


def scalar(shape: Shape, kind: str) -> ScalarModel:
    """A critic or reward model of the shape."""
    import transformers

    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=512,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        num_labels=1,
        classifier_dropout=0.0,
    )
    return ScalarModel(getattr(transformers, kind)(config))


if __name__ == "__main__":
    run_stage("iteration", ARGUMENTS, main)
