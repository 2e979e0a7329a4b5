"""When a stage saves, what goes into a checkpoint, and how a run goes on from one."""

import contextlib
import errno
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import torch

from common.config.arguments import check_range, option
from common.errors import UserError
from common.files import is_disk_full, write_json
from common.training.distributed import (
    all_reduce_sum,
    barrier,
    broadcast_object,
    device,
    gather_objects,
    is_main,
    rank,
    world_size,
)
from common.training.resume import folders
from common.training.resume.engines import expected_bytes, load_engine, lower_rates, save_engine
from common.training.resume.folders import FileFact, Label
from common.training.resume.signals import REQUESTS, Stopped
from common.training.resume.states import RandomStates, Stateful, read_state, write_state
from common.training.watchdog import WATCHDOG

SHARE = 0.05
"""Checkpoints that nobody asked for by number may take this share of the time."""

SECONDS_FOR_OTHERS = 600.0
"""How long rank 0 waits for the other ranks' checksums."""

SECONDS_AT_THE_END = 10.0
"""How long a run that fails waits for its last checkpoint."""


@dataclass
class CheckpointArguments:
    """When checkpoints are written, and how many are kept."""

    HARMLESS: ClassVar = (
        *("checkpoint_minutes", "checkpoint_steps", "checkpoint_epochs", "checkpoint_keep"),
    )

    checkpoint_minutes: float = option(
        10.0,
        "minutes between checkpoints; also after an evaluation that is the best so far, but never "
        "for over 5 % of the time; 0: neither",
    )
    checkpoint_steps: int = option(
        0,
        "optimizer steps (rollouts in PPO, batches in sampling) between checkpoints; 0: none",
    )
    checkpoint_epochs: bool = option(
        True, "also save at the end of each pass over the data, under the same limit"
    )
    checkpoint_keep: int = option(2, "newest checkpoints that are kept, beside the best one")

    def __post_init__(self) -> None:
        check_range(self, 0, "checkpoint_minutes", "checkpoint_steps")
        check_range(self, 1, "checkpoint_keep")


def how_to_start_over(stage: str = "STAGE") -> str:
    """What a user gives to start a stage over, in a pipeline or alone."""
    if "RLHF_LAUNCHER" in os.environ:
        return f"give the pipeline --restart {stage} (its --fresh deletes all stages)"
    return "give --fresh true"


