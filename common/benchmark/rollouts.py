"""Our rollout against transformers' `generate`: tokens a second, in turns.

With `--sharded`, under ZeRO-3 over all ranks: `generate` then runs as it does for anyone who calls
it on such a model, hooks gathering each layer for each token (`synced_gpus`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from common.benchmark.measuring import best, now
from common.benchmark.shapes import EOS, PAD, QUICKSTART, WIDE, Lengths, Shape, causal_lm
from common.config.arguments import RunArguments, SamplingArguments, ZeroArguments, option
from common.files import write_json
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.hybrid_engine.phases import generation_phase
from common.hybrid_engine.reference import generate_responses
from common.hybrid_engine.rollout import Rollout
from common.training.distributed import device, is_main, world_size
from common.training.engine import build_engine
from common.training.metrics import progress_bar
from common.training.run import run_stage
from common.training.stage import Stage

FIXED = Lengths("fixed_lengths", 64, 1, 32, 32, 56, 0)
REAL = Lengths("real_lengths", 40, 5, 16, 40, 56, 36)
ONE_SAMPLE = Lengths("one_sample", 64, 1, 16, 40, 56, 36)
FIVE_FIXED = Lengths("five_samples_fixed", 32, 5, 32, 32, 56, 0)
WHOLE = replace(REAL, name="real_lengths_whole_weights")
GROWTH = (
    *(Lengths(f"batch {n}", n, 1, 16, 40, 56, 36) for n in (8, 32, 128)),
    *(Lengths(f"{n} new tokens", 32, 1, 16, 40, n, n * 0.6) for n in (28, 112)),
)


@dataclass
class RolloutBenchmark:
    """What is measured."""

    repeats: int = option(5, "measurements of each, in turns; the best counts")
    sharded: bool = option(
        False,
        "under ZeRO-3 over all ranks, against generate with synced_gpus; with all weights spread, "
        "and, for growth, with those of a small model whole",
    )
    growth: bool = option(True, "also how the ratio changes with batch and length")


ARGUMENTS = (RunArguments, RolloutBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: RolloutBenchmark) -> None:
    """Writes a row for each shape and lengths."""
    cases = [(s, n) for s in (QUICKSTART, WIDE) for n in (FIXED, REAL, ONE_SAMPLE, FIVE_FIXED)]
    if settings.sharded:
        kinds = (REAL, WHOLE) if settings.growth else (REAL,)
        cases = [(s, n) for s in (QUICKSTART, WIDE) for n in kinds]
    elif settings.growth:
        cases += [(QUICKSTART, n) for n in GROWTH]
    stage.begin_anew()
    rows = []
    with progress_bar(len(cases), "rollouts", shown=run.progress) as bar:
        for shape, lengths in cases:
            rows.append(measure(shape, lengths, settings.repeats, sharded=settings.sharded))
            bar.update()
    if is_main():
        write_json(stage.folder / "rows.json", rows)
    ratios = ", ".join(f"{r['shape']} {r['lengths']} {r['ratio']:.2f}" for r in rows)
    stage.finish({}, f"tokens a second against generate: {ratios}")


def measure(shape: Shape, lengths: Lengths, repeats: int, *, sharded: bool) -> dict[str, Any]:
    """Tokens a second of both backends, measured in turns. A collective."""
    model = causal_lm(shape, lengths.mean)
    ours = theirs = model.to(device())
    if sharded:
        ours, theirs = (
            build_engine(
                causal_lm(shape, lengths.mean),
                zero=ZeroArguments("3"),
                dtype=torch.float32,
                optimizer=_optimizer(),
                total_steps=1,
                whole=lengths is WHOLE,
            )
            for _ in range(2)
        )
    size = lengths.prompts * lengths.samples
    # Waiting prompts are worth something where all do not fit at once, as they seldom do.
    sampling = SamplingArguments(generation_batch_size=size if size <= 64 else max(64, size // 2))
    common = {"eos_id": EOS, "pad_id": PAD, "max_new_tokens": lengths.new_tokens}
    native = HybridRollout(ours, sampling, RolloutArguments(rollout="native"), **common)
    prompts = lengths.draw(shape.vocabulary)

    def generate(repeat: int) -> Rollout:
        """Nothing but transformers' own work: hooks stay on, and no log-probabilities."""
        with generation_phase(theirs, whole=False) as model:
            return generate_responses(
                model,
                prompts,
                sampling=sampling,
                seed=repeat,
                together=sharded,
                with_logprobs=False,
                **common,
            )

    backends: dict[str, Callable[[int], Rollout]] = {
        "native": lambda repeat: native.respond(prompts, repeat),
        "generate": generate,
    }
    speeds: dict[str, list[float]] = {name: [] for name in backends}
    for repeat in range(repeats + 1):
        for name, backend in backends.items():
            started = now()
            rollout = backend(repeat)
            seconds = now() - started
            if repeat > 0:  # the first warms up
                # By the second: draws differ, and with them how much there was to say.
                speeds[name].append(seconds / int(rollout.response_mask.sum()))
    found = {name: 1.0 / best(s) for name, s in speeds.items()}
    return {
        "shape": shape.name,
        "lengths": lengths.name,
        "rows": size,
        "ranks": world_size(),
        "zero": 3 if sharded else 0,
        "native_tokens_per_second": found["native"],
        "generate_tokens_per_second": found["generate"],
        "ratio": found["native"] / found["generate"],
    }


def _optimizer() -> Any:
    from common.config.arguments import OptimizerArguments

    return OptimizerArguments(batch_size=world_size(), micro_batch_size=1)


if __name__ == "__main__":
    run_stage("rollouts", ARGUMENTS, main)
