"""Where a stage's numbers go while it runs: `metrics.jsonl`, a progress bar, wandb when asked."""

import json
import math
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from common.config.arguments import RunArguments
from common.errors import UserError
from common.training.distributed import is_main
from common.training.resume.signals import Stopped


class MetricsWriter:
    """Writes one JSON object a step, on rank 0; a context manager, and part of a checkpoint.

    A number that is not finite is written as null: `metrics.jsonl` stays plain JSON. Whatever a
    file holds beyond the checkpoint that a run goes on from is dropped, and so no step is twice in
    it. `events.jsonl` takes what is out of the ordinary, in the same manner.
    """

    def __init__(
        self, folder: Path, settings: RunArguments, stage: str, config: dict, run_id: str = ""
    ) -> None:
        """Args:
            folder: the stage's folder in the run directory.
            stage: its name, for wandb.
            config: resolved settings, for wandb.
            run_id: wandb's id; the same one goes on with the same wandb run.

        Raises:
            UserError: wandb asked for, and not installed or without a login.
        """
        self._files: dict[str, _Lines] = {}
        self._wandb: Any = None
        self._logged = 0  # wandb has the steps up to this one
        if not is_main():
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._files = {name: _Lines(folder / f"{name}.jsonl") for name in ("metrics", "events")}
        if settings.wandb:
            self._logged = self._files["metrics"].last_step()
            try:
                import wandb
            except ImportError:
                raise UserError("--wandb needs the package wandb: pip install wandb") from None
            try:
                self._wandb = wandb.init(
                    project=settings.wandb_project,
                    name=f"{Path(settings.run).name}-{stage}",
                    group=Path(settings.run).name,
                    dir=str(folder),
                    config=config,
                    id=run_id or None,
                    resume="allow" if run_id else None,
                )
            except wandb.errors.Error as error:
                raise UserError(
                    f"--wandb: {error}; log in with `wandb login`, or set WANDB_MODE=offline"
                ) from None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one line; keys are "group/name"."""
        if not self._files:
            return
        plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._files["metrics"].add({"step": step, **plain})
        if self._wandb is not None and step > self._logged:
            self._wandb.log(values, step=step)
            self._logged = step

    def event(self, step: int, **facts: Any) -> None:  # noqa: ANN401
        """Notes something that is out of the ordinary."""
        if self._files:
            self._files["events"].add({"step": step, **facts})

    def state_dict(self) -> dict[str, int]:
        """Lengths of the files, in bytes; up to there they are on the disk."""
        return {name: lines.flushed() for name, lines in self._files.items()}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Drops what came after the checkpoint."""
        for name, lines in self._files.items():
            lines.cut(state[name])

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for lines in self._files.values():
            lines.close()
        if self._wandb is not None:
            orderly = kind is None or issubclass(kind, Stopped)
            self._wandb.finish(exit_code=0 if orderly else 1)


class _Lines:
    """A file of JSON lines that is written from where a checkpoint left it; at first, from 0."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._start = 0

    def add(self, row: dict[str, Any]) -> None:
        self._open().write((json.dumps(row) + "\n").encode())

    def flushed(self) -> int:
        file = self._open()
        os.fsync(file.fileno())
        return file.tell()

    def cut(self, length: int) -> None:
        self.close()
        self._start = length
        if self._path.is_file():
            self._open()

    def last_step(self) -> int:
        """Of the last whole line of what is there, 0 without one."""
        lines = self._path.read_bytes().split(b"\n")[:-1] if self._path.is_file() else []
        try:
            return json.loads(lines[-1])["step"]
        except (IndexError, ValueError, KeyError, TypeError):  # none, or what a crash left
            return 0

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self) -> Any:  # noqa: ANN401
        if self._file is None:
            self._file = open(
                os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666), "r+b", buffering=0
            )
            self._file.truncate(min(self._start, self._path.stat().st_size))
            self._file.seek(0, os.SEEK_END)
        return self._file


def progress_bar(total: int, title: str, *, done: int = 0, shown: bool = True) -> Any:
    """A tqdm bar on rank 0, silent elsewhere; `done` were done by an earlier process."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=done,
        desc=title,
        disable=not (shown and is_main()),
        dynamic_ncols=True,
        mininterval=1.0,
        smoothing=0.1,
    )
