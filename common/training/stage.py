"""What every stage's `main` does around its own work: arguments, ranks, folder, result, errors."""

import atexit
import contextlib
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import yaml

from common.config.arguments import RunArguments
from common.config.parsing import parse_arguments, resolved_settings
from common.errors import UserError
from common.files import write_json, write_text
from common.training.distributed import barrier, is_main
from common.training.engine import process_group
from common.training.metrics import MetricsWriter
from common.training.seeding import seed_global

SECONDS_FOR_RANK_0 = 5.0
"""How long another rank waits before it prints an error that rank 0 may have printed already."""

PACKAGES = ("torch", "deepspeed", "transformers", "datasets", "peft", "numpy")


class Stage:
    """One stage of one run: its folder, its metrics, and the facts that it ends with."""

    def __init__(self, name: str, run: RunArguments, settings: dict[str, Any]) -> None:
        self.name = name
        self.run = run
        self.root = Path(run.run)
        self.folder = self.root / name
        self.models = self.root / "models"
        self.settings = settings
        # The launchers note when they began: imports take seconds, which people wait for too.
        self.started = float(os.environ.get("RLHF_STAGE_STARTED", time.time()))

    def open_metrics(self) -> MetricsWriter:
        """This stage's `metrics.jsonl` (and wandb run)."""
        return MetricsWriter(self.folder, self.run, self.name, self.settings)

    def say(self, text: str) -> None:
        """One line on the terminal, from rank 0."""
        if is_main():
            print(f"{self.name}: {text}", flush=True)

    def finish(self, facts: dict[str, Any], line: str) -> None:
        """Writes `result.json` (which marks the stage as done) and prints what was achieved."""
        barrier()
        if is_main():
            seconds = round(time.time() - self.started, 1)
            result = {"seconds": seconds, **facts}
            result |= {"seed": self.run.seed, "versions": package_versions()}
            write_json(self.folder / "result.json", result)
            print(f"{self.name}: {line} ({seconds:.0f} s)", flush=True)


def run_stage(
    name: str, types: Sequence[type], body: Callable[..., None], *, distributed: bool = True
) -> None:
    """Parses arguments, brings up the ranks, runs `body(stage, *argument groups)`, ends cleanly.

    Without `distributed` the stage is a plain process, for stages that need no ranks. The first of
    `types` must be `RunArguments`. A `UserError` is printed without a traceback, once, and the
    process ends with code 2.
    """
    quiet_libraries()
    try:
        groups = parse_arguments(types, name)
        settings = resolved_settings(*groups)
        seed_global(groups[0].seed, name)  # what libraries draw: adapters, their dropout
        with process_group() if distributed else contextlib.nullcontext():
            stage = Stage(name, groups[0], settings)
            if is_main():
                stage.folder.mkdir(parents=True, exist_ok=True)
                (stage.folder / "result.json").unlink(missing_ok=True)
                text = yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)
                write_text(stage.folder / "config.yaml", text)
            body(stage, *groups)
    except UserError as error:
        number = os.environ.get("RANK", "0")
        if number != "0":
            # Where rank 0 has failed alike, the launcher ends this rank before it speaks.
            time.sleep(SECONDS_FOR_RANK_0)
        where = "" if number == "0" else f" (rank {number})"
        print(f"{name}: error{where}: {error}", file=sys.stderr, flush=True)
        leave(2) if distributed else sys.exit(2)
    if distributed:
        leave(0)


def leave(code: int) -> None:
    """Ends the process without tearing the interpreter down.

    DeepSpeed's module-level caches keep process groups, and with them gloo's threads, alive to the
    very end. One that lets go of a tensor while the interpreter is being torn down aborts the
    process ("terminate called without an active exception", code -6) after all its work is done.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def quiet_libraries() -> None:
    """No hub traffic for local folders, no warnings that a user can do nothing about."""
    import logging
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("DS_ACCELERATOR", "cuda" if _has_gpu() else "cpu")
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", category=FutureWarning)
    from transformers.utils import logging as hf_logging

    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
