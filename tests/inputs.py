"""What tests of the stages' bad input share: files, settings, an end before training."""

import json
from pathlib import Path
from typing import Any


class Trains(Exception):
    """The stage got as far as building its engine."""


def stop_before_training(monkeypatch, module) -> None:
    """Makes `build_engine`, as `module` imported it, raise `Trains`."""

    def build_engine(*args, **kwargs):
        raise Trains

    monkeypatch.setattr(module, "build_engine", build_engine)


def write(tmp_path: Path, rows: list[Any], name: str) -> str:
    """A file of these rows; a row that is a string is written as it is."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(tmp_path / name)


def argument_groups(kinds: tuple[type, ...], settings: dict[str, Any]) -> list[Any]:
    """One object of each dataclass, each setting given to the one that has it."""
    left = dict(settings)
    groups = [
        kind(**{k: left.pop(k) for k in list(left) if k in kind.__dataclass_fields__})
        for kind in kinds
    ]
    assert not left, f"no dataclass has {sorted(left)}"
    return groups
