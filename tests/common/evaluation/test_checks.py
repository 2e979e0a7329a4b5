"""Each check falls ill when its number crosses the limit, and only then."""

import copy
from pathlib import Path

import pytest

from common.evaluation.diagnosis import diagnose
from tests.common.evaluation.extract import restore
from tests.common.evaluation.test_diagnosis import curve, ill

NEAR = 0.02
"""Values this share inside and outside of a limit are tried."""


@pytest.fixture(scope="module")
def real():
    return restore(Path(__file__).parent / "extracts" / "healthy.json")


@pytest.fixture
def healthy(real):
    return copy.deepcopy(real)


def put(tree, path, value):
    *above, last = path.split("/")
    for key in above:
        tree = tree[key]
    assert last in tree
    tree[last] = value


def both(path, value):
    """The same number of both splits in the domain."""
    return [(path.replace("SPLIT", name), value) for name in ("seen", "unseen")]


REWARD = "stages/reward"
FOUND = f"{REWARD}/diagnostics"


@pytest.mark.parametrize(
    ("name", "limit", "fine_below", "path"),
    [
        ("sft: held-out score of SFT", 50.0, False, "evaluation/SPLIT/sft/overall"),
        ("sft: answers that end", 0.95, False, "evaluation/SPLIT/sft/eos_rate"),
        ("sft: repeated text", 0.2, True, "evaluation/SPLIT/sft/repeats"),
        ("sft: samples alike", 0.6 * 35526, True, "stages/sample/repeated"),
        ("reward: held-out pairs", 0.5, False, f"{FOUND}/accuracy/ci95"),
        ("reward: against length alone", 0.0, False, f"{FOUND}/length_only/model_minus/ci95"),
        (
            "reward: against the labelers' agreement",
            0.5 + 0.7 * 0.4908,
            False,
            f"{REWARD}/accuracy",
        ),
        ("reward: calibration", 0.1, True, f"{FOUND}/calibration/error_after_on_half"),
        ("reward: calibration", 0.688, True, f"{FOUND}/calibration/nats_after_on_half"),
        ("reward: right minus wrong", 1.5, False, f"{REWARD}/right_minus_wrong"),
        ("reward: length in the score", 0.4, True, f"{FOUND}/length/given_rank"),
        ("reward: length in the score", -0.4, False, f"{FOUND}/length/given_rank"),
        ("reward: agreement with the judge", 0.65, False, "evaluation/SPLIT/sft/reward_agrees"),
        ("reward: agreement with the judge", 0.5, False, "evaluation/SPLIT/rlhf/reward_agrees"),
        ("rlhf: KL to the SFT model", 6.0, True, "stages/rlhf/kl_per_sequence"),
        ("rlhf: KL to the SFT model", 0.05, False, "stages/rlhf/kl_per_sequence"),
        ("rlhf: answers that end", 0.95, False, "evaluation/SPLIT/rlhf/eos_rate"),
        ("rlhf: repeated text", 0.2, True, "evaluation/SPLIT/rlhf/repeats"),
        ("rlhf: prompts it got worse on", 2 * 9.0, True, "evaluation/seen/rlhf_losses"),
        ("rlhf: general ability", -2.0, False, "evaluation/general/difference/mean"),
    ],
)
def test_a_number_beyond_its_limit_is_ill(healthy, name, limit, fine_below, path):
    summary, metrics = healthy
    step = NEAR * (abs(limit) or 1.0)
    for value in (limit - step, limit + step):
        written = [value, value + 0.1] if path.endswith("ci95") else value
        if path.endswith("losses"):  # of 200 + 200 prompts, in which one split has all
            written = round(60 * value / limit)
            for key, number in (("rlhf_losses", 0), ("rlhf_wins", 200), ("ties", 0)):
                put(summary, f"evaluation/unseen/{key}", number)
            for key, number in (("rlhf_wins", 200 - written), ("ties", 0)):
                put(summary, f"evaluation/seen/{key}", number)
        for place, number in both(path, written):
            put(summary, place, number)
        expected = [] if (value < limit) == fine_below else [tuple(name.split(": "))]
        assert ill(diagnose(summary, metrics)) == expected


