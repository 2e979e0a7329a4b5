"""The benchmarks as tasks that `lm_eval.simple_evaluate` takes, in either of two modes.

Mode "fathom" is the pipeline of the paper's Table 1 (GPT-Fathom's): greedy generation, then
parsing of the text, then exact match. Mode "harness" is lm-evaluation-harness's own definition,
mostly log-likelihoods of the choices; its scores are not comparable with Table 1.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import UserError, nearest
from common.evaluation.benchmarks.catalogue import CATALOGUE
from common.evaluation.benchmarks.choosing import Chosen, choose
from common.evaluation.benchmarks.forms import FORMS
from common.evaluation.benchmarks.hub import load_hub
from common.evaluation.benchmarks.local import FAMILY, Subset, load_local
from common.evaluation.benchmarks.prompts import prompt_of
from common.training.watchdog import WATCHDOG

if TYPE_CHECKING:
    from lm_eval.api.task import Task

MODES = ("fathom", "harness")

Fits = Callable[[str, int], bool]
"""(prompt, new tokens) -> whether both fit into the model's context together."""


@dataclass(frozen=True)
class ParsedAnswer:
    """What a model's output says, and whether that is right.

    Attributes:
        answer: as it was read from the output; None where it could not be read.
        target: what would have been right; several accepted ones are joined with " | ".
        correct: whether the answer counts; never true of an unparsed one.
        unparsed: no answer could be read from the output.
        shots_dropped: worked examples that were left out because the prompt was too long.
    """

    answer: str | None
    target: str
    correct: bool
    unparsed: bool
    shots_dropped: int


@dataclass(frozen=True)
class BenchmarkTask:
    """One part of a benchmark, ready for `lm_eval.simple_evaluate(tasks=[it.task])`.

    Give it `task_manager=lm_eval.tasks.TaskManager(include_defaults=False)`, too; without one it
    reads the ten thousand definitions that lm_eval ships.

    lm_eval logs exactly one row a question (`log_samples=True`), with these numbers in it: the
    `metric`, "shots_dropped", and in mode "fathom" also "unparsed" (and "f1" for phrases).

    Attributes:
        benchmark: a key of `CATALOGUE`.
        subtask: the part's name; the benchmark's own where it has no parts.
        mode: one of `MODES`.
        origin: whose definition it is: "stock" (lm-evaluation-harness's), "stock, local files",
            or "ours".
        shots: worked examples before each question, as asked for.
        source: "hub name@revision", or "local files, sha256 …", with remarks on the examples.
        metric: name of the score in a logged row, 0 to 1, higher is better.
        task: the task itself; its prompts hold fewer shots where they would not fit.
    """

    benchmark: str
    subtask: str
    mode: str
    origin: str
    shots: int
    source: str
    metric: str
    task: Task

    def parsed(self, sample: dict[str, Any]) -> ParsedAnswer:
        """Reads one row of lm_eval's logged samples of this task."""
        return self.task.parsed(sample, self.metric)


def build_tasks(
    benchmarks: Sequence[str],
    mode: str,
    data: Path | None,
    *,
    fits: Fits | None,
    subtasks: int = 0,
    seed: int = 0,
) -> tuple[list[BenchmarkTask], list[str]]:
    """Builds the tasks of some benchmarks.

    Args:
        benchmarks: keys of `CATALOGUE`.
        mode: one of `MODES`.
        data: folder with a folder a benchmark; no network is touched then. None: from the hub.
        fits: says whether a prompt and so many new tokens fit the model; whole shots are dropped
            from the front until they do, and counted. None: everything fits.
        subtasks: at most so many parts of each benchmark, the first by name; 0 for all.
        seed: draws the worked examples of mode "fathom" where a benchmark has no official ones; 0
            takes the first. (In mode "harness" lm_eval draws, by its own seed.)

    Returns:
        The tasks, and one line for each benchmark or part that was left out, saying why.

    Raises:
        UserError: an unknown benchmark or mode, a data folder that is missing, or a file in it
            that has neither the hub's columns nor the home repository's form.
    """
    if mode not in MODES:
        raise UserError(f"mode {mode!r}: unknown{nearest(mode, MODES)}")
    if data is not None and not data.is_dir():
        raise UserError(
            f"{data}: no such folder; give one that holds a folder a benchmark, such as "
            f"{data}/mmlu, or leave it out to take the data from the hub"
        )
    tasks: list[BenchmarkTask] = []
    left_out: list[str] = []
    for name in benchmarks:
        if name not in CATALOGUE:
            raise UserError(f"benchmark {name!r}: unknown{nearest(name, tuple(CATALOGUE))}")
        with _quiet():
            built, missing = _Builder(name, mode, data, fits, seed).build(subtasks)
        tasks += built
        left_out += missing
    return tasks, left_out


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm_eval's warnings on settings that are on purpose, and progress bars of a moment."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, bars = logger.level, datasets.is_progress_bar_enabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if bars:
            datasets.enable_progress_bars()


