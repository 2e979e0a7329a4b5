"""Where a stage's numbers go while it runs: `metrics.jsonl`, a progress bar, wandb when asked."""

import json
import math
from pathlib import Path
from types import TracebackType
from typing import Any

from common.config.arguments import RunArguments
from common.errors import UserError
from common.training.distributed import is_main


class MetricsWriter:
    """Writes one JSON object a step, on rank 0; a context manager.

    A number that is not finite is written as null: `metrics.jsonl` stays plain JSON.
    """

    def __init__(self, folder: Path, settings: RunArguments, stage: str, config: dict) -> None:
        """Args:
            folder: the stage's folder in the run directory.
            stage: its name, for wandb.
            config: resolved settings, for wandb.

        Raises:
            UserError: wandb asked for, and not installed or without a login.
        """
        self._file = None
        self._wandb: Any = None
        if not is_main():
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._file = (folder / "metrics.jsonl").open("w", encoding="utf-8", buffering=1)
        if settings.wandb:
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
                )
            except wandb.errors.Error as error:
                raise UserError(
                    f"--wandb: {error}; log in with `wandb login`, or set WANDB_MODE=offline"
                ) from None

    def write(self, step: int, values: dict[str, float]) -> None:
        """Adds one line; keys are "group/name"."""
        if self._file is None:
            return
        plain = {k: v if math.isfinite(v) else None for k, v in values.items()}
        self._file.write(json.dumps({"step": step, **plain}) + "\n")
        if self._wandb is not None:
            self._wandb.log(values, step=step)

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code=0 if kind is None else 1)


def progress_bar(total: int, title: str, *, shown: bool = True) -> Any:
    """A tqdm bar on rank 0, silent elsewhere."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=title,
        disable=not (shown and is_main()),
        dynamic_ncols=True,
        mininterval=1.0,
        smoothing=0.1,
    )
