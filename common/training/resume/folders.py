"""Checkpoints on disk: each is a folder that is whole, or is known not to be.

    STAGE/checkpoints/
        step_00000100/      manifest.json says what is in it, with a checksum of every file
        step_00000120/
        latest, best        the name of one of them, for people and scripts

A checkpoint is written as `.step_00000120.partial`; when every byte is on the disk and has its
checksum in the manifest, the folder is renamed, and `latest` moves last. A process that is killed
leaves a partial folder, which nothing reads. Names sort as they came to be.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_json, write_text

MANIFEST = "manifest.json"
LATEST = "latest"
BEST = "best"
DAMAGED = ".damaged"
FORMAT = 2

_NAME = re.compile(r"step_(\d{8,})(?:_retry_(\d+))?")
_PIECE = 1 << 22


@dataclass(frozen=True, order=True)
class Label:
    """What tells checkpoints of a stage apart; ordered by age."""

    step: int
    """Optimizer steps (rollouts, in PPO) that it has behind it."""
    retry: int = 0
    """How often the run had gone back to an earlier checkpoint, where it had."""

    def __str__(self) -> str:
        return f"step_{self.step:08d}" + (f"_retry_{self.retry}" if self.retry else "")


def label_of(name: str) -> Label | None:
    """The label in a folder's name; None for any other name."""
    match = _NAME.fullmatch(name)
    return Label(int(match[1]), int(match[2] or 0)) if match else None


def labels(root: Path) -> list[Label]:
    """Checkpoints in `root`, oldest first; whether they are whole is not looked at."""
    if not root.is_dir():
        return []
    return sorted(label for p in root.iterdir() if p.is_dir() and (label := label_of(p.name)))


def partial_folder(root: Path, label: Label) -> Path:
    """Where a checkpoint is written before it has its name."""
    return root / f".{label}.partial"


@dataclass(frozen=True)
class FileFact:
    """A file's length in bytes and its SHA-256."""

    bytes: int
    sha256: str


def file_fact(path: Path, *, flush: bool = False) -> FileFact:
    """Reads a file; with `flush`, first makes sure that it is on the disk.

    Raises:
        OSError: it cannot be read, or does not fit.
    """
    digest, count = hashlib.sha256(), 0
    with path.open("rb") as file:
        if flush:
            os.fsync(file.fileno())
        while piece := file.read(_PIECE):
            digest.update(piece)
            count += len(piece)
    return FileFact(count, digest.hexdigest())


def content_files(folder: Path) -> list[Path]:
    """All files of a checkpoint but its manifest, relative to it, in order."""
    found = (p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    return sorted(p for p in found if str(p) != MANIFEST and not p.name.startswith("."))


def write_manifest(folder: Path, files: dict[str, FileFact], facts: dict[str, Any]) -> None:
    """Writes `manifest.json`, which carries its own checksum.

    Args:
        files: path inside the folder -> what it must be.
        facts: whatever else is to be known before anything is loaded; JSON.
    """
    content = {
        "format": FORMAT,
        **facts,
        "files": {name: vars(fact) for name, fact in sorted(files.items())},
    }
    write_json(folder / MANIFEST, content | {"sha256": _digest(content)})


def read_manifest(folder: Path) -> dict[str, Any]:
    """A checkpoint's manifest.

    Raises:
        ValueError: it is missing or damaged.
        UserError: it is of another format.
        OSError: it cannot be read now, which is no damage.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes().decode("utf-8"))
        claimed = content.pop("sha256")
    except FileNotFoundError as error:
        raise ValueError(f"{MANIFEST}: {error.strerror}") from None
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        raise ValueError(f"{MANIFEST} is damaged") from None
    if claimed != _digest(content):
        raise ValueError(f"{MANIFEST} is damaged")
    if content["format"] != FORMAT:
        raise UserError(
            f"{folder}: its format is {content['format']}, but this version reads {FORMAT}; go on "
            "with the version that wrote it"
        )
    return content


def damage(folder: Path, part: int = 0, parts: int = 1) -> str | None:
    """What is wrong with a checkpoint, or None when every byte is as it was written.

    Raises what `read_manifest` raises, but for damage.

    Args:
        part, parts: only every `parts`-th file from this one on; ranks share the work.
    """
    try:
        manifest = read_manifest(folder)
    except UserError:
        raise
    except ValueError as error:
        return str(error)
    for name in sorted(manifest["files"])[part::parts]:
        wanted = FileFact(**manifest["files"][name])
        try:
            size = (folder / name).stat().st_size
            if size != wanted.bytes:
                return f"{name} has {size} bytes instead of {wanted.bytes}"
            if file_fact(folder / name) != wanted:
                return f"{name} does not match its checksum"
        except FileNotFoundError as error:
            return f"{name}: {error.strerror}"
    return None


def publish(root: Path, label: Label) -> None:
    """Gives a complete partial folder its name, then moves `latest`."""
    partial, final = partial_folder(root, label), root / str(label)
    for folder in [partial, *(p for p in partial.rglob("*") if p.is_dir())]:
        _flush_folder(folder)
    if final.exists():  # of the same step, made by a process that was killed since
        shutil.rmtree(final)
    partial.rename(final)
    _flush_folder(root)
    write_text(root / LATEST, f"{label}\n")


def prune(root: Path, keep: int, best: Label | None) -> None:
    """Deletes all but the newest `keep` checkpoints and the best one, and notes which that is."""
    kept = set(labels(root)[-keep:]) | {best}
    if best is not None:
        write_text(root / BEST, f"{best}\n")
    for label in labels(root):
        if label not in kept:
            remove(root, label)
    for folder in root.glob(f"*{DAMAGED}"):
        shutil.rmtree(folder, ignore_errors=True)


def remove(root: Path, label: Label) -> None:
    """Deletes a checkpoint; it loses its name first, so that no half of it is ever found."""
    doomed = partial_folder(root, label)
    shutil.rmtree(doomed, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        (root / str(label)).rename(doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def set_aside(root: Path, label: Label) -> None:
    """Takes a damaged checkpoint's name away; it stays until the next one is whole."""
    aside = root / f"{label}{DAMAGED}"
    shutil.rmtree(aside, ignore_errors=True)
    (root / str(label)).rename(aside)


def remove_partial(root: Path) -> None:
    """Deletes what killed processes have left."""
    for folder in root.glob(".*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def best_of(root: Path, candidates: Sequence[Label]) -> Label | None:
    """The checkpoint with the lowest `loss` in its manifest; the newest of equal ones."""
    found = []
    for label in candidates:
        with contextlib.suppress(ValueError):
            loss = read_manifest(root / str(label)).get("loss")
            if loss is not None:
                found.append((loss, -label.step, -label.retry))
    if not found:
        return None
    _, step, retry = min(found)
    return Label(-step, -retry)


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


@contextlib.contextmanager
def _open_folder(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _flush_folder(folder: Path) -> None:
    """Makes a folder's entries durable."""
    with _open_folder(folder) as handle:
        os.fsync(handle)


def _digest(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
