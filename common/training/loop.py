"""What is around a training step in every stage: progress, metrics, faults, checkpoints."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any

from common.errors import NotFinite, UserError
from common.training.guard import Guard, held_out_loss
from common.training.metrics import MetricsWriter, progress_bar
from common.training.resume.checkpoints import Checkpoints


class GoBack(Exception):
    """The run is to go back to its last checkpoint."""


class Unsaved:
    """Stands for `Checkpoints` where a training is not to be resumed."""

    def __init__(self) -> None:
        self.step = 0
        self.values: dict[str, float] = {}
        self.retries = 0

    def restore(self) -> int:
        """Nothing is done yet."""
        return 0

    def after(self, step: int, values: dict[str, float], **facts: Any) -> None:  # noqa: ANN401
        """Remembers the step's metrics."""
        self.step, self.values = step, dict(values)

    def roll_back(self, factor: float) -> bool:
        """There is nothing to go back to."""
        return False


class Loop:
    """Steps from where the run was left to the last one; a context manager.

    Faults that its guard finds are acted on as set, and noted among the run's events.
    """

    def __init__(
        self,
        checkpoints: Checkpoints | Unsaved,
        metrics: MetricsWriter,
        guard: Guard,
        say: Callable[[str], None] = print,
    ) -> None:
        self.checkpoints = checkpoints
        self.metrics = metrics
        self.guard = guard
        self.say = say
        self._open = contextlib.ExitStack()

    def run(
        self,
        total: int,
        take_step: Callable[[int], dict[str, float]],
        *,
        title: str,
        caption: Callable[[dict[str, float]], str],
        ends_epoch: Callable[[int], bool],
        ended: Callable[[], bool] = lambda: False,
        shown: bool = True,
    ) -> dict[str, float]:
        """Takes all steps that are not done yet. A collective.

        Args:
            total: steps of the whole training.
            take_step: takes a step, counted from 1, and returns its metrics, equal on all ranks;
                those of an evaluation after it are "eval/…".
            title: of the progress bar; caption: what it says of a step's metrics.
            ends_epoch: whether a pass over the data ends with a step.
            ended: whether the step that is done was the last before its time; equal on all ranks.

        Returns:
            the metrics of the last step.

        Raises:
            NotFinite: a loss or gradient is NaN or infinite, and the run is not to go back.
            Stopped: somebody asked for it.
            UserError: the run is to stop, or could not go back.
        """
        points = self.checkpoints
        with progress_bar(total, title, done=points.restore(), shown=shown) as bar:
            while points.step < total and not ended():
                step = points.step + 1
                with self.going_back(step):
                    values = take_step(step)
                    self.metrics.write(step, values)
                    self.check(step, values)
                    bar.set_postfix_str(caption(values), refresh=False)
                    points.after(
                        step,
                        values,
                        epoch_ended=ends_epoch(step),
                        loss=held_out_loss(values),
                        last=step == total or ended(),
                    )
                bar.update(points.step - bar.n)
        return points.values

    def check(self, step: int, values: Mapping[str, float]) -> None:
        """Looks at a step's metrics, which are equal on all ranks, and does what is set.

        Raises:
            GoBack: to the last checkpoint; `going_back` takes care of it.
            UserError: the run is to stop.
        """
        found = self.guard.faults(values)
        for fault in found:
            if fault.action == "stop":
                self._note(step, fault.name, fault.text, "stopped")
                raise UserError(
                    f"{fault.text}, after step {step}. Change a setting and name it in "
                    "--allow_changes to go on from the last checkpoint; to go on unchanged, "
                    f"--{fault.setting} warn --allow_changes {fault.setting}"
                )
            if fault.action == "rollback":
                raise GoBack(fault.name, fault.text)
            if fault.name not in self.guard.present:
                self._note(step, fault.name, fault.text, "went on")
        self.guard.present = [fault.name for fault in found]

    @contextlib.contextmanager
    def going_back(self, step: int) -> Iterator[None]:
        """Around a step: where it fails and the settings say so, the run goes back. A collective.

        Raises:
            UserError: the step failed, and going back is not possible or did not help.
        """
        try:
            yield
        except (NotFinite, GoBack) as error:
            s = self.guard.settings
            name, text = ("not finite", str(error)) if isinstance(error, NotFinite) else error.args
            if isinstance(error, NotFinite) and s.on_not_finite == "stop":
                raise
            if self.checkpoints.retries >= s.rollbacks:
                raise UserError(f"{text}. The run went back {s.rollbacks} times already") from None
            if not self.checkpoints.roll_back(s.rollback_rate):
                raise UserError(f"{text}. There is no checkpoint to go back to") from None
            back = self.checkpoints.step
            self._note(step, name, text, f"went back to step {back}, rates × {s.rollback_rate:g}")
            self.checkpoints.save()

    def _note(self, step: int, name: str, text: str, action: str) -> None:
        self.say(f"step {step}: {text}; {action}")
        self.metrics.event(step, fault=name, text=text, action=action)

    def __enter__(self) -> "Loop":
        for part in (self.metrics, self.checkpoints):
            self._open.enter_context(part)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.__exit__(kind, error, trace)
