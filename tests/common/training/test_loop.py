"""Steps to the last one: faults acted on and told, going back with lower rates."""

import math

import pytest
import torch

from common.config.arguments import OptimizerArguments, ZeroArguments
from common.errors import NotFinite, UserError
from common.training.engine import build_engine, gathered_parameters, optimizer_step
from common.training.guard import Guard, GuardArguments
from common.training.loop import Loop
from common.training.resume.arguments import CheckpointArguments
from common.training.resume.checkpoints import Checkpoints
from common.training.resume.folders import labels
from tests.ranks import run_ranks


def guard(**settings) -> Guard:
    return Guard(GuardArguments(**settings))


class Files:
    """Stands for the metrics files."""

    def __init__(self) -> None:
        self.events: list[dict] = []

    def write(self, step: int, values: dict) -> None:
        """Nobody reads them here."""

    def event(self, step: int, **facts) -> None:
        self.events.append({"step": step, **facts})


def loop_of(tmp_path, made: Guard):
    checkpoints = Checkpoints(
        tmp_path, CheckpointArguments(checkpoint_minutes=0), engines={}, shared={"guard": made}
    )
    files, said = Files(), []
    return Loop(checkpoints, files, made, said.append), files, said


def test_a_warning_is_told_when_it_comes_and_not_while_it_stays(tmp_path):
    watch, files, said = loop_of(tmp_path, guard())
    for step, kl in enumerate((1.0, 40.0, 41.0, 2.0, 50.0), start=1):
        watch.check(step, {"kl/sequence_k1": kl})
    assert [e["step"] for e in files.events] == [2, 5] and len(said) == 2
    assert files.events[0] == {
        "step": 2,
        "fault": "kl",
        "text": "the KL to the reference is 40.0 nats a sequence, over 30",
        "action": "went on",
    }


def test_stopping_says_what_and_which_setting(tmp_path):
    watch, files, _ = loop_of(tmp_path, guard(on_entropy="stop"))
    with pytest.raises(UserError, match="entropy is 0.0010 .* after step 7.*--on_entropy warn"):
        watch.check(7, {"policy/entropy": 0.001})
    assert files.events[0]["action"] == "stopped"


def test_not_finite_stops_unless_set_otherwise(tmp_path):
    watch, _, _ = loop_of(tmp_path, guard())
    with pytest.raises(NotFinite, match="the loss is nan"), watch.going_back(3):
        raise NotFinite("the loss is nan at step 3")


def test_without_a_checkpoint_there_is_no_way_back(tmp_path):
    watch, _, _ = loop_of(tmp_path, guard(on_not_finite="rollback"))
    with pytest.raises(UserError, match="no checkpoint to go back to"), watch.going_back(1):
        raise NotFinite("the loss is nan at step 1")


def test_other_errors_pass(tmp_path):
    watch, _, _ = loop_of(tmp_path, guard(on_not_finite="rollback"))
    with pytest.raises(UserError, match="^other$"), watch.going_back(1):
        raise UserError("other")


def settings_of(**changes) -> OptimizerArguments:
    given = {"learning_rate": 0.5, "warmup_ratio": 0.0, "batch_size": 2, "micro_batch_size": 1}
    return OptimizerArguments(**given | changes)


