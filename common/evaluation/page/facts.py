"""Everything that the report knows of a run, read once."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.errors import UserError
from common.evaluation.diagnosis import Diagnosis, diagnose
from common.evaluation.outdated import outdated
from common.evaluation.run_files import (
    METRIC_STAGES,
    STAGES,
    Metrics,
    Response,
    is_number,
    name_of,
    read_events,
    read_lines,
    read_metrics,
    read_responses,
    read_result,
)
from common.evaluation.summary import build_summary
from common.pages.charts import Alarm
from common.training.resume.identity import movable

Place = tuple[str, int, str, str, int]
"""Split, prompt, model, decoding, sample: which answer."""
PLACE = {"split": str, "index": int, "model": str, "decoding": str, "sample": int}
SCORES = ("sft", "rlhf", "values", "advantages")
"""What a row of `tokens.jsonl` may have a number for each token of."""
MOST_NOTES = 8
"""On one file."""
LEFT_OUT = ("run", "seed", "fresh", "allow_changes", "on_change", "progress")
"""Settings that say where and how a command was given, not what it did."""


@dataclass(frozen=True)
class RunFacts:
    """What a run's files say."""

    folder: Path
    name: str
    summary: dict[str, Any]
    metrics: dict[str, Metrics]
    responses: list[Response]
    tokens: dict[Place, dict[str, Any]]
    settings: dict[str, dict[str, Any]]
    """Stage -> all its settings, paths inside the run with `{run}`."""
    alarms: dict[str, list[Alarm]]
    benchmarks: dict[str, Any] | None
    criteria: dict[str, Any] | None
    """`criteria.json`, where anybody has judged."""
    notes: list[str]
    diagnosis: Diagnosis

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The finished stages' results."""
        return self.summary["stages"]

    @property
    def outdated(self) -> dict[str, str]:
        """Stage -> why it is left out, being of something else than the run holds now."""
        return self.summary["outdated"]

    @property
    def evaluation(self) -> dict[str, Any]:
        """SFT against RLHF, as `build_summary` has it."""
        return self.summary["evaluation"]


def read_facts(run: Path) -> RunFacts:
    """Reads a run directory, finished or not.

    What is damaged is left out, and so is what is older than what it was made from; `notes` names
    the one, `outdated` the other.

    Raises:
        UserError: it holds nothing that can be read.
    """
    older, notes = outdated(run)
    answers: list[Response] = []
    tokens: dict[Place, dict[str, Any]] = {}
    criteria = None
    if "evaluation" not in older:
        answers, more = _answers(run / "evaluation" / "responses.jsonl")
        notes += few(more)
        tokens, more = _tokens(run / "evaluation" / "tokens.jsonl")
        notes += few(more)
        criteria = _json(run / "evaluation" / "criteria.json", notes)
    summary = build_summary(run, (answers, notes), older)
    metrics = {
        stage: read_metrics(run / stage / "metrics.jsonl")
        for stage in METRIC_STAGES
        if stage not in older
    }
    notes = [*summary["notes"], *(note for m in metrics.values() for note in few(m.notes))]
    benchmarks = None
    if "benchmarks" not in older:
        benchmarks = _json(run / "benchmarks" / "benchmarks.json", notes)
    settings = {stage: found for stage in STAGES if (found := _settings(run, stage, notes))}
    diagnosis = diagnose(summary, metrics)
    return RunFacts(
        folder=run,
        name=run.resolve().name,
        summary=summary,
        metrics=metrics,
        responses=answers,
        tokens=tokens,
        settings=settings,
        alarms={
            stage: [Alarm(*event) for event in read_events(run / stage / "events.jsonl")[0]]
            for stage in metrics
        },
        benchmarks=benchmarks,
        criteria=criteria,
        notes=notes,
        diagnosis=diagnosis,
    )


def few(notes: list[str]) -> list[str]:
    """The first notes on a file, and how many more there are."""
    rest = len(notes) - MOST_NOTES
    return notes if rest <= 0 else [*notes[:MOST_NOTES], f"… and {rest} more notes like the last"]


def _answers(path: Path) -> tuple[list[Response], list[str]]:
    try:
        answers, notes = read_responses(path, skip_bad=True)
    except UserError as error:  # answers to different prompts under one number
        return [], [str(error).replace(str(path), name_of(path), 1)]
    if path.is_file() and not answers and not notes:
        notes = [f"{name_of(path)}: is empty. Run the evaluation again."]
    return answers, notes


def _tokens(path: Path) -> tuple[dict[Place, dict[str, Any]], list[str]]:
    """Scores of single tokens, and a note for each line that says nothing usable."""
    found: dict[Place, dict[str, Any]] = {}
    rows, notes = read_lines(path) if path.is_file() else ([], [])
    for number, row in rows:
        place, texts = tuple(row.get(name) for name in PLACE), row.get("tokens")
        lists = [row[name] for name in SCORES if name in row]
        odd = [n for n, v in zip(PLACE, place, strict=True) if type(v) is not PLACE[n]]
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            odd.append("tokens")
        elif not all(_are_numbers(values, len(texts)) for values in lists):
            odd.append("scores")
        if odd:
            what = "no finite number for each token" if odd == ["scores"] else f"{odd[0]!r} is odd"
            notes.append(f"{name_of(path)}, line {number}: {what}; skipped")
        elif texts:
            found[place] = row  # type: ignore[index]
    return found, notes


def _are_numbers(values: Any, count: int) -> bool:  # noqa: ANN401
    return (
        isinstance(values, list)
        and len(values) == count
        and all(is_number(value) and math.isfinite(value) for value in values)
    )


def _settings(run: Path, stage: str, notes: list[str]) -> dict[str, Any]:
    path = run / stage / "config.yaml"
    if not path.is_file():
        return {}
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("it holds no settings")
        inside = Path(str(found.get("run", run)))  # the folder may have been moved since
        kept = {str(name): value for name, value in found.items() if name not in LEFT_OUT}
        text = json.dumps(movable(kept, inside), default=str)
    except (OSError, TypeError, ValueError, RecursionError, yaml.YAMLError) as error:
        told = " ".join(str(error).split())
        notes.append(f"{name_of(path)}: cannot be read ({told:.120}); its settings are not shown")
        return {}
    return json.loads(text.replace(f"{json.dumps(str(inside))[1:-1]}/", "{run}/"))


def _json(path: Path, notes: list[str]) -> dict[str, Any] | None:
    """A file's object, or None where there is none, with a note where it is damaged."""
    try:
        return read_result(path) or None
    except UserError as error:
        notes.append(str(error).replace(str(path), name_of(path), 1))
        return None
