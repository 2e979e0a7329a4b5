"""What a run that goes wrong shows, each check at its limit; and going back with lower rates."""

import math

import pytest
import torch

from common.config.arguments import OptimizerArguments
from common.errors import NotFinite, UserError
from common.training.engine import build_engine, gathered_parameters, optimizer_step
from common.training.guard import Guard, GuardArguments, Recovery
from common.training.resume.checkpoints import CheckpointArguments, Checkpoints
from common.training.resume.folders import labels
from tests.ranks import run_ranks


def names(guard: Guard, **values: float) -> list[str]:
    """Of what is found; `__` in a name stands for a slash."""
    return [f.name for f in guard.faults({k.replace("__", "/"): v for k, v in values.items()})]


def guard(**settings) -> Guard:
    return Guard(GuardArguments(**settings))


@pytest.mark.parametrize(
    ("metric", "good", "bad", "name"),
    [
        ("kl__sequence_k1", 30.0, 30.1, "kl"),
        ("policy__entropy", 0.01, 0.009, "entropy"),
        ("response__eos_rate", 0.05, 0.04, "no end"),
    ],
)
def test_a_number_beyond_its_limit(metric, good, bad, name):
    assert names(guard(), **{metric: good}) == []
    assert names(guard(), **{metric: bad}) == [name]
    setting = "on_" + name.replace(" ", "_")
    assert names(guard(**{setting: "ignore"}), **{metric: bad}) == []
    (fault,) = guard(**{setting: "stop"}).faults({metric.replace("__", "/"): bad})
    assert (fault.action, fault.setting) == ("stop", setting)


def test_a_gradient_far_outside_its_history():
    made = guard()
    for i in range(19):
        assert names(made, train__grad_norm=1.0 + i % 3) == []
    assert names(made, train__grad_norm=1000.0) == [], "19 are no history"
    assert names(made, train__grad_norm=39.0) == []  # 20 times the median of 2 is 40
    assert names(made, train__grad_norm=41.0) == ["gradient train/grad_norm"]


def test_a_gradient_that_stays_large_becomes_usual():
    made = guard()
    for _ in range(50):
        names(made, policy__grad_norm=1.0)
    found = [names(made, policy__grad_norm=100.0) for _ in range(50)]
    assert found[:25] == [["gradient policy/grad_norm"]] * 25 and found[-1] == []


def test_each_gradient_has_its_history_and_an_idle_one_none():
    made = guard()
    for _ in range(30):
        names(made, policy__grad_norm=0.0, value__grad_norm=1.0)
    assert names(made, policy__grad_norm=50.0, value__grad_norm=50.0) == [
        "gradient value/grad_norm"
    ]


def evaluated(made: Guard, training, held_out):
    pairs = zip(training, held_out, strict=True)
    return [names(made, reward__score=t, eval__score=h) for t, h in pairs]


def test_reward_up_while_the_held_out_score_is_down():
    assert evaluated(guard(), (1, 2, 3, 4), (9, 8, 7, 6)) == [[], [], [], ["divergence"]]


@pytest.mark.parametrize(
    ("training", "held_out"),
    [
        ((1, 2, 3, 4), (9, 8, 7, 7)),  # one that does not fall
        ((4, 3, 2, 1), (9, 8, 7, 6)),  # training gets worse, too: no sign of a gamed reward
        ((1, 2, 3), (9, 8, 7)),
    ],
)
def test_no_divergence(training, held_out):
    assert not any(evaluated(guard(), training, held_out))


def test_examples_learned_by_heart():
    made, found = guard(), []
    for train, held in ((4.0, 1.0), (3.0, 1.1), (2.0, 1.2), (1.0, 1.3)):
        found.append(names(made, train__loss=train, eval__loss=held))
    assert found[-1] == ["divergence"]


def test_a_rubric_counts_before_the_reward_model():
    made, found = guard(), []
    for score, overall in ((1, 80), (2, 79), (3, 78), (4, 77)):
        found.append(names(made, reward__score=score, eval__score=score, eval__overall=overall))
    assert found[-1] == ["divergence"]


def test_histories_are_part_of_a_checkpoint():
    one, two = guard(), guard()
    for _ in range(30):
        names(one, train__grad_norm=1.0)
    two.load_state_dict(one.state_dict())
    assert names(two, train__grad_norm=30.0) == ["gradient train/grad_norm"]


class Files:
    """Stands for the metrics files."""

    def __init__(self) -> None:
        self.events: list[dict] = []

    def event(self, step: int, **facts) -> None:
        self.events.append({"step": step, **facts})


def recovery(tmp_path, made: Guard):
    checkpoints = Checkpoints(
        tmp_path, CheckpointArguments(checkpoint_minutes=0), engines={}, shared={"guard": made}
    )
    files, said = Files(), []
    return Recovery(made, checkpoints, files, said.append), files, said


def test_a_warning_is_told_when_it_comes_and_not_while_it_stays(tmp_path):
    watch, files, said = recovery(tmp_path, guard())
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
    watch, files, _ = recovery(tmp_path, guard(on_entropy="stop"))
    with pytest.raises(UserError, match="entropy is 0.0010 .* after step 7.*--on_entropy warn"):
        watch.check(7, {"policy/entropy": 0.001})
    assert files.events[0]["action"] == "stopped"


