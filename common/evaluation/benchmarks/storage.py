"""Answers on the disk, a file a part: what is there is not asked again.

`answers/<model>/<benchmark>/<part>.jsonl` holds a row a question, and beside it `<part>.json` says
what they come from. It is written last, so that a part is there as a whole or not at all.
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.evaluation.benchmarks.tasks import BenchmarkTask
from common.files import read_json_lines, write_json, write_json_lines

Row = dict[str, Any]
"""What is kept of one question (see `asking.ask`)."""


class Answers:
    """The answers of one model."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        """Args:
        folder: of this model.
        facts: what all its rows depend on besides their part: the model's content, limits, …
        """
        self.folder = folder
        self.facts = facts

    def file(self, part: BenchmarkTask) -> Path:
        """Where a part's rows are."""
        return self.folder / part.benchmark / f"{safe_name(part.subtask)}.jsonl"

    def facts_of(self, part: BenchmarkTask) -> dict[str, Any]:
        """What a part's rows depend on."""
        own = ("benchmark", "subtask", "mode", "origin", "shots", "source", "metric")
        # As they stand in the file: through JSON tuples become lists.
        return json.loads(json.dumps({**{n: getattr(part, n) for n in own}, **self.facts}))

    def read(self, part: BenchmarkTask) -> list[Row] | None:
        """A part's rows; None where they are not there, or come from something else."""
        file = self.file(part)
        try:
            facts = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
            rows = read_json_lines(file)
        except (OSError, ValueError):  # UserError is a ValueError
            return None
        return rows if facts == self.facts_of(part) and rows else None

    def write(self, part: BenchmarkTask, rows: Sequence[Row]) -> None:
        """Keeps a part's rows. For rank 0."""
        file = self.file(part)
        file.with_suffix(".json").unlink(missing_ok=True)  # it is of the rows before
        write_json_lines(file, rows)
        write_json(file.with_suffix(".json"), self.facts_of(part))


def names_of(paths: Sequence[str]) -> dict[str, str]:
    """A short name for each model, fit for a folder: as many of its last parts as tell it apart.

    Args:
        paths: folders and hub names.

    Returns:
        name -> path, in their order.

    Raises:
        UserError: a model is given twice.
    """
    found: dict[str, str] = {}
    for path in paths:
        parts = Path(path).parts
        for count in range(1, len(parts) + 1):
            others = [p for p in paths if Path(p).parts[-count:] == parts[-count:]]
            if len(others) == 1:
                break
        name = safe_name("/".join(parts[-count:]))
        if len(others) > 1 or name in found:
            raise UserError(f"models: {path} is given twice; give each model once")
        found[name] = path
    return found


def safe_name(text: str) -> str:
    """A file name for any text; texts of letters, digits, and -_. keep theirs."""
    return re.sub(r"[^\w.-]+", "_", text).strip("._") or "model"
