"""A written checkpoint becomes one that is whole, while the run goes on."""

import contextlib
import errno
import json
import threading
import time
from pathlib import Path
from typing import Any

from common.files import write_json
from common.training.distributed import rank, world_size
from common.training.resume import folders
from common.training.resume.folders import FileFact, Label

SECONDS_FOR_OTHERS = 600.0
"""How long rank 0 waits for the other ranks' checksums."""


class Publication:
    """Makes a written checkpoint durable, adds its manifest, and names it; in the background.

    Each rank reads its share of the files. They agree through files: a collective here would get
    in between those of the training.
    """

    def __init__(
        self, root: Path, label: Label, names: Any, facts: dict[str, Any], keep: int
    ) -> None:
        """Args:
        names: all files, relative to the partial folder.
        facts: for the manifest.
        """
        self.label = label
        self.error: str | None = None
        self._args = (root, list(names), facts, keep, rank(), world_size())
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def join(self, timeout: float | None = None) -> None:
        """Until it is done, or has failed."""
        self._thread.join(timeout)

    def _run(self) -> None:
        root, names, facts, keep, number, ranks = self._args
        partial = folders.partial_folder(root, self.label)
        try:
            mine = {
                name: folders.file_fact(partial / name, flush=True) for name in names[number::ranks]
            }
            if number > 0:
                write_json(_list_of(partial, number), {n: vars(f) for n, f in mine.items()})
                return
            for other in range(1, ranks):
                mine |= _wait_for(partial, other)
            folders.write_manifest(partial, mine, facts)
            folders.publish(root, self.label)
            folders.prune(root, keep, folders.best_of(root, folders.labels(root)))
        except Exception as error:
            self.error = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            with contextlib.suppress(OSError):
                _failure_of(partial, number).touch()  # an empty file has room on a full disk


def _list_of(partial: Path, number: int) -> Path:
    return partial / f".files_of_rank_{number}.json"


def _failure_of(partial: Path, number: int) -> Path:
    return partial / f".rank_{number}_failed"


def _wait_for(partial: Path, number: int) -> dict[str, FileFact]:
    """Checksums of the files that another rank has read; its list is deleted."""
    path, deadline = _list_of(partial, number), time.monotonic() + SECONDS_FOR_OTHERS
    while not path.is_file():
        if _failure_of(partial, number).exists():
            raise OSError(errno.EIO, f"rank {number} could not write its part")
        if time.monotonic() > deadline:
            raise TimeoutError(f"{path.name} did not come within {SECONDS_FOR_OTHERS:.0f} s")
        time.sleep(0.02)
    facts = json.loads(path.read_text(encoding="utf-8"))
    path.unlink()
    return {name: FileFact(**fact) for name, fact in facts.items()}
