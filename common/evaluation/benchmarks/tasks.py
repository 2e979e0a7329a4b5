"""The benchmarks as tasks that `lm_eval.simple_evaluate` takes, in either of two modes.

Mode "fathom" is the pipeline of the paper's Table 1 (GPT-Fathom's): greedy generation, then
parsing of the text, then exact match. Mode "harness" is lm-evaluation-harness's own definition,
mostly log-likelihoods of the choices; its scores are not comparable with Table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        seed: draws the worked examples where a benchmark has no official ones; 0 takes the first.

    Returns:
        The tasks, and one line for each benchmark or part that was left out, saying why.

    Raises:
        UserError: an unknown benchmark or mode, a data folder that is missing, or a file in it
            that has neither the hub's columns nor the home repository's form.
    """
    raise NotImplementedError
