"""Files of a run, each replaced as a whole: a reader sees the old one or the new, never half."""

import errno
import fcntl
import json
import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import UserError


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 beside the file's place, then renames; makes the folder where it is missing.

    What is under the name afterwards is on the disk, too.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error says that there is no room (or no quota) left to write.

    torch's writer and safetensors' have errors of their own, and torch's drops the reason.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return True
    signs = (
        "No space left on device",
        "Disk quota exceeded",
        "file write failed",
        "unexpected pos",
    )
    return any(sign in str(error) for sign in signs)


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON; strict, so NaN is refused."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one object a line."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON-lines file that a stage of ours wrote.

    Raises:
        UserError: the file is missing (the stage that writes it has not run), or a line is no
            JSON object; names the line.
    """
    if not path.is_file():
        raise UserError(f"{path}: no such file; run the stage that writes it first")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):  # the former is also what broken UTF-8 raises
            row = None
        if not isinstance(row, dict):
            raise UserError(f"{path}:{number}: this line is not a JSON object")
        rows.append(row)
    return rows


def take_lock(path: Path) -> Any:  # noqa: ANN401
    """A file that only one process holds, until it is gone; two would spoil each other's files.

    Raises:
        UserError: another process has it.
    """
    file = path.open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        raise UserError(
            f"{path.parent}: another process ({file.read().strip() or 'unknown'}) is at work on "
            "this stage; wait for it, end it, or choose another --run"
        ) from None
    except OSError:
        return file  # a file system without locks
    file.truncate(0)
    file.write(f"{os.getpid()} on {platform.node()}")
    file.flush()
    return file
