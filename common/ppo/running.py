"""Mean and deviation of all raw scores so far, for rewards that are scaled as training goes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from common.training.distributed import all_reduce_sum


class RunningMoments:
    """Of every score since the first rollout, over all ranks; part of a checkpoint.

    The reward model's scores drift away from those of its reference responses as the policy gets
    better. Scaled by what has been seen, they keep their spread (Zheng et al. 2023, "Secrets of
    RLHF", https://arxiv.org/abs/2307.04964, §5.2). Rollouts are put together as in Chan et al.
    1983: no score is kept.
    """

    def __init__(self) -> None:
        self.count = 0.0
        self.mean = 0.0
        self.squares = 0.0
        """Sum of squared distances from the mean."""

    @property
    def std(self) -> float:
        """The population deviation; 1 where it is 0."""
        variance = self.squares / max(self.count, 1.0)
        return variance**0.5 if variance > 0.0 else 1.0

    def update(self, scores: Tensor) -> tuple[float, float]:
        """Takes in a rollout's scores; returns mean and deviation with them. A collective.

        Args:
            scores: `[finished]`, of this rank; perhaps none. A reward model has seen finished
                responses only, and the score of a cut one does not count.
        """
        own = scores.double()
        count, total = all_reduce_sum(torch.stack([own.new_tensor(len(own)), own.sum()])).tolist()
        if count == 0.0:
            return self.mean, self.std
        mean = total / count
        squares = float(all_reduce_sum(((own - mean) ** 2).sum().reshape(1))[0])
        apart = mean - self.mean
        both = self.count + count
        self.squares += squares + apart**2 * self.count * count / both
        self.mean += apart * count / both
        self.count = both
        return self.mean, self.std

    def state_dict(self) -> dict[str, float]:
        """Everything."""
        return {"count": self.count, "mean": self.mean, "squares": self.squares}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Takes back what `state_dict` gave."""
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]


@dataclass
class Scale:
    """How the raw scores of one source count: weight × (score − mean) / deviation."""

    mean: float = 0.0
    std: float = 1.0
    weight: float = 1.0
    moments: RunningMoments | None = None
    """Of all rollouts so far, in place of the fixed mean and deviation. Held-out responses are
    scored by the fixed ones all the same, so that evaluations can be compared."""

    def of_rollout(self, scores: Tensor) -> tuple[float, float]:
        """Mean and deviation for a rollout's finished scores. A collective with moments."""
        return self.moments.update(scores) if self.moments else (self.mean, self.std)
