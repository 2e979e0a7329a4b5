"""What a run that goes wrong shows, each check at its limit."""

import pytest

from common.training.guard import Guard, GuardArguments


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