class Checkpoints:
    """A stage's checkpoints; a context manager around its loop.

    Anything with `state_dict` and `load_state_dict` is saved and restored by being in `shared`
    (one state for all ranks) or `local` (a state for each); later parts add theirs there.
    """

    def __init__(
        self,
        root: Path,
        settings: CheckpointArguments,
        *,
        engines: Mapping[str, Any],
        shared: Mapping[str, Stateful],
        local: Mapping[str, Stateful] | None = None,
        facts: Mapping[str, Any] | None = None,
        step_minutes: float = math.inf,
        say: Callable[[str], None] = print,
    ) -> None:
        """Args:
        root: their folder, shared by all ranks.
        engines: DeepSpeed engines by name.
        shared: states that are the same on every rank; `state_dict` may be a collective.
        local: states of this rank; restored only on as many ranks as saved them.
        facts: what else the manifest says.
        step_minutes: how long one step may take (see `common.training.watchdog`).
        say: prints a line, on rank 0.
        """
        self.root = root
        self.settings = settings
        self.engines = dict(engines)
        self.shared = dict(shared)
        self.local = {"random": RandomStates(), **(local or {})}
        self.facts = dict(facts or {})
        self.step_minutes = step_minutes
        self.say = say
        self.step = 0
        """Steps that are done."""
        self.values: dict[str, float] = {}
        """Metrics of the last of them."""
        self.retries = 0
        """How often the run went back to an earlier checkpoint."""
        self._best = math.inf  # the lowest loss of an evaluation
        self._seconds = 0.0  # of earlier processes
        self._began = self._saved_at = time.monotonic()
        self._spent = 0.0
        self._cost = 0.0  # seconds that the last checkpoint held up the run
        self._saved: Label | None = None
        self._publication: Publication | None = None

    @property
    def spent_seconds(self) -> float:
        """How long checkpoints have held up the run, in all its processes."""
        return self._spent

    @property
    def earlier_seconds(self) -> float:
        """What processes before this one have spent on what is done."""
        return self._seconds

    def restore(self) -> int:
        """Goes on from the newest whole checkpoint; returns how many steps are done. A collective.

        Raises:
            UserError: there are checkpoints, but none is whole.
            Stopped: somebody asked for it meanwhile.
        """
        if is_main():
            self.root.mkdir(parents=True, exist_ok=True)
            folders.remove_partial(self.root)
        barrier()
        label = self._newest_whole()
        if label is not None:
            self._load(label)
            self.say(f"going on after step {self.step}")
        if self._vote(REQUESTS.asked())[0]:
            raise Stopped
        WATCHDOG.at(f"step {self.step + 1}")
        WATCHDOG.start(self.step_minutes)
        return self.step

    def after(
        self,
        step: int,
        values: dict[str, float],
        *,
        epoch_ended: bool = False,
        loss: float | None = None,
        last: bool = False,
    ) -> None:
        """To be called when a step is done and its metrics are written. A collective.

        Args:
            values: the step's metrics.
            loss: of an evaluation after this step; the checkpoint with the lowest is kept.
            last: no step follows.

        Raises:
            Stopped: somebody asked for it; the step is saved.
            UserError: the checkpoint could not be written.
        """
        self.step, self.values = step, dict(values)
        WATCHDOG.at(f"the checkpoint of step {step}")
        s = self.settings
        since = time.monotonic() - self._saved_at
        better = loss is not None and loss < self._best
        self._best = min(self._best, math.inf if loss is None else loss)
        timely = s.checkpoint_minutes > 0 and (since >= 60.0 * s.checkpoint_minutes or better)
        timely |= epoch_ended and s.checkpoint_epochs
        timely &= since >= self._cost / SHARE
        failed = self._publication is not None and self._publication.error is not None
        asked, timely, failed = self._vote(REQUESTS.asked(), is_main() and timely, failed)
        if failed:
            self.wait()
        numbered = bool(s.checkpoint_steps) and step % s.checkpoint_steps == 0
        if asked or timely or numbered or last:
            self.save(loss)
        if asked and not last:
            self.wait()
            raise Stopped
        WATCHDOG.at(f"step {step + 1}")

    def save(self, loss: float | None = None) -> None:
        """Writes a checkpoint of the step that is done. A collective.

        What must not change meanwhile is written before this returns; that it is on the disk, its
        checksums, and its name follow in the background.

        Raises:
            UserError: it does not fit or cannot be written; says which checkpoint is whole.
        """
        started = time.monotonic()
        self.wait()
        label = Label(self.step, self.retries)
        self._check_room()
        partial = folders.partial_folder(self.root, label)
        if is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        barrier()
        shared = {name: part.state_dict() for name, part in self.shared.items()}
        shared["loop"] = {
            "step": self.step,
            "values": self.values,
            "retries": self.retries,
            "best": self._best,
            "spent": self._spent,
            "seconds": self._seconds + time.monotonic() - self._began,
        }
        local = {name: part.state_dict() for name, part in self.local.items()}
        with self._explained():
            for name, engine in self.engines.items():
                save_engine(engine, partial / name)
            write_state(partial / f"rank_{rank():05d}", local)
            if is_main():
                write_state(partial / "shared", shared)
        barrier()
        names = broadcast_object(
            [str(p) for p in folders.content_files(partial)] if is_main() else None
        )
        loss = loss if loss is not None and math.isfinite(loss) else None
        facts = {"step": self.step, "ranks": world_size(), "loss": loss, **self.facts}
        self._publication = Publication(
            self.root, label, names, facts, self.settings.checkpoint_keep
        )
        self._saved_at = time.monotonic()
        self._cost = self._saved_at - started
        self._spent += self._cost

    def wait(self) -> None:
        """Until the last checkpoint has its name. A collective.

        Raises:
            UserError: it could not be written; the partial folder is gone.
        """
        if self._publication is None:
            return
        publication, self._publication = self._publication, None
        publication.join()
        failures = [error for error in gather_objects(publication.error) if error]
        barrier()
        if failures:
            if is_main():
                shutil.rmtree(folders.partial_folder(self.root, publication.label), True)
            raise self._not_written(str(failures[0]), publication.label.step)
        self._saved = publication.label

    def roll_back(self, rate: float) -> bool:
        """Goes back to the newest whole checkpoint, and on from it with lower learning rates.

        A collective; to be followed by `save`, without which a killed run would forget that it
        went back.

        Returns:
            False where there is no checkpoint.
        """
        self.wait()
        label, retries = self._newest_whole(), self.retries
        if label is None:
            return False
        self._load(label)
        self.retries = retries + 1
        for engine in self.engines.values():
            lower_rates(engine, rate)
        return True

    def _newest_whole(self) -> Label | None:
        """The newest checkpoint without damage; damaged ones are set aside. A collective."""
        found = broadcast_object(folders.labels(self.root) if is_main() else None)
        refused: dict[Label, str] = {}
        for label in reversed(found):
            folder = self.root / str(label)
            faults = gather_objects(folders.damage(folder, rank(), world_size()))
            fault = next((f for f in faults if f), None)
            if fault is not None:
                refused[label] = f"{folder}: {fault}"
                continue
            for other, text in refused.items():
                self.say(f"damaged checkpoint {text}; the one before it is used")
                if is_main():
                    folders.set_aside(self.root, other)
            barrier()
            return label
        if refused:
            raise UserError(
                f"no checkpoint is whole: {'; '.join(refused.values())}. Nothing was deleted; to "
                f"start over, {how_to_start_over()}"
            )
        return None

    def _load(self, label: Label) -> None:
        folder = self.root / str(label)
        ranks = folders.read_manifest(folder)["ranks"]
        changed = ranks != world_size()
        for name, engine in self.engines.items():
            load_engine(
                engine,
                folder / name,
                ranks_changed=changed,
                scratch=self.root / f".{name}.partial",
            )
        shared = read_state(folder / "shared")
        for name, part in self.shared.items():
            part.load_state_dict(shared[name])
        if not changed:
            local = read_state(folder / f"rank_{rank():05d}")
            for name, part in self.local.items():
                part.load_state_dict(local[name])
        loop = shared["loop"]
        self.step, self.values, self.retries = loop["step"], loop["values"], loop["retries"]
        self._best, self._spent = loop["best"], loop["spent"]
        self._seconds, self._began = loop["seconds"], time.monotonic()
        self._saved_at, self._saved = self._began, label
        if changed:
            self.say(f"from {ranks} ranks to {world_size()}: the same training, rounded otherwise")

    def _vote(self, *flags: bool) -> list[bool]:
        """Which of the flags any rank has raised. A collective."""
        votes = torch.tensor([float(f) for f in flags], device=device())
        return [v > 0 for v in all_reduce_sum(votes).tolist()]

    def _check_room(self) -> None:
        """Raises UserError on all ranks when a checkpoint will not fit."""
        text = ""
        if is_main():
            needed = sum(expected_bytes(e) for e in self.engines.values())
            if self._saved is not None and (self.root / str(self._saved)).is_dir():
                needed = folders.size_of(self.root / str(self._saved))
            free = shutil.disk_usage(self.root).free
            if free < needed:
                text = f"it needs about {needed / 1e6:.1f} MB, and {free / 1e6:.1f} MB are free"
        text = broadcast_object(text)
        if text:
            raise self._not_written(str(text))

    @contextlib.contextmanager
    def _explained(self) -> Any:  # noqa: ANN401
        """Turns a failed write into a message. The launcher ends the ranks that still write."""
        try:
            yield
        except Exception as error:
            if not is_disk_full(error) and getattr(error, "errno", None) != errno.EIO:
                raise
            free = shutil.disk_usage(self.root).free
            raise self._not_written(f"{error} ({free / 1e6:.1f} MB are free)") from error

    def _not_written(self, why: str, step: int | None = None) -> UserError:
        whole = f"step {self._saved.step} is whole" if self._saved else "there is none before it"
        return UserError(
            f"{self.root}: the checkpoint of step {step or self.step} could not be written: "
            f"{why}. The checkpoint before it: {whole}. Make room (or choose another --run), and "
            "give the same command again"
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        WATCHDOG.stop()
        if kind is None:
            self.wait()
        elif self._publication is not None:
            self._publication.join(SECONDS_AT_THE_END)  # no collective: others may be gone


class Unsaved:
    """Stands for `Checkpoints` where a training is not to be resumed."""

    def __init__(self) -> None:
        self.step = 0
        self.values: dict[str, float] = {}

    def restore(self) -> int:
        """Nothing is done yet."""
        return 0

    def after(self, step: int, values: dict[str, float], **facts: Any) -> None:  # noqa: ANN401
        """Remembers the step's metrics."""
        self.step, self.values = step, dict(values)


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
