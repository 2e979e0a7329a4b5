"""What a stage was begun with: its settings, the content of its inputs, the machine.

The same command given again goes on; a difference that would change the result is refused by
name, and so no run is wiped or mixed up unasked.
"""

import hashlib
import json
import os
import shutil
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from common.files import write_json

RECORD = "begun.json"
OWN_FILES = (
    *("metrics.jsonl", "events.jsonl", "result.json", "diagnostics.html", RECORD),
    *("criteria.json", "criteria.md"),
)
"""What a stage's folder holds besides its checkpoints and what it makes for others."""
PIECES = "answers"
"""Folder in which a stage without checkpoints keeps what it has done so far, piece by piece. Each
says what it depends on: what still holds need not be done again."""
CACHE = ".content_hashes.json"
INPUTS = "inputs"
"""By this name changed inputs are allowed, as settings are by theirs."""
EXAMPLES = "examples"
"""By this name other examples of the same inputs are allowed."""


@dataclass(frozen=True)
class Identity:
    """What makes a stage's result."""

    settings: dict[str, Any]
    """Those that change the result."""
    inputs: dict[str, str]
    """Path (or hub name) -> hash of its content (or "hub")."""
    environment: dict[str, Any] = field(default_factory=dict)
    """Versions, device, threads: they change roundings, and are only told."""
    zero: str | None = None
    """The ZeRO config, where the stage has one; `auto` keeps it on other numbers of ranks."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    """Of this beginning; wandb's id, too."""
    examples: dict[str, str] = field(default_factory=dict)
    """Hash of the examples of each part of the data ("trained on", "held out"), once they are read
    and split: other code may split the same files otherwise."""


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it was when the stage was begun."""

    name: str
    before: Any
    now: Any

    def __str__(self) -> str:
        if self.name in (INPUTS, EXAMPLES):
            return f"{self.now}"
        return f"{self.name} was {_short(self.before)}, is {_short(self.now)}"


def differences(
    before: Identity, now: Identity, defaults: Mapping[str, Any] | None = None
) -> list[Difference]:
    """What would change the result, in the order of the settings; changed files last.

    Args:
        defaults: of the settings; one that did not exist before stood at its default.
    """
    were = {n: v for n, v in (defaults or {}).items() if n in now.settings} | before.settings
    names = [*before.settings, *(n for n in now.settings if n not in before.settings)]
    found = [
        Difference(name, were.get(name), now.settings.get(name))
        for name in names
        if were.get(name) != now.settings.get(name)
    ]
    for path in [*before.inputs, *(p for p in now.inputs if p not in before.inputs)]:
        old, new = before.inputs.get(path), now.inputs.get(path)
        if old is None or new is None:
            what = "is no longer read" if new is None else "was not read"
            found.append(Difference(INPUTS, old, f"{path} {what}"))
        elif old != new:
            found.append(Difference(INPUTS, old, f"the content of {path} changed"))
    return found


def other_examples(before: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """Parts of the data that hold other examples than when the stage was begun, or others' order.

    A stage that noted none was begun by code that split its data in a way that nobody knows any
    more. Nothing else it noted tells the split, so that counts as other examples: to train on what
    was held out would show nowhere but in an accuracy that is too good.
    """
    if before:
        return [
            Difference(EXAMPLES, before.get(name), f"which examples are {name} changed")
            for name in now
            if before.get(name) != now[name]
        ]
    parts = " and ".join(now)
    return [Difference(EXAMPLES, None, f"which examples were {parts} was not noted yet")]


def hash_of_examples(examples: Iterable[Any]) -> str:
    """A hash of examples, as JSON has them, in their order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(example).encode() + b"\n")
    return digest.hexdigest()


