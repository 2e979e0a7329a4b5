"""Stops a training whose held-out accuracy no longer rises, and goes back to its best weights."""

from collections.abc import Callable, Mapping
from typing import Any

from common.training.average import WeightAverage


class EarlyStop:
    """Notes the best evaluation and its weights; part of a checkpoint.

    An evaluation is better with a higher "eval/accuracy" or, at the same one, a lower "eval/loss":
    few held-out pairs often tie. Metrics are equal on all ranks, so all decide alike.
    """

    def __init__(self, engine: Any, patience: int) -> None:
        """Args:
        engine: DeepSpeed's.
        patience: evaluations in a row without a better one after which the training ends.
        """
        self.patience = patience
        self.step = 0
        """After which the best evaluation was made; 0 before the first."""
        self.waited = 0
        """Evaluations since."""
        self._best: tuple[float, float] | None = None
        self._weights = WeightAverage(engine, decay=0.0)  # an update takes all of the new weights

    def see(self, values: Mapping[str, float], step: int) -> None:
        """Takes in an evaluation after `step`. A collective."""
        found = values["eval/accuracy"], -values["eval/loss"]
        if self._best is None or found > self._best:
            self._best, self.step, self.waited = found, step, 0
            self._weights.update()
        else:
            self.waited += 1

    @property
    def ended(self) -> bool:
        """Whether no further step is to be taken."""
        return self.waited >= self.patience

    def go_back(self, say: Callable[[str], None]) -> None:
        """Gives the model the best weights, after the last step. A collective.

        Args:
            say: prints a line.
        """
        if self._best is None:
            return
        if self.waited:
            end = f"; {self.waited} evaluations after it were no better"
            say(f"best held-out accuracy {self._best[0]:.3f} after step {self.step}{end}")
        self._weights.install()

    def state_dict(self) -> dict[str, Any]:
        """With the best weights, whole, on the first rank. A collective."""
        best = None if self._best is None else list(self._best)
        state = {"step": self.step, "waited": self.waited, "best": best}
        return state | self._weights.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.step, self.waited = state["step"], state["waited"]
        self._best = None if state["best"] is None else tuple(state["best"])
        self._weights.load_state_dict(state)