@pytest.mark.parametrize(
    ("name", "stage", "curves", "fine"),
    [
        ("held-out loss", "sft", {"eval/loss": [2.99, 2.98]}, True),
        ("held-out loss", "sft", {"eval/loss": [3.02, 3.01]}, False),
        ("held-out loss", "sft", {"train/loss": [2.0, 1.0], "eval/loss": [1.99, 1.99]}, False),
        ("held-out loss", "sft", {"train/loss": [2.0, 1.0], "eval/loss": [1.97, 1.97]}, True),
        ("loss at the end", "sft", {"eval/loss": [2.0, 1.0, 0.89]}, False),
        ("loss at the end", "sft", {"eval/loss": [2.0, 1.0, 0.91]}, True),
        ("loss at the end", "sft", {"eval/loss": [0.5, 0.7]}, True),
        (
            "loss at the end",
            "sft",
            {"eval/loss": [0.7], "train/loss": [4, 3, 2, 1, 1, 1, 0.8, 0.8]},
            False,
        ),
        (
            "loss at the end",
            "sft",
            {"eval/loss": [0.7], "train/loss": [4, 3, 2, 1, 1, 1, 0.95, 0.95]},
            True,
        ),
        ("reward", "rlhf", {"reward/score": [0.0, 0.19]}, False),
        ("reward", "rlhf", {"reward/score": [0.0, 0.21]}, True),
        ("clip fraction", "rlhf", {"policy/clip_fraction": [0.21, 0.0]}, False),
        ("clip fraction", "rlhf", {"policy/clip_fraction": [0.19, 0.0]}, True),
        ("size of a step", "rlhf", {"policy/approx_kl": [0.11, 0.0]}, False),
        ("size of a step", "rlhf", {"policy/approx_kl": [0.09, 0.0]}, True),
        ("entropy", "rlhf", {"policy/entropy": [1.0, 0.09]}, False),
        ("entropy", "rlhf", {"policy/entropy": [1.0, 0.11]}, True),
        ("entropy", "rlhf", {"policy/entropy": [0.05, 0.009]}, False),
        ("entropy", "rlhf", {"policy/entropy": [1.0, 3.1]}, False),
        ("length", "rlhf", {"response/length": [20, 41]}, False),
        ("length", "rlhf", {"response/length": [20, 39]}, True),
        ("length", "rlhf", {"response/length": [20, 9]}, False),
        ("critic", "rlhf", {"value/explained_variance": [0.9, -0.1]}, False),
        ("critic", "rlhf", {"value/explained_variance": [-0.9, 0.1]}, True),
        ("sampler against training", "rlhf", {"rollout/logprob_gap": [0.11, 0.0]}, False),
        ("sampler against training", "rlhf", {"rollout/logprob_gap": [0.09, 0.0]}, True),
        (
            "reward up, judge down",
            "rlhf",
            {"eval/overall": [60, 80, 74], "eval/score": [0, 1, 2]},
            False,
        ),
        (
            "reward up, judge down",
            "rlhf",
            {"eval/overall": [60, 80, 76], "eval/score": [0, 1, 2]},
            True,
        ),
        (  # where both fall, nothing is gamed
            "reward up, judge down",
            "rlhf",
            {"eval/overall": [60, 80, 70], "eval/score": [0, 1, 0.5]},
            True,
        ),
    ],
)
def test_a_curve_beyond_its_limit_is_ill(healthy, name, stage, curves, fine):
    summary, metrics = healthy
    for key, values in curves.items():
        curve(metrics, stage, key, values)
    assert ill(diagnose(summary, metrics)) == ([] if fine else [(stage, name)])


def test_a_reward_that_wavers_convicts_nobody_and_one_that_falls_convicts_ppo(healthy):
    summary, metrics = healthy
    for last, grave in ((-0.19, False), (-0.21, True)):
        curve(metrics, "rlhf", "reward/score", [0.0, last])
        found = diagnose(summary, metrics)
        (check,) = [c for c in found.checks if (c.stage, c.name) == ("rlhf", "reward")]
        assert not check.healthy and check.grave is grave


def test_ppo_need_not_end_answers_that_sft_did_not_end(healthy):
    summary, metrics = healthy
    for place, value in both("evaluation/SPLIT/sft/eos_rate", 0.90):
        put(summary, place, value)
    for value, found in ((0.86, []), (0.84, [("rlhf", "answers that end")])):
        for place, number in both("evaluation/SPLIT/rlhf/eos_rate", value):
            put(summary, place, number)
        assert ill(diagnose(summary, metrics)) == [("sft", "answers that end"), *found]


def test_kl_of_a_killed_run_comes_from_its_metrics(healthy):
    summary, metrics = healthy
    del summary["stages"]["rlhf"]
    curve(metrics, "rlhf", "kl/sequence_k1", [0.0, 7.5, float("nan")])
    assert ill(diagnose(summary, metrics)) == [("rlhf", "KL to the SFT model")]


def test_a_fall_of_the_accuracy_criterion_that_is_no_chance_is_ill(healthy):
    summary, metrics = healthy
    for high, expected in ((0.5, []), (-0.5, [("rlhf", "accuracy criterion, unseen")])):
        found = {"mean": -3.0, "ci95": [-6.0, high]}
        put(summary, "evaluation/unseen/difference/criteria/accuracy", found)
        assert ill(diagnose(summary, metrics)) == expected


def test_an_intervals_lower_end_counts_and_not_the_value(healthy):
    """89 % of few pairs may be chance."""
    summary, metrics = healthy
    put(summary, f"{FOUND}/accuracy/ci95", [0.45, 0.98])
    found = diagnose(summary, metrics)
    assert found.culprit == "reward" and "45.0% to 98.0%" in found.because
