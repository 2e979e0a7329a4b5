"""Reading a run directory as it is found: finished, partial, or cut off in the middle of a line."""

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError

STAGES = (
    *("data", "sft", "sample", "rank", "ai_rank", "import", "pairs"),
    *("reward", "rlhf", "dpo", "evaluation", "benchmarks"),
)
"""In the order in which they run; each leaves `RUN/<stage>/result.json`."""

UNMISSED = ("data", "ai_rank", "import", "pairs", "dpo", "benchmarks")
"""Stages that prepare files for others, or are an alternative: a run without them lacks nothing
that is worth saying."""

METRIC_STAGES = ("sft", "reward", "rlhf", "dpo")
"""The stages that train, and so write `RUN/<stage>/metrics.jsonl`."""

HOW_TO_EVALUATE = (
    "Give launch/pipeline.sh its file with a section evaluation again (finished stages are left "
    "out), or .venv/bin/python -m common.evaluation.main --run RUN --data FILE."
)
"""For whoever has no evaluation."""

MODELS = ("sft", "rlhf")
"""Every evaluation has these two; others are further ones."""
DECODINGS = ("sample", "greedy")

RESERVED_SPLITS = ("decoding", "greedy")
"""Keys that stand beside the splits in `summary.json`."""

_RESPONSE_FIELDS: dict[str, type] = {
    "split": str,
    "index": int,
    "model": str,
    "decoding": str,
    "sample": int,
    "prompt": str,
    "response": str,
    "ended": bool,
    "tokens": int,
}
_SCORES = ("overall", "reward")
_LARGEST = 2**53
"""Whole numbers up to here are themselves as floats, too."""


@dataclass(frozen=True)
class Series:
    """One metric over a stage: both `[points]`, steps rising; a value is NaN where it was lost."""

    steps: np.ndarray
    values: np.ndarray


@dataclass(frozen=True)
class Metrics:
    """A stage's `metrics.jsonl`: metric name -> series, and what was odd about the file."""

    series: dict[str, Series]
    notes: list[str]
    events: tuple[str, ...] = ()
    """What its guard found, from `events.jsonl` beside it."""


@dataclass(frozen=True, slots=True)
class Response:
    """One row of `RUN/evaluation/responses.jsonl`; the scores are None where nothing gave one."""

    split: str
    index: int
    model: str
    decoding: str
    sample: int
    prompt: str
    response: str
    ended: bool
    tokens: int
    criteria: dict[str, float] | None
    overall: float | None
    reward: float | None
    best_of: int | None = None
    """Of how many samples it is the best by the reward model."""
    task: str | None = None
    """What kind of question it answers, where its file says so."""
    scores: tuple[float, ...] = ()
    """Reward scores of the samples that it is the best of, in the order of their draws."""


def read_lines(path: Path) -> tuple[list[tuple[int, dict[str, Any]]], list[str]]:
    """(line number, object) of each readable line, and a note for each that is not one.

    A killed process leaves half a line, and a resumed one may write on after it; either costs
    that line only. The file is split as bytes: text may hold characters that Python counts as
    line ends, and half a line may end inside a character.
    """
    rows, notes = [], []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):  # the former is also what broken UTF-8 raises
            row = None
        if isinstance(row, dict):
            rows.append((number, row))
        else:
            notes.append(f"{name_of(path)}, line {number}: cut off or not a JSON object; skipped")
    return rows, notes


def read_metrics(path: Path) -> Metrics:
    """A metrics file as one series a metric.

    Where a step is written twice (a run that was resumed), the later line's values win. What is
    not a finite number becomes NaN, a gap in a curve, and is noted. A missing file has no series.
    """
    if not path.is_file():
        return Metrics({}, [])
    rows, notes = read_lines(path)
    events, more = read_events(path.with_name("events.jsonl"))
    notes += more
    points: dict[str, dict[int, float]] = {}
    for number, row in rows:
        step = row.get("step")
        if not is_number(step) or step != step // 1 or abs(step) > _LARGEST:
            notes.append(f"{name_of(path)}, line {number}: no whole-numbered `step`; skipped")
            continue
        for name, value in row.items():
            if name != "step" and (value is None or is_number(value)):
                finite = value is not None and math.isfinite(value)
                points.setdefault(name, {})[int(step)] = value if finite else math.nan
    series = {}
    for name, by_step in points.items():
        steps = np.array(sorted(by_step), dtype=np.int64)
        values = np.array([by_step[step] for step in steps.tolist()], dtype=np.float64)
        series[name] = Series(steps, values)
        if lost := steps[np.isnan(values)].tolist():
            shown = ", ".join(map(str, lost[:5])) + (", …" if len(lost) > 5 else "")
            where = "any step" if len(lost) == steps.size else f"step {shown}"
            notes.append(f"{name_of(path)}: {name} is not a finite number at {where}")
    return Metrics(series, notes, tuple(text for _, text in events))


