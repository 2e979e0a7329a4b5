"""When a stage saves, what goes into a checkpoint, and how a run goes on from one."""

import contextlib
import errno
import math
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from common.errors import UserError
from common.files import is_disk_full
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
from common.training.resume.arguments import CheckpointArguments, how_to_start_over
from common.training.resume.engines import (
    expected_bytes,
    load_engine,
    save_engine,
    set_rates,
    trained_weights,
)
from common.training.resume.folders import Label
from common.training.resume.publication import Publication
from common.training.resume.signals import REQUESTS, Stopped
from common.training.resume.states import RandomStates, Stateful, read_state, write_state
from common.training.watchdog import WATCHDOG

SHARE = 0.05
"""Checkpoints that nobody asked for by number may take this share of the time."""

SECONDS_AT_THE_END = 10.0
"""How long a run that fails waits for its last checkpoint."""


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
        self.rate = 1.0
        """Factor on the learning rates, which going back has lowered."""
        # As the settings have them, which may have changed since a checkpoint was written.
        self._peaks = {n: list(e.lr_scheduler.base_lrs) for n, e in self.engines.items()}
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
            "rate": self.rate,
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
        # As each rank sees them: a network file system may show a node's new files late to others.
        listed = gather_objects([str(p) for p in folders.content_files(partial)])
        names = sorted({name for part in listed for name in part})
        loss = loss if loss is not None and math.isfinite(loss) else None
        facts = {"step": self.step, "ranks": world_size(), "loss": loss, **self.facts}
        facts["weights"] = {name: trained_weights(e) for name, e in self.engines.items()}
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

    def roll_back(self, factor: float) -> bool:
        """Goes back to the newest whole checkpoint, and on from it with lower learning rates.

        A collective; to be followed by `save`, without which a killed run would forget that it
        went back.

        Args:
            factor: on the learning rates as they are now.

        Returns:
            False where there is no checkpoint.
        """
        self.wait()
        label, retries, rate = self._newest_whole(), self.retries, self.rate
        if label is None:
            return False
        self._load(label)
        self.retries = retries + 1
        self._set_rate(rate * factor)
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
        manifest = folders.read_manifest(folder)
        for name, engine in self.engines.items():
            before, now = manifest["weights"][name], trained_weights(engine)
            if before != now:
                raise UserError(
                    f"{folder}: {before:,} weights of the {name} were trained when it was written, "
                    f"and now {now:,} are; take back what has changed (lora_rank, lora_targets, "
                    f"another model), or start over: {how_to_start_over()}"
                )
        ranks = manifest["ranks"]
        changed = ranks != world_size()
        for name, engine in self.engines.items():
            load_engine(
                engine,
                folder / name,
                ranks_changed=changed,
                scratch=self.root / f".{name}.partial",
            )
        shared = read_state(folder / "shared")
        if missing := [name for name in self.shared if name not in shared]:
            raise UserError(
                f"{folder}: it was written without {', '.join(missing)}; take back what has "
                "changed (ema_decay, score_scaling, reward; a reward model without score_mean in "
                "its config once counted as it was: give it mean 0, std 1 and --allow_changes "
                "reward), "
                f"or start over: {how_to_start_over()}"
            )
        for name, part in self.shared.items():
            part.load_state_dict(shared[name])
        if not changed:
            local = read_state(folder / f"rank_{rank():05d}")
            for name, part in self.local.items():
                part.load_state_dict(local[name])
        loop = shared["loop"]
        self.step, self.values, self.retries = loop["step"], loop["values"], loop["retries"]
        self._set_rate(loop["rate"])
        self._best, self._spent = loop["best"], loop["spent"]
        self._seconds, self._began = loop["seconds"], time.monotonic()
        self._saved_at, self._saved = self._began, label
        if changed:
            self.say(f"from {ranks} ranks to {world_size()}: the same training, rounded otherwise")

    def _set_rate(self, rate: float) -> None:
        self.rate = rate
        for name, engine in self.engines.items():
            set_rates(engine, self._peaks[name], rate)

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
