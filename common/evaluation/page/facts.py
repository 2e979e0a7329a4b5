"""Everything that the report knows of a run, read once."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.evaluation.diagnosis import Diagnosis, diagnose
from common.evaluation.run_files import (
    METRIC_STAGES,
    STAGES,
    Metrics,
    Response,
    read_events,
    read_lines,
    read_metrics,
    read_responses,
)
from common.evaluation.summary import build_summary
from common.pages.charts import Alarm
from common.training.resume.identity import movable

Place = tuple[str, int, str, str, int]
"""Split, prompt, model, decoding, sample: which answer."""
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
    def evaluation(self) -> dict[str, Any]:
        """SFT against RLHF, as `build_summary` has it."""
        return self.summary["evaluation"]


def read_facts(run: Path) -> RunFacts:
    """Reads a run directory, finished or not.

    Raises:
        UserError: it holds no result at all, or a file in it is unusable.
    """
    responses = read_responses(run / "evaluation" / "responses.jsonl")
    summary = build_summary(run, responses)
    metrics = {stage: read_metrics(run / stage / "metrics.jsonl") for stage in METRIC_STAGES}
    return RunFacts(
        folder=run,
        name=run.resolve().name,
        summary=summary,
        metrics=metrics,
        responses=responses[0],
        tokens=_tokens(run / "evaluation" / "tokens.jsonl"),
        settings={stage: found for stage in STAGES if (found := _settings(run, stage))},
        alarms={
            stage: [Alarm(*event) for event in read_events(run / stage / "events.jsonl")[0]]
            for stage in METRIC_STAGES
        },
        benchmarks=_json(run / "benchmarks" / "benchmarks.json") or None,
        criteria=_json(run / "evaluation" / "criteria.json") or None,
        notes=summary["notes"] + [note for stage in metrics.values() for note in stage.notes],
        diagnosis=diagnose(summary, metrics),
    )


def _tokens(path: Path) -> dict[Place, dict[str, Any]]:
    """Scores of single tokens; rows that say nothing usable are passed over."""
    found: dict[Place, dict[str, Any]] = {}
    for _, row in read_lines(path)[0] if path.is_file() else []:
        names = ("split", "index", "model", "decoding", "sample")
        count = len(row.get("tokens") or ())
        lists = [row.get(n) for n in ("sft", "rlhf", "values", "advantages") if n in row]
        if count and all(isinstance(x, list) and len(x) == count for x in lists):
            found[tuple(row.get(name) for name in names)] = row  # type: ignore[index]
    return found


def _settings(run: Path, stage: str) -> dict[str, Any]:
    try:
        text = (run / stage / "config.yaml").read_text(encoding="utf-8")
        found = yaml.safe_load(text)
    except (OSError, yaml.YAMLError):
        return {}
    if not isinstance(found, dict):
        return {}
    inside = Path(str(found.get("run", run)))  # the folder may have been moved since
    kept = {str(name): value for name, value in found.items() if name not in LEFT_OUT}
    text = json.dumps(movable(kept, inside), default=str)
    return json.loads(text.replace(f"{json.dumps(str(inside))[1:-1]}/", "{run}/"))


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
