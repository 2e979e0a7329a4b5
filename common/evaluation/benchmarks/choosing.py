"""Which rows of a set are asked and which are shown as worked examples: never the same."""

import random
from dataclasses import dataclass, field

from common.evaluation.benchmarks.catalogue import Benchmark
from common.evaluation.benchmarks.files import Row
from common.evaluation.benchmarks.local import Subset

_NOT_ASKED = (
    *("answer", "answers", "answerKey", "label", "labels", "target", "solution"),
    *("level", "type", "subject", "example_id", "few_shot"),
)
"""Columns that tell the answer, or something about the question."""


@dataclass(frozen=True)
class Chosen:
    """What one task asks and shows.

    Attributes:
        asked: rows of the questions, `[questions]`.
        pool: rows that examples may be taken from.
        shown: the examples of every prompt in mode "fathom", `[shots]`.
        description: a sentence before them, where the benchmark's files hold one.
        remarks: where the examples come from and what was left out, for the report.
    """

    asked: list[Row]
    pool: list[Row]
    shown: list[Row]
    description: str = ""
    remarks: list[str] = field(default_factory=list)

    def source(self, where: str) -> str:
        """The data's place with the remarks behind it."""
        return "; ".join([where, *self.remarks])


def choose(
    benchmark: Benchmark, subset: Subset, standard: list[Row], shots: int, seed: int
) -> Chosen | str:
    """Splits a set's rows into questions and examples.

    Questions are the first of the benchmark's `asked` parts that is there. Examples come from, in
    this order: its authors' own selection (part "fewshot"); the examples that everybody shows
    (`standard`); the first of its `shown` parts that is not asked; and where only one part is
    there, from the head of that part, whose first rows are then no questions.

    Args:
        standard: the usual examples of BBH, GSM8K and MATH; empty for others.
        shots: examples a prompt; 0 for as many as the authors selected (AGIEval), else 5.
        seed: which rows of a part without a selection become examples; 0 takes the first ones.

    Returns:
        What was chosen, or why nothing can be asked.
    """
    parts = {part: rows for part, rows in subset.parts.items() if rows}
    part = next((part for part in benchmark.asked if part in parts), None)
    if part is None:
        return "no questions with known answers" + _there(parts)
    remarks = [f"asks its part {part!r}"] if part not in ("", benchmark.asked[0]) else []
    asked = parts[part]
    source = next((p for p in benchmark.shown if p in parts and p != part), None)
    own = source == "fewshot" or (source is not None and not standard)
    pool = parts[source] if own else list(standard)
    wanted = shots or (len(pool) if source == "fewshot" else 5)
    if not pool:
        if len(asked) <= wanted:
            wanted = max(0, len(asked) - 1)
        pool = asked[:wanted]
        shown_before = {_question(row) for row in pool}
        asked = [row for row in asked[wanted:] if _question(row) not in shown_before]
        if wanted:
            remarks.append(
                f"examples are the first {wanted} rows of the only part there is, and are not asked"
            )
    else:
        shown_before = {_question(row) for row in pool}
        kept = [row for row in asked if _question(row) not in shown_before]
        if len(kept) < len(asked):
            remarks.append(f"{len(asked) - len(kept)} questions left out: they are examples, too")
        asked = kept
        if own and source != "fewshot":
            remarks.append(f"examples from its part {source!r}")
    if not asked:
        return "no question is left beside the examples" + _there(parts)
    if subset.unlabeled:
        remarks.append(f"{subset.unlabeled} rows without a right answer left out")
    if len(pool) < (shots or wanted):
        remarks.append(f"only {len(pool)} examples are there")
    wanted = min(wanted, len(pool))
    drawn = random.Random(seed).sample(pool, wanted) if seed and own else pool[:wanted]
    return Chosen(asked, pool, drawn, subset.description, remarks)


def _question(row: Row) -> str:
    """What a row asks, however its answer is told: BBH's examples have a chain of thought."""
    return repr(sorted((name, value) for name, value in row.items() if name not in _NOT_ASKED))


def _there(parts: dict[str, list[Row]]) -> str:
    names = ", ".join(f"{part or 'a part without a name'} ({len(parts[part])})" for part in parts)
    return f"; there is {names or 'nothing'}"
