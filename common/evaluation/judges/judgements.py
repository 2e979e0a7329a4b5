"""What a judge made of the answers to each prompt, and the files that keep it."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.errors import UserError
from common.evaluation.metrics.win_rate.equation import Verdict
from common.files import write_json

Points = dict[str, float]
"""Criterion -> 0 to 2; a labeler may leave out some."""
Kind = Literal["people", "simulated", "ai", "rubric"]


@dataclass(frozen=True)
class Rating:
    """What one labeler gave one answer."""

    model: str
    labeler: str
    points: Points


@dataclass(frozen=True)
class Comparison:
    """A judge's verdicts on two models' answers, asked for in both orders."""

    model: str
    other: str
    shown_first: Verdict
    """With the answer of `model` shown first."""
    shown_second: Verdict
    same: bool = False
    """The answers are the same, letter by letter; nobody was asked."""


@dataclass(frozen=True)
class Ranking:
    """One labeler's order of the models' answers."""

    labeler: str
    ranks: dict[str, float]
    """1 is the best; tied ones share the mean of their places."""


@dataclass(frozen=True)
class Judged:
    """All that was said of the answers to one prompt."""

    split: str
    index: int
    marks: dict[str, str]
    """Model -> `mark_of` the answer that was judged."""
    ratings: tuple[Rating, ...]
    comparisons: tuple[Comparison, ...] = ()
    rankings: tuple[Ranking, ...] = ()


@dataclass(frozen=True)
class Judgement:
    """One judge's, or several like labelers', work on a run."""

    kind: Kind
    name: str
    """Of an AI judge, as `ai:NAME`; else the kind."""
    labelers: int
    """Who rated; those who only ranked do not count."""
    decoding: str
    prompts: tuple[Judged, ...]
    facts: dict[str, Any] = field(default_factory=dict)
    """For the reader: agreement, costs, what was left out."""


def title_of(kind: Kind, name: str, labelers: int) -> str:
    """What the judge is called: simulated ones are called so everywhere."""
    several = f"{labelers} labeler{'s' * (labelers != 1)}" if labelers else "orders only"
    return {
        "people": f"people ({several})",
        "simulated": f"simulated labelers, not people ({several})",
        "ai": f"AI judge {name.removeprefix('ai:')}",
        "rubric": "simulated rubric of the embedded domain, not people",
    }[kind]


def folder_of(run: Path) -> Path:
    """Where judges keep what they need and what they made."""
    return run / "evaluation" / "judges"


def write_judgement(run: Path, judgement: Judgement) -> Path:
    """Keeps a judge's work in place of what it had before of the same decoding; the file's path."""
    stem = re.sub(r"[^\w.-]+", "_", judgement.name)
    path = folder_of(run) / "judgements" / f"{stem}.{judgement.decoding}.json"
    if path.is_file() and read_judgement(path).name != judgement.name:
        raise UserError(f"{path}: is of another judge with a like name; move it away")
    write_json(path, asdict(judgement))
    for file in _files(run):
        other = read_judgement(file)
        if file != path and (other.name, other.decoding) == (judgement.name, judgement.decoding):
            file.unlink()  # it has the name that an earlier version gave it
    return path


def forget_judgements(run: Path, kinds: Sequence[Kind]) -> None:
    """Removes the files of these kinds of judges."""
    for path in _files(run):
        if read_judgement(path).kind in kinds:
            path.unlink()


def read_judgement(path: Path) -> Judgement:
    """What `write_judgement` wrote.

    Raises:
        UserError: it is something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        prompts = tuple(_judged(row) for row in content.pop("prompts"))
        return Judgement(**content, prompts=prompts)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise UserError(
            f"{path}: is no judgement that can be read; delete it, and give the judge's command "
            "again (an AI judge's answers are kept, people's in their export)"
        ) from None


def read_judgements(run: Path) -> list[Judgement]:
    """Of all judges who have been at work on a run; people first, then by name."""
    found = [read_judgement(path) for path in _files(run)]
    return sorted(found, key=lambda j: (j.kind != "people", j.name))


def still_there(judgement: Judgement, marks: dict[tuple[str, int, str], set[str]]) -> list[Judged]:
    """The prompts of which all judged answers are still the run's.

    Args:
        marks: (split, index, model) -> marks of its answers now.
    """
    return [
        prompt
        for prompt in judgement.prompts
        if all(
            mark in marks.get((prompt.split, prompt.index, model), ())
            for model, mark in prompt.marks.items()
        )
    ]


def _files(run: Path) -> list[Path]:
    return sorted((folder_of(run) / "judgements").glob("*.json"))


def _judged(row: dict[str, Any]) -> Judged:
    parts: Sequence[tuple[str, type]] = (
        ("ratings", Rating),
        ("comparisons", Comparison),
        ("rankings", Ranking),
    )
    return Judged(**row | {name: tuple(kind(**x) for x in row[name]) for name, kind in parts})