def test_not_finite_stops_unless_set_otherwise(tmp_path):
    watch, _, _ = recovery(tmp_path, guard())
    with pytest.raises(NotFinite, match="the loss is nan"), watch.step(3):
        raise NotFinite("the loss is nan at step 3")


def test_without_a_checkpoint_there_is_no_way_back(tmp_path):
    watch, _, _ = recovery(tmp_path, guard(on_not_finite="rollback"))
    with pytest.raises(UserError, match="no checkpoint to go back to"), watch.step(1):
        raise NotFinite("the loss is nan at step 1")


def test_other_errors_pass(tmp_path):
    watch, _, _ = recovery(tmp_path, guard(on_not_finite="rollback"))
    with pytest.raises(UserError, match="^other$"), watch.step(1):
        raise UserError("other")


def descend(root, zero, poisoned):
    """A weight that moves by its learning rate at each step; from step 5 on a high rate is poison.

    Returns:
        the steps in the order in which they were done, weights after each, what was noted, and the
        names of the checkpoints.
    """

    class Toy(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(4))

        def forward(self) -> torch.Tensor:
            return self.weight.sum()

    settings = OptimizerArguments(
        learning_rate=0.5,
        lr_schedule="constant",
        warmup_ratio=0.0,
        batch_size=2,
        micro_batch_size=1,
    )
    done, weights, files = [], [], Files()
    engine = build_engine(Toy(), zero=zero, dtype=torch.float32, optimizer=settings, total_steps=8)
    made = Guard(GuardArguments(on_not_finite="rollback"))
    checkpoints = Checkpoints(
        root,
        CheckpointArguments(checkpoint_minutes=0, checkpoint_epochs=False, checkpoint_steps=2),
        engines={"toy": engine},
        shared={"guard": made},
    )
    watch = Recovery(made, checkpoints, files, lambda text: None)
    checkpoints.restore()

    def loss(step: int, factor: float) -> torch.Tensor:
        high = engine.get_lr()[0] > 0.3
        # One micro-batch is fine: its gradients must not outlive the way back.
        return -engine() * (factor if poisoned and high and step >= 5 else 1.0)

    def check(total: torch.Tensor) -> None:
        if not math.isfinite(float(total)):
            raise NotFinite("the loss is nan")

    while checkpoints.step < 8:
        step = checkpoints.step + 1
        with watch.step(step):
            losses = [lambda s=step, f=f: loss(s, f) for f in (1.0, math.nan)]
            optimizer_step(engine, losses, 2.0, f"step {step}", check)
            with gathered_parameters(engine.module):
                weights.append(float(engine.module.weight[0]))
            done.append(step)
            checkpoints.after(step, {})
    checkpoints.wait()
    return done, weights, files.events, [str(x) for x in labels(root)]


def on_stages(root):
    """By ZeRO stage, in one process: a run that goes back, and rates that outlive a kill."""
    return {
        zero: (descend(root / zero, zero, True), slower(root / f"slower_{zero}", zero))
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


def slower(root, zero):
    """Weights of a run whose rates were halved after step 4, once live and once after a kill."""
    found = []
    settings = OptimizerArguments(
        learning_rate=0.5,
        lr_schedule="linear",
        warmup_ratio=0.0,
        batch_size=1,
        micro_batch_size=1,
    )

    def build(folder):
        linear = torch.nn.Linear(2, 1)
        engine = build_engine(
            linear, zero=zero, dtype=torch.float32, optimizer=settings, total_steps=8
        )
        quiet = CheckpointArguments(checkpoint_minutes=0, checkpoint_epochs=False)
        return engine, Checkpoints(folder, quiet, engines={"m": engine}, shared={})

    def steps(engine, count):
        rates = []
        for _ in range(count):
            rates.append(engine.get_lr()[0])
            engine.backward(engine(torch.ones(1, 2)).sum())
            engine.step()
        return rates

    for name, killed in (("live", False), ("killed", True)):
        engine, checkpoints = build(root / name)
        checkpoints.restore()
        rates = steps(engine, 4)
        checkpoints.step = 4
        checkpoints.save()
        steps(engine, 1)
        assert checkpoints.roll_back(0.5)
        checkpoints.save()
        checkpoints.wait()
        if killed:
            engine, checkpoints = build(root / name)
            assert checkpoints.restore() == 4 and checkpoints.retries == 1
        rates += steps(engine, 4)
        found.append((rates, [str(x) for x in labels(root / name)]))
    return found


@pytest.mark.parametrize("zero", ["0", "2", "3"])
def test_lower_rates_outlive_a_kill(by_stage, zero):
    live, killed = by_stage[zero][1]
    expected = [0.5 * (1 - i / 8) for i in range(4)] + [0.25 * (1 - i / 8) for i in range(4, 8)]
    for rates, left in (live, killed):
        assert rates == pytest.approx(expected, rel=1e-4)
        assert left == ["step_00000004", "step_00000004_retry_1"]