@dataclass(frozen=True)
class _Builder:
    """Builds the tasks of one benchmark."""

    name: str
    mode: str
    data: Path | None
    fits: Fits | None
    seed: int

    def build(self, limit: int) -> tuple[list[BenchmarkTask], list[str]]:
        """At most `limit` of its parts (0: all), and a line for each that was left out."""
        benchmark = CATALOGUE[self.name]
        parts = benchmark.subtasks or (self.name,)
        local: dict[str, Subset] = {}
        if self.data is not None:
            found = load_local(self.name, self.data)
            if found is None:
                folders = " or ".join(f"{folder}/" for folder in benchmark.folders)
                return [], [f"{benchmark.title}: {self.data} has no folder {folders}"]
            local = found
        tasks: list[BenchmarkTask] = []
        left_out: list[str] = []
        for part in sorted(parts):
            if limit and len(tasks) == limit:
                break
            WATCHDOG.alive()  # from the hub each part is a download
            title = benchmark.title if part == self.name else f"{benchmark.title}, {part}"
            if self.data is not None and part not in local:
                left_out.append(f"{title}: no local file of it in {self.data}")
                continue
            built = self._task(part, local.get(part))
            if isinstance(built, str):
                left_out.append(f"{title}: {built}")
            else:
                tasks.append(built)
        return tasks, left_out

    def _task(self, part: str, subset: Subset | None) -> BenchmarkTask | str:
        """One part's task, or why there is none."""
        # lm_eval takes seconds to import.
        from common.evaluation.benchmarks.harness import harness_task, standard_examples

        benchmark = CATALOGUE[self.name]
        if subset is None:
            subset, where = load_hub(benchmark, part, FORMS[FAMILY[self.name]])
        else:
            where = subset.source()
        standard, description = standard_examples(self.name, part)
        chosen = choose(benchmark, subset, standard, benchmark.shots, self.seed)
        if isinstance(chosen, str):
            return chosen
        source = chosen.source(where)
        if self.mode == "fathom":
            return self._fathom(part, chosen, chosen.description or description, source)
        shots = benchmark.shots or len(chosen.shown)
        task, definition = harness_task(
            self.name, part, chosen.asked, chosen.pool, shots, self.fits
        )
        stock = "stock" if self.data is None else "stock, local files"
        return BenchmarkTask(
            benchmark=self.name,
            subtask=part,
            mode=self.mode,
            origin=stock if definition.stock else "ours",
            shots=task.config.num_fewshot,
            source=f"{source}; {definition.remark}" if definition.remark else source,
            metric=definition.metric,
            task=task,
        )

    def _fathom(self, part: str, chosen: Chosen, description: str, source: str) -> BenchmarkTask:
        from common.evaluation.benchmarks.fitted import FathomTask

        several = any(len(row.get("labels", "")) > 1 for row in chosen.asked)
        task = FathomTask(
            "_".join(dict.fromkeys((self.name, part.replace("-", "_"), "fathom"))),
            prompt_of(self.name, part, description, several),
            chosen.asked,
            chosen.shown,
            CATALOGUE[self.name].max_new_tokens,
            self.fits,
        )
        return BenchmarkTask(
            benchmark=self.name,
            subtask=part,
            mode=self.mode,
            origin="ours",
            shots=len(chosen.shown),
            source=source,
            metric="exact_match",
            task=task,
        )
