"""What goes wrong while a run looks well: found after every step, acted on, noted.

Loss and reward curves look alike in good runs and in collapsed ones. Each check here is a pure
function of a step's metrics and a short history; what follows from it is a setting.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from common.config.arguments import check_range, option
from common.errors import UserError

Action = Literal["ignore", "warn", "rollback", "stop"]
"""`rollback`: go back to the last checkpoint, and on from there with lower learning rates."""

NORMS = ("train/grad_norm", "policy/grad_norm", "value/grad_norm")
HISTORY = 50
"""Steps whose gradient norms are remembered."""
ENOUGH = 20
"""Of these, so many make a history."""
EVALUATIONS = 4
"""In a row, for a trend."""


@dataclass
class GuardArguments:
    """What is done about a run that goes wrong. Everything found is also in the report."""

    on_not_finite: Literal["rollback", "stop"] = option(
        "stop", "when a loss or a gradient is NaN or infinite"
    )
    on_gradient: Action = option("warn", "when a gradient norm is far outside its history")
    gradient_factor: float = option(20.0, "times the median of the last 50 norms is far outside")
    on_kl: Action = option("warn", "when the KL to the reference is above kl_limit")
    kl_limit: float = option(30.0, "nats per sequence")
    on_entropy: Action = option("warn", "when the policy's entropy is below entropy_floor")
    entropy_floor: float = option(0.01, "nats per token; at 0 the policy explores nothing")
    on_no_end: Action = option("warn", "when fewer responses than end_floor end by themselves")
    end_floor: float = option(0.05, "share of the responses of a rollout")
    on_divergence: Action = option(
        "warn",
        "when over four evaluations training gets better and each held-out score is worse than "
        "the one before it: a reward model that is gamed, or examples learned by heart",
    )
    rollbacks: int = option(2, "rollbacks of a run at most; then it stops")
    rollback_rate: float = option(0.5, "factor on the learning rates at each rollback")

    def __post_init__(self) -> None:
        check_range(self, 1, "gradient_factor", above=True)
        check_range(self, 0, "kl_limit", "rollback_rate", above=True)
        check_range(self, 0, "entropy_floor", "end_floor", "rollbacks")
        if self.rollback_rate > 1:
            raise UserError(f"rollback_rate is {self.rollback_rate}, but must be at most 1")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong after a step."""

    name: str
    text: str
    action: Action
    setting: str
    """Whose value the action is."""


class Guard:
    """The checks, their histories, and what is done; part of a checkpoint."""

    def __init__(self, settings: GuardArguments) -> None:
        self.settings = settings
        self.norms: dict[str, list[float]] = {}
        """The last norms of each gradient."""
        self.trend: list[list[float]] = []
        """[training, held out] at the last evaluations; higher is better."""
        self.present: list[str] = []
        """Faults of the last step: each is told when it comes, not at every step that it stays."""

    def faults(self, values: Mapping[str, float]) -> list[Fault]:
        """What is wrong after a step, by its metrics; they join the history."""
        s = self.settings
        found = [*self._gradients(values)]
        kl = values.get("kl/sequence_k1")
        if kl is not None and kl > s.kl_limit:
            text = f"the KL to the reference is {kl:.1f} nats a sequence, over {s.kl_limit:g}"
            found.append(Fault("kl", text, s.on_kl, "on_kl"))
        entropy = values.get("policy/entropy")
        if entropy is not None and entropy < s.entropy_floor:
            text = f"the policy's entropy is {entropy:.4f} nats a token, under {s.entropy_floor:g}"
            found.append(Fault("entropy", text, s.on_entropy, "on_entropy"))
        ended = values.get("response/eos_rate")
        if ended is not None and ended < s.end_floor:
            text = f"{ended:.1%} of the responses end by themselves, under {s.end_floor:.0%}"
            found.append(Fault("no end", text, s.on_no_end, "on_no_end"))
        found += self._divergence(values)
        return [fault for fault in found if fault.action != "ignore"]

    def state_dict(self) -> dict[str, Any]:
        """The histories."""
        return {"norms": self.norms, "trend": self.trend, "present": self.present}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        self.norms, self.trend, self.present = state["norms"], state["trend"], state["present"]

    def _gradients(self, values: Mapping[str, float]) -> Iterator[Fault]:
        for name in NORMS:
            norm = values.get(name, 0.0)
            if norm <= 0.0:  # not trained in this step
                continue
            history = self.norms.setdefault(name, [])
            usual = median(history) if len(history) >= ENOUGH else norm
            if norm > self.settings.gradient_factor * usual:
                text = f"{name} is {norm:.3g}, {norm / usual:.0f} times its median of {usual:.3g}"
                yield Fault(f"gradient {name}", text, self.settings.on_gradient, "on_gradient")
            history.append(norm)
            del history[:-HISTORY]

    def _divergence(self, values: Mapping[str, float]) -> Iterator[Fault]:
        pair = training_and_held_out(values)
        if pair is None:
            return
        self.trend.append(list(pair))
        del self.trend[:-EVALUATIONS]
        if len(self.trend) < EVALUATIONS:
            return
        training, held_out = zip(*self.trend, strict=True)
        worse = all(b < a for a, b in zip(held_out, held_out[1:], strict=False))
        if worse and training[-1] > training[0]:
            text = (
                f"over {EVALUATIONS} evaluations training got better ({training[0]:.3g} to "
                f"{training[-1]:.3g}) while the held-out score fell each time "
                f"({held_out[0]:.3g} to {held_out[-1]:.3g})"
            )
            yield Fault("divergence", text, self.settings.on_divergence, "on_divergence")


def training_and_held_out(values: Mapping[str, float]) -> tuple[float, float] | None:
    """A step's two scores, higher is better; None where nothing was evaluated."""
    loss = held_out_loss(values)
    if loss is None:
        return None
    training = values["reward/score"] if "reward/score" in values else -values["train/loss"]
    return training, -loss


def held_out_loss(values: Mapping[str, float]) -> float | None:
    """What checkpoints are compared by: lower is better; None where nothing was evaluated."""
    if "eval/loss" in values:
        return values["eval/loss"]
    score = values.get("eval/overall", values.get("eval/score"))
    return None if score is None else -score
