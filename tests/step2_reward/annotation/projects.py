"""A project without a server: its samples, its clock, and answers to it."""

from pathlib import Path
from typing import Any

from common.files import write_json_lines
from step2_reward.annotation.answers import Answer
from step2_reward.annotation.project import Project
from step2_reward.annotation.storage import Saved
from tests.step2_reward.annotation.serving import answer as body

LENGTHS = ["a", "bb", "ccc", "dddd", "eeeee"]


class Clock:
    """Stands still until it is moved."""

    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def write(path: Path, count: int = 4, **more: Any) -> Path:
    """A file of so many samples."""
    rows = [{"prompt": f"prompt {i}", "responses": LENGTHS, **more} for i in range(count)]
    write_json_lines(path, rows)
    return path


def by_length(page: dict[str, Any]) -> list[list[int]]:
    """Shortest first, as places on the page."""
    order = sorted(range(len(page["responses"])), key=lambda i: len(page["responses"][i]))
    return [[place] for place in order]


def save(
    project: Project, labeler: str, page: dict[str, Any], order: Any = None, **more: Any
) -> tuple[Saved, bool]:
    """Saves an answer, by length where no order is given."""
    sent = Answer(**body(by_length(page) if order is None else order, **more))
    return project.save(labeler, page["key"], sent)