def read_identity(folder: Path) -> Identity | None:
    """What the stage in `folder` was begun with; None where it says nothing that can be read."""
    try:
        return Identity(**json.loads((folder / RECORD).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write_identity(folder: Path, identity: Identity) -> None:
    """Notes what the stage is begun with."""
    write_json(folder / RECORD, asdict(identity))


def start_over(folder: Path, *, pieces: bool = True) -> None:
    """Deletes what a stage has written, but for what it made for others.

    Args:
        pieces: `PIECES`, too.
    """
    for part in ("checkpoints", *([PIECES] if pieces else [])):
        shutil.rmtree(folder / part, ignore_errors=True)
    for name in OWN_FILES:
        (folder / name).unlink(missing_ok=True)


def movable(value: Any, run: Path) -> Any:
    """A setting with the run directory's name taken out, so that a run can be moved."""
    if isinstance(value, str):
        inside = value == str(run) or value.startswith(f"{run}/")
        if value.startswith("{"):  # a data source as a mapping, which is held as JSON
            return value.replace(f'"{run}/', '"{run}/')
        return "{run}" + value[len(str(run)) :] if inside else value
    if isinstance(value, list):
        return [movable(v, run) for v in value]
    if isinstance(value, dict):
        return {k: movable(v, run) for k, v in value.items()}
    return value


def content_hashes(paths: Sequence[str], run: Path) -> dict[str, str]:
    """A hash of each file's or folder's content, by its path with `{run}` taken out.

    Files that are as long and as old as when they were last read are not read again. What is not
    on this disk is a hub name.
    """
    cache_file = run / CACHE
    cache = _read_cache(cache_file)
    found: dict[str, str] = {}
    seen = dict(cache)
    for path in dict.fromkeys(paths):
        here = Path(path).expanduser()
        name = str(movable(path, run))
        if here.is_dir():
            # A model card tells settings, also those that changed nothing.
            parts = sorted(p for p in here.rglob("*") if p.is_file() and p.name != "README.md")
            lines = [f"{p.relative_to(here)} {_content_hash(p, seen)}\n" for p in parts]
            found[name] = hashlib.sha256("".join(lines).encode()).hexdigest()
        elif here.is_file():
            found[name] = _content_hash(here, seen)
        else:
            found[name] = "hub"
    if seen != cache and run.is_dir():
        write_json(cache_file, seen)
    return found


def outputs_of(folder: Path, run: Path) -> list[str]:
    """Where what a finished stage made for others is; nothing where its result is damaged."""
    try:
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return [name.replace("{run}", str(run)) for name in result.get("outputs", [])]


def missing_outputs(folder: Path, run: Path) -> list[str]:
    """What a finished stage made for others, and is no longer there."""
    return [path for path in outputs_of(folder, run) if not Path(path).exists()]


def unchanged(folder: Path, run: Path) -> bool:
    """Whether a stage's inputs have the content that it was begun with, and its outputs are there.

    That it has finished is for the caller to know.
    """
    before = read_identity(folder)
    if before is None or missing_outputs(folder, run):
        return False
    paths = {name: name.replace("{run}", str(run)) for name in before.inputs}
    now = content_hashes(list(paths.values()), run)
    return all(now[str(movable(path, run))] == before.inputs[n] for n, path in paths.items())


def with_zero(identity: Identity, zero: str) -> Identity:
    """The same with its ZeRO config."""
    return replace(identity, zero=zero)


def _read_cache(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _content_hash(path: Path, seen: dict[str, Any]) -> str:
    status = path.stat()
    key, stamp = os.fspath(path.resolve()), [status.st_size, status.st_mtime_ns]
    known = seen.get(key)
    if isinstance(known, list) and known[:2] == stamp:
        return known[2]
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    seen[key] = [*stamp, digest]
    return digest


def _short(value: Any) -> str:
    text = "not a setting" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "…"


if __name__ == "__main__":
    # RUN STAGE: code 0 when the stage's inputs are those that it was done from.
    sys.exit(0 if unchanged(Path(sys.argv[1], sys.argv[2]), Path(sys.argv[1])) else 1)
