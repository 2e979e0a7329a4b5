"""One stage of a run: its folder, what it was begun with, its checkpoints and its result."""

import json
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from common.config.arguments import RunArguments, ZeroArguments
from common.errors import UserError
from common.files import take_lock, write_json, write_text
from common.models.hub import push
from common.training.distributed import (
    broadcast_object,
    gather_objects,
    is_main,
    world_size,
)
from common.training.guard import Guard, GuardArguments
from common.training.loop import Loop
from common.training.metrics import MetricsWriter
from common.training.peak import PeakMemory
from common.training.resume.arguments import CheckpointArguments, how_to_start_over
from common.training.resume.checkpoints import Checkpoints
from common.training.resume.folders import labels
from common.training.resume.identity import (
    EXAMPLES,
    INPUTS,
    PIECES,
    RECORD,
    Difference,
    Identity,
    content_hashes,
    differences,
    missing_outputs,
    movable,
    other_examples,
    outputs_of,
    read_identity,
    start_over,
    with_zero,
    write_identity,
)
from common.training.resume.states import Stateful
from common.training.versions import environment, package_versions
from common.zero.config import resolve_zero


class Finished(Exception):
    """The stage has been done before, from the same inputs; says where what it made is."""


class Stage:
    """One stage of one run: its folder, its metrics, and the facts that it ends with."""

    def __init__(
        self,
        name: str,
        run: RunArguments,
        settings: dict[str, Any],
        binding: dict[str, Any] | None = None,
        defaults: dict[str, Any] | None = None,
    ) -> None:
        """Args:
        settings: all of them, resolved; binding: those that the result depends on.
        defaults: what a stage begun before there was such a setting is taken to have had.
        """
        self.name = name
        self.run = run
        self.root = Path(run.run)
        self.folder = self.root / name
        self.models = self.root / "models"
        self.settings = settings
        self.binding = settings if binding is None else binding
        self.defaults = defaults or {}
        # The launchers note when they began: imports take seconds, which people wait for too.
        self.started = float(os.environ.get("RLHF_STAGE_STARTED", time.time()))
        self.memory = PeakMemory()
        self.plan: Callable[[], Any] | None = None
        """Works out what was to be expected (`common.zero.plan`), where that can be planned."""
        self._lock: Any = None
        self._identity = Identity({}, {})
        self._allowed: list[Difference] = []

    def begin(self, inputs: Sequence[str] = ()) -> None:
        """Starts the stage, or goes on with it: the same command does either. A collective.

        Args:
            inputs: files, folders and hub names that the result depends on.

        Raises:
            Finished: it has been done from the same inputs.
            UserError: it was begun with other settings or inputs (says which), and going on or
                starting over would mix up or wipe what is there.
        """
        outcome: tuple[str, Any] = ("", None)
        if is_main():
            try:
                outcome = ("", self._begin(inputs))
            except (UserError, Finished) as error:
                outcome = (type(error).__name__, str(error))
        kind, content = broadcast_object(outcome)  # type: ignore[misc]
        if kind == "Finished" and is_main():
            self.publish()  # may not have been asked for before
        if kind:
            raise {"UserError": UserError, "Finished": Finished}[kind](content)
        self._identity = content
        self._note_settings()

    def bind_examples(self, parts: Mapping[str, str], follows: Collection[str]) -> None:
        """Holds the stage to the examples that it was begun with. A collective.

        Begun by other code, it might go on with another split of the same files, and train on what
        it then takes for held out.

        Args:
            parts: by what is done with them, a hash of the examples (`hash_of_examples`).
            follows: settings that choose among them: an allowed change of one allows others here.

        Raises:
            UserError: they are others than those that its checkpoints were trained on.
        """
        fault = ""
        if is_main():
            try:
                self._bind_examples(parts, follows)
            except UserError as error:
                fault = str(error)
        fault = str(broadcast_object(fault))
        if fault:
            raise UserError(fault)

    def begin_anew(self) -> None:
        """Starts the stage whatever has been done before. For rank 0 and the others alike."""
        if is_main():
            start_over(self.folder)
        self._note_settings()

    def resolve_zero(self, settings: ZeroArguments) -> ZeroArguments:
        """With the ZeRO stage that `auto` stood for when the stage was begun, or stands for now."""
        before = self._identity.zero
        if settings.zero == "auto" and before:
            settings = replace(settings, zero=before)
        resolved = resolve_zero(settings, world_size())
        zero = resolved.zero
        if before and zero != before and labels(self.folder / "checkpoints"):
            raise UserError(
                f"{self.folder}: its checkpoints are of ZeRO {before} and cannot be read under "
                f"ZeRO {zero}; use --zero {before}, or start over: {how_to_start_over(self.name)}"
            )
        if zero != before:
            self._identity = with_zero(self._identity, zero)
            if is_main():
                write_identity(self.folder, self._identity)
        return resolved

    def loop(
        self,
        saving: CheckpointArguments,
        watching: GuardArguments,
        *,
        engines: Mapping[str, Any],
        shared: Mapping[str, Stateful] | None = None,
    ) -> Loop:
        """This stage's training loop, with its `metrics.jsonl` (and wandb run).

        Args:
            engines, shared: what is trained and what else changes, as `Checkpoints` has them.
        """
        metrics = MetricsWriter(self.folder, self.run, self.name, self.settings, self._identity.id)
        guard = Guard(watching)
        shared = {"metrics": metrics, "guard": guard, **(shared or {})}
        checkpoints = self.checkpoints(saving, engines=engines, shared=shared)
        return Loop(checkpoints, metrics, guard, self.say)

    def checkpoints(
        self,
        settings: CheckpointArguments,
        *,
        engines: Mapping[str, Any] | None = None,
        shared: Mapping[str, Stateful],
        local: Mapping[str, Stateful] | None = None,
    ) -> Checkpoints:
        """This stage's checkpoints; what the arguments are, `Checkpoints` says."""
        return Checkpoints(
            self.folder / "checkpoints",
            settings,
            engines=engines or {},
            shared=shared,
            local=local,
            facts={"stage": self.name, "zero": self._identity.zero},
            step_minutes=self.run.step_timeout,
            say=self.say,
        )

    def say(self, text: str) -> None:
        """One line on the terminal, from rank 0."""
        if is_main():
            print(f"{self.name}: {text}", flush=True)

    def finish(
        self,
        facts: dict[str, Any],
        line: str,
        *,
        outputs: Sequence[Path] = (),
        checkpoints: Checkpoints | None = None,
    ) -> None:
        """Writes `result.json` (which marks the stage as done) and prints what was achieved.

        Args:
            outputs: what the stage has made for others; when it is gone, it is made again.
            checkpoints: of the stage, where it has some; they know what was spent before.
        """
        peak = max(gather_objects(self.memory.megabytes()))
        if is_main():
            earlier = checkpoints.earlier_seconds if checkpoints else 0.0
            seconds = round(earlier + time.time() - self.started, 1)
            result = {"seconds": seconds, **facts}
            if checkpoints:
                result["checkpoint_seconds"] = round(checkpoints.spent_seconds, 2)
            result["peak_megabytes"] = round(peak, 1)
            reserved = self.memory.reserved_megabytes()
            if reserved is not None:
                result["reserved_megabytes"] = round(reserved, 1)
            planned = self._planned()
            result["planned"] = planned
            result["outputs"] = movable([str(path) for path in outputs], self.root)
            result["changed_settings"] = self._changed_settings()
            result |= {"seed": self.run.seed, "versions": package_versions()}
            write_json(self.folder / "result.json", result)
            print(f"{self.name}: {line} ({seconds:.0f} s)", flush=True)
            if planned:
                print(
                    f"{self.name}: peak memory {peak:.0f} MB of a rank above the imports, planned "
                    f"{planned['megabytes']:.0f} MB (in {planned['phase']})",
                    flush=True,
                )
            self._report()
            self.publish()

    def publish(self) -> None:
        """Uploads what the finished stage made, where that is asked for. For rank 0."""
        if not self.run.push_to_hub:
            return
        for folder in map(Path, outputs_of(self.folder, self.root)):
            if (folder / "README.md").is_file():  # models; not samples, pairs
                hub_name = f"{self.run.hub_name}-{folder.name}"
                self.say(push(folder, hub_name, private=self.run.hub_private))

    def _report(self) -> None:
        """Writes the run's report anew, which is no reason for a run that is done to fail."""
        from common.evaluation.report import write_report  # needed once, at the end
        from common.evaluation.run_files import STAGES

        if self.name not in STAGES:
            return
        try:
            write_report(self.root)
        except Exception as error:
            self.say(f"no report: {type(error).__name__}: {error}")

    def _changed_settings(self) -> dict[str, Any]:
        """The settings that are not at their defaults, in their order."""
        defaults = json.loads(json.dumps(self.defaults))
        settings = json.loads(json.dumps(movable(self.binding, self.root)))
        return {n: v for n, v in settings.items() if n != "seed" and defaults.get(n) != v}

    def _planned(self) -> dict[str, Any] | None:
        """Peak and time by the stage's plan, which is no reason for a run that is done to fail."""
        if self.plan is None:
            return None
        try:
            plan = self.plan()
        except Exception as error:
            self.say(f"no plan to compare with: {type(error).__name__}: {error}")
            return None
        seconds = plan.seconds
        return {
            "megabytes": round(plan.peak / 2**20, 1),
            "phase": plan.worst,
            "phases": {n: round(size / 2**20, 1) for n, size in plan.totals.items()},
            "seconds": None if seconds is None else round(seconds, 1),
        }

    def _note_settings(self) -> None:
        if is_main():
            text = yaml.safe_dump(self.settings, sort_keys=False, allow_unicode=True)
            write_text(self.folder / "config.yaml", text)

    def _begin(self, inputs: Sequence[str]) -> Identity:
        """What `begin` does on rank 0."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lock = take_lock(self.folder / ".lock")
        # Compared as they stand in the file: through JSON tuples become lists.
        settings = json.loads(json.dumps(movable(self.binding, self.root)))
        now = Identity(settings, content_hashes(inputs, self.root), environment())
        before = read_identity(self.folder)
        done = (self.folder / "result.json").is_file()
        something = done or bool(labels(self.folder / "checkpoints"))
        something |= (self.folder / PIECES).is_dir()
        if self.run.fresh or not something:
            start_over(self.folder)
            write_identity(self.folder, now)
            return now
        if before is None:
            raise UserError(
                f"{self.folder}: this stage has a result or checkpoints, but {RECORD}, which says "
                "what it was begun with, is missing or cannot be read; to start it over, "
                f"{how_to_start_over(self.name)}"
            )
        found = differences(before, now, json.loads(json.dumps(self.defaults)))
        refused = [d for d in found if d.name not in self.run.allow_changes]
        self._allowed = [d for d in found if d not in refused]
        if refused and self._reruns(refused, done):
            self.say(f"done again, because {'; '.join(map(str, refused))}")
            start_over(self.folder, pieces=False)
            write_identity(self.folder, now)
            return now
        if refused:
            self._refuse(refused, done)
        if done and not found:
            gone = missing_outputs(self.folder, self.root)
            if not gone:
                raise Finished(", ".join(outputs_of(self.folder, self.root)))
            self.say(f"done again, because {', '.join(gone)} is gone")
        (self.folder / "result.json").unlink(missing_ok=True)
        changed = [n for n in now.environment if now.environment[n] != before.environment.get(n)]
        if changed:
            what = ", ".join(
                f"{n} {before.environment.get(n)} (now {now.environment[n]})" for n in changed
            )
            self.say(f"begun with {what}: goes on, but roundings may differ")
        kept = replace(now, zero=before.zero, id=before.id, examples=before.examples)
        write_identity(self.folder, kept)
        return kept

    def _bind_examples(self, parts: Mapping[str, str], follows: Collection[str]) -> None:
        """What `bind_examples` does on rank 0."""
        begun = self._identity
        self._identity = replace(begun, examples=dict(parts))
        goes_on = bool(labels(self.folder / "checkpoints"))
        found = other_examples(begun.examples, parts) if goes_on else []
        causes = {INPUTS, EXAMPLES, *follows}
        wanted = EXAMPLES in self.run.allow_changes or any(d.name in causes for d in self._allowed)
        if found and not wanted:
            if not self._reruns(found, done=False):
                self._refuse(found, done=False)
            self.say(f"done again, because {'; '.join(map(str, found))}")
            start_over(self.folder)
        write_identity(self.folder, self._identity)

    def _reruns(self, refused: Sequence[Difference], done: bool) -> bool:
        only_inputs = all(d.name in (INPUTS, EXAMPLES) for d in refused)
        return self.run.on_change == "rerun" and (done or only_inputs)

    def _refuse(self, refused: Sequence[Difference], done: bool) -> None:
        names = " ".join(dict.fromkeys(d.name for d in refused))
        state = "was done" if done else "was begun, and has done part of its work,"
        raise UserError(
            f"{self.folder}: this stage {state} with other settings, inputs or examples: "
            f"{'; '.join(map(str, refused))}. To go on all the same, --allow_changes {names} (in a "
            "pipeline file, allow_changes in its section); to start it over and lose what it has "
            f"done, {how_to_start_over(self.name)}; or choose another --run"
        )
