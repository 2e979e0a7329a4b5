"""A small benchmark of general ability on the live actor, every so many PPO steps."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from common.config.arguments import check_range, option
from common.errors import UserError
from common.evaluation.benchmarks.context import Context
from common.evaluation.benchmarks.scores import benchmark_score
from common.evaluation.benchmarks.selection import check_known
from common.evaluation.benchmarks.tasks import build_tasks
from common.hybrid_engine.engine import HybridRollout
from common.training.peak import PeakMemory
from common.training.resume.states import RandomStates
from common.training.watchdog import WATCHDOG


@dataclass
class BenchmarkWatchArguments:
    """Benchmarks in the middle of PPO; they change nothing of the training."""

    HARMLESS: ClassVar = (
        *("benchmark_every", "benchmarks", "benchmark_mode", "benchmark_data"),
        *("benchmark_limit", "benchmark_subtasks"),
    )

    benchmark_every: int = option(
        0,
        "rollouts between small benchmarks of the actor, logged as benchmark/NAME in percent, also "
        "after the first and the last; 0: none",
    )
    benchmarks: list[str] = option(
        ["mmlu", "arc_e"], "which ones, by their short names (launch/README.md lists them)"
    )
    benchmark_mode: Literal["fathom", "harness"] = option(
        "fathom", "generation and parsing, or lm-evaluation-harness's own definitions"
    )
    benchmark_data: str = option(
        "", "folder with a folder a benchmark; by default the hub's data sets are downloaded"
    )
    benchmark_limit: int = option(20, "the first so many questions of each part; 0 takes all")
    benchmark_subtasks: int = option(3, "the first so many parts of each benchmark; 0 takes all")

    def __post_init__(self) -> None:
        check_range(self, 0, "benchmark_every", "benchmark_limit", "benchmark_subtasks")
        check_known(self.benchmarks)
        if self.benchmark_every and not self.benchmarks:
            raise UserError("benchmark_every is set, but benchmarks names none: name some")


class BenchmarkWatch:
    """Asks the policy of a rollout engine, as it is at the moment."""

    def __init__(
        self, settings: BenchmarkWatchArguments, rollouts: HybridRollout, tokenizer: Any, seed: int
    ) -> None:
        """Reads the questions, where any are to be asked.

        Args:
            rollouts: of the live actor.
            seed: draws worked examples where a benchmark has no official ones.

        Raises:
            UserError: no such folder or benchmark in it, or a file that cannot be read.
        """
        self.settings = settings
        if not settings.benchmark_every:
            return
        with random_states_kept():
            from common.evaluation.benchmarks.model import PolicyLM

            self.model = PolicyLM(rollouts, tokenizer, rollouts.sampling.generation_batch_size)
            self.parts, left_out = build_tasks(
                settings.benchmarks,
                settings.benchmark_mode,
                Path(settings.benchmark_data) if settings.benchmark_data else None,
                fits=Context.of(rollouts.model.config, tokenizer).fits,
                subtasks=settings.benchmark_subtasks,
                seed=seed,
            )
        if left_out:
            raise UserError(
                "benchmarks: some cannot be asked: " + "; ".join(left_out) + ". Leave them out of "
                "--benchmarks, or put their files into benchmark_data"
            )

    def after(self, step: int, last: int) -> dict[str, float]:
        """Scores in percent by "benchmark/NAME", and how long it took. A collective.

        Nothing where it is not time. It is after the first step, counted from 1, whose actor is the
        SFT model as long as only the critic warms up; after the last; and every so many.
        """
        every = self.settings.benchmark_every
        if not every or (step % every and step not in (1, last)):
            return {}
        from common.evaluation.benchmarks.asking import ask

        WATCHDOG.at(f"the benchmarks after step {step}")
        started = time.perf_counter()
        rows: dict[str, dict[str, list[dict[str, Any]]]] = {}
        with random_states_kept():
            for part in self.parts:
                WATCHDOG.using(f"benchmark {part.benchmark} {part.subtask}")
                found = ask(part, self.model, self.settings.benchmark_limit)
                rows.setdefault(part.benchmark, {})[part.subtask] = found
        values = {
            f"benchmark/{name}": 100.0 * benchmark_score(name, parts).score
            for name, parts in rows.items()
        }
        peaks = {f"memory/benchmark_{k}": size for k, size in PeakMemory.of_phase().items()}
        return {**values, **peaks, "time/benchmark": time.perf_counter() - started}


@contextmanager
def random_states_kept() -> Iterator[None]:
    """What libraries draw inside is drawn again after it: the training goes on as without it."""
    states = RandomStates()
    before = states.state_dict()
    try:
        yield
    finally:
        states.load_state_dict(before)