class Toy(torch.nn.Module):
    """One row of weights."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1, width))

    def forward(self) -> torch.Tensor:
        return self.weight.sum()


def descend(root, zero):
    """A weight that moves by its learning rate at each step; from step 5 on a high rate is poison.

    Returns:
        the steps in the order in which they were done, weights after each, what was noted, and the
        names of the checkpoints.
    """
    done, weights, files = [], [], Files()
    settings = settings_of(lr_schedule="constant")
    engine = build_engine(
        Toy(), zero=ZeroArguments(zero), dtype=torch.float32, optimizer=settings, total_steps=8
    )
    made = guard(on_not_finite="rollback")
    checkpoints = Checkpoints(
        root,
        CheckpointArguments(checkpoint_minutes=0, checkpoint_epochs=False, checkpoint_steps=2),
        engines={"toy": engine},
        shared={"guard": made},
    )

    def loss(step: int, factor: float) -> torch.Tensor:
        high = engine.get_lr()[0] > 0.3
        # One micro-batch is fine: its gradients must not outlive the way back.
        return -engine() * (factor if high and step >= 5 else 1.0)

    def check(total: torch.Tensor) -> None:
        if not math.isfinite(float(total)):
            raise NotFinite("the loss is nan")

    def take_step(step: int) -> dict[str, float]:
        losses = [lambda f=f: loss(step, f) for f in (1.0, math.nan)]
        optimizer_step(engine, losses, 2.0, f"step {step}", check)
        with gathered_parameters(engine.module):
            weights.append(float(engine.module.weight[0, 0]))
        done.append(step)
        return {}

    Loop(checkpoints, files, made, lambda text: None).run(
        8, take_step, title="", caption=str, ends_epoch=lambda step: False, shown=False
    )
    checkpoints.wait()
    return done, weights, files.events, [str(x) for x in labels(root)]


def on_stages(root):
    """By ZeRO stage, in one process."""
    return {
        zero: (
            descend(root / zero, zero),
            [slower(root / f"slower_{zero}_{again}", zero, again) for again in AGAIN],
        )
        for zero in ("0", "2", "3")
    }


@pytest.fixture(scope="module")
def by_stage(tmp_path_factory):
    [found] = run_ranks(on_stages, 1, tmp_path_factory.mktemp("guard"))
    return found


@pytest.mark.parametrize("zero", ["0", "2", "3"])
def test_going_back_lowers_the_rates(by_stage, zero):
    done, weights, events, left = by_stage[zero][0]
    # Adam moves a weight under a constant gradient by the rate: 0.5, and 0.25 after step 4.
    assert done == list(range(1, 9))
    expected = [0.5, 1.0, 1.5, 2.0, 2.25, 2.5, 2.75, 3.0]
    assert weights == pytest.approx(expected, abs=1e-3)
    assert events == [
        {
            "step": 5,
            "fault": "not finite",
            "text": "the loss is nan",
            "action": "went back to step 4, rates × 0.5",
        }
    ]
    assert left == ["step_00000006_retry_1", "step_00000008_retry_1"]


AGAIN = ("live", "killed", "killed and changed")


def slower(root, zero, again):
    """A run whose rates were halved after step 4, and which then went on.

    Returns:
        rates before each step, names of the checkpoints, and the settings of the optimizer.
    """

    def build(width=4, **changes):
        settings = settings_of(lr_schedule="linear", batch_size=1, **changes)
        engine = build_engine(
            Toy(width),
            zero=ZeroArguments(zero),
            dtype=torch.float32,
            optimizer=settings,
            total_steps=8,
        )
        quiet = CheckpointArguments(checkpoint_minutes=0, checkpoint_epochs=False)
        return engine, Checkpoints(root, quiet, engines={"toy": engine}, shared={})

    def steps(engine, count):
        rates = []
        for _ in range(count):
            rates.append(engine.get_lr()[0])
            engine.backward(engine())
            engine.step()
        return rates

    engine, checkpoints = build()
    checkpoints.restore()
    rates = steps(engine, 4)
    checkpoints.step = 4
    checkpoints.save()
    steps(engine, 1)
    assert checkpoints.roll_back(0.5)
    checkpoints.save()
    checkpoints.wait()
    if again != "live":
        _, other = build(width=5)
        with pytest.raises(UserError, match="4 weights of the toy were trained .* now 5 are"):
            other.restore()
        changes = {"learning_rate": 2.0, "weight_decay": 0.25, "max_grad_norm": 3.0}
        engine, checkpoints = build(**changes if "changed" in again else {})
        assert checkpoints.restore() == 4 and checkpoints.retries == 1
    rates += steps(engine, 4)
    [group] = engine.optimizer.param_groups
    clip = getattr(engine.optimizer, "clip_grad", engine.gradient_clipping())
    return rates, [str(x) for x in labels(root)], (group["weight_decay"], clip)


@pytest.mark.parametrize("zero", ["0", "2", "3"])
def test_lower_rates_outlive_a_kill(by_stage, zero):
    live, killed, _ = by_stage[zero][1]
    expected = [0.5 * (1 - i / 8) for i in range(4)] + [0.25 * (1 - i / 8) for i in range(4, 8)]
    for rates, left, settings in (live, killed):
        assert rates == pytest.approx(expected, rel=1e-4)
        assert left == ["step_00000004", "step_00000004_retry_1"]
        assert settings == (settings_of().weight_decay, settings_of().max_grad_norm)


@pytest.mark.parametrize("zero", ["0", "2", "3"])
def test_settings_that_may_change_are_those_of_the_new_command(by_stage, zero):
    rates, _, settings = by_stage[zero][1][AGAIN.index("killed and changed")]
    expected = [2.0 / 2 * (1 - i / 8) for i in range(4, 8)]
    assert rates[4:] == pytest.approx(expected, rel=1e-4)
    assert settings == (0.25, 3.0)