def read_events(path: Path) -> tuple[list[tuple[int, str]], list[str]]:
    """What a guard noted: (step, a sentence) each; and a note for each line that says nothing."""
    rows, notes = read_lines(path) if path.is_file() else ([], [])
    events = [
        (row["step"], f"step {row['step']}: {row['text']}; the run {row['action']}")
        for _, row in rows
        if {"step", "text", "action"} <= row.keys() and isinstance(row["step"], int)
    ]
    return events, notes


def read_result(path: Path) -> dict[str, Any] | None:
    """A stage's `result.json`, or None where the stage has none.

    Raises:
        UserError: the file is there and is not one JSON object.
    """
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Run this stage again.") from error
    if not isinstance(result, dict):
        raise UserError(f"{path}: must be one JSON object. Run this stage again.")
    return result


def read_responses(path: Path, skip_bad: bool = False) -> tuple[list[Response], list[str]]:
    """The evaluation's responses; a response written twice counts once, as it was last written.

    Sorted, so that the order in which ranks happened to write changes no sum by a rounding.

    Args:
        skip_bad: leaves out a line whose fields are not as they must be, with a note.

    Raises:
        UserError: a readable line lacks a field or holds a value that cannot be one; or, in any
            case, a prompt's number is given to another prompt (the models would be compared on
            different ones).
    """
    if not path.is_file():
        return [], []
    rows, notes = read_lines(path)
    responses: dict[tuple, Response] = {}
    prompts: dict[tuple[str, int], str] = {}
    bad = 0
    for number, row in rows:
        try:
            response = _response(row, f"{path}, line {number}")
        except UserError as error:
            if not skip_bad:
                raise
            bad += 1
            notes.append(f"{str(error).replace(str(path), name_of(path), 1)} It is left out.")
            continue
        place = (response.split, response.index)
        if prompts.setdefault(place, response.prompt) != response.prompt:
            raise UserError(
                f"{path}, line {number}, field 'prompt': prompt {response.index} of split "
                f"'{response.split}' has another text than before, so answers to it can't be "
                "compared. Run the evaluation again, with the same prompts for both models."
            )
        key = (response.split, response.index, response.model, response.decoding, response.sample)
        responses[key] = response
    if repeated := len(rows) - bad - len(responses):
        notes.append(
            f"{name_of(path)}: {repeated} responses are written twice; the later one counts"
        )
    return [responses[key] for key in sorted(responses)], notes


def _response(row: dict[str, Any], where: str) -> Response:
    for field, kind in _RESPONSE_FIELDS.items():
        value = row.get(field)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise UserError(
                f"{where}, field '{field}': expected {kind.__name__}, found {value!r:.60}. "
                "Run the evaluation again."
            )
    if row["decoding"] not in DECODINGS:
        raise UserError(
            f"{where}, field 'decoding': {row['decoding']!r:.60} is none of {', '.join(DECODINGS)}."
        )
    for field in ("split", "model"):
        if any("\ud800" <= char <= "\udfff" for char in row[field]):
            raise UserError(f"{where}, field '{field}': {row[field]!r:.60} is no text.")
    if not row["model"].strip():
        raise UserError(f"{where}, field 'model': is empty. Run the evaluation again.")
    if row["split"] in RESERVED_SPLITS:
        raise UserError(
            f"{where}, field 'split': '{row['split']}' is a key of summary.json; "
            "give the split another name."
        )
    scores = {field: _score(row.get(field), f"{where}, field '{field}'") for field in _SCORES}
    criteria = row.get("criteria")
    if criteria is not None:
        if not isinstance(criteria, dict):
            raise UserError(f"{where}, field 'criteria': expected an object or null.")
        points = {
            name: _score(value, f"{where}, criterion '{name}'") for name, value in criteria.items()
        }
        criteria = {name: value for name, value in points.items() if value is not None}
    drawn = row.get("scores")
    if drawn is not None and (not isinstance(drawn, list) or len(drawn) < 2):
        raise UserError(f"{where}, field 'scores': expected those of two samples or more.")
    return Response(
        **{field: row[field] for field in _RESPONSE_FIELDS},
        criteria=criteria or None,
        **scores,
        best_of=len(drawn) if drawn else None,
        task=task if isinstance(task := row.get("task"), str) else None,
        scores=tuple(x for x in drawn or () if is_number(x) and math.isfinite(x)),
    )


def _score(value: Any, where: str) -> float | None:
    """A finite score, or None for null and for NaN, which no mean can use."""
    if value is None:
        return None
    if not is_number(value):
        raise UserError(f"{where}: expected a number or null, found {value!r:.60}.")
    return float(value) if math.isfinite(value) else None


def is_number(value: Any) -> bool:  # noqa: ANN401
    """Whether a value from a file is a number that a float can hold; NaN and infinities are."""
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < sys.float_info.max
    return isinstance(value, float)


def name_of(path: Path) -> str:
    """`stage/file`: enough to find it in the run, and the same wherever the run is moved to."""
    return f"{path.parent.name}/{path.name}"
