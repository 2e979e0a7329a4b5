"""Who is at fault: on extracts of four real runs, and on one of them bent in one place."""

import copy
from pathlib import Path

import numpy as np
import pytest

from common.evaluation.broken import CULPRITS
from common.evaluation.diagnosis import NAMES, diagnose
from common.evaluation.run_files import Metrics, Series, read_metrics
from common.evaluation.summary import build_summary
from tests.common.evaluation.extract import restore

RUNS = Path(__file__).parent / "extracts"
"""Made by `tests/common/evaluation/extract.py`, which says how."""


@pytest.fixture(scope="module")
def real():
    return restore(RUNS / "healthy.json")


@pytest.fixture
def healthy(real):
    """(summary, metrics) of the healthy run; tests bend their own copy."""
    return copy.deepcopy(real)


def curve(metrics, stage, name, values):
    series = metrics[stage].series | {
        name: Series(np.arange(1, len(values) + 1), np.array(values, dtype=float))
    }
    metrics[stage] = Metrics(series, [], metrics[stage].events)


def changed_by(summary, mean, splits=("seen", "unseen"), half=1.0, reward=1.0):
    """RLHF against SFT: this many points, and this much reward score."""
    for name in splits:
        split = summary["evaluation"][name]
        split["difference"] |= {"mean": mean, "ci95": [mean - half, mean + half]}
        split["rlhf"]["overall"] = split["sft"]["overall"] + mean
        split["rlhf"]["reward"] = split["sft"]["reward"] + reward


def ill(diagnosis):
    return [(check.stage, check.name) for check in diagnosis.checks if check.healthy is False]


def test_the_healthy_run_names_nobody(real):
    found = diagnose(*real)
    assert found.culprit == "" and ill(found) == []
    assert "+17.7 points of 100 (95% interval +16.1 to +19.1) on seen" in found.verdict
    assert found.verdict.startswith("Better")
    assert "look healthy" in found.because


@pytest.mark.parametrize(("kind", "culprit"), CULPRITS.items())
def test_each_broken_run_names_what_was_broken(kind, culprit):
    found = diagnose(*restore(RUNS / f"{kind}.json"))
    assert found.culprit == culprit
    first = next(check for check in found.checks if check.healthy is False)
    assert first.stage == culprit and first.name in found.because
    assert first.try_
    # Both of these runs came out better than their SFT model; that must not hide the fault.
    assert found.verdict.startswith("Better") == (kind != "ppo")
    assert ("says little" in found.because) == (kind != "ppo")


def test_every_check_is_a_whole_one(real):
    for run in ("healthy", *CULPRITS):
        checks = diagnose(*restore(RUNS / f"{run}.json")).checks
        stages = [check.stage for check in checks]
        assert stages == sorted(stages, key=list(NAMES).index) and set(stages) == set(NAMES)
        assert len({(check.stage, check.name) for check in checks}) == len(checks)
        for check in checks:
            assert check.why.endswith((".", "…")) and check.name
            assert check.healthy is None or type(check.healthy) is bool
            assert (check.value == "") == (check.healthy is None)
            assert check.healthy is not False or check.try_.endswith(".")
            assert not (check.grave and check.healthy)


def test_grave_illness_of_an_earlier_stage_comes_first(healthy):
    summary, metrics = healthy
    changed_by(summary, -5.0)
    summary["stages"]["rlhf"]["kl_per_sequence"] = 99.0
    assert diagnose(summary, metrics).culprit == "rlhf"
    summary["stages"]["reward"]["right_minus_wrong"] = 0.1
    assert diagnose(summary, metrics).culprit == "reward"
    curve(metrics, "sft", "eval/loss", [5.0, 4.0])
    assert diagnose(summary, metrics).culprit == "sft"


def test_far_from_sft_and_better_is_nobodys_fault(healthy):
    summary, metrics = healthy
    summary["stages"]["rlhf"]["kl_per_sequence"] = 99.0
    found = diagnose(summary, metrics)
    assert found.culprit == "" and ill(found) == [("rlhf", "KL to the SFT model")]
    assert "1 needs a look: KL to the SFT model (PPO)" in found.because


@pytest.mark.parametrize(
    ("reward", "kl", "culprit", "word"),
    [
        (0.05, 2.0, "rlhf", "did not raise the reward (+0.18 to +0.26 deviations on"),
        (1.0, 2.0, "reward", "rewards something else"),
        (1.0, 12.0, "rlhf", "over 6 nats"),
    ],
)
@pytest.mark.parametrize("mean", [-5.0, 0.2])
def test_no_better_and_no_stage_ill_is_told_by_its_symptoms(
    healthy, mean, reward, kl, culprit, word
):
    summary, metrics = healthy
    for name in ("seen", "unseen"):
        summary["evaluation"][name]["sft"]["reward"] = 0.12
    changed_by(summary, mean, reward=reward)
    summary["stages"]["rlhf"]["kl_per_sequence"] = kl
    found = diagnose(summary, metrics)
    assert found.culprit == culprit and word in found.because
    assert found.verdict.startswith("Worse" if mean < -1 else "No difference")


def test_scores_whose_scale_is_not_known_are_not_called_deviations(healthy):
    summary, metrics = healthy
    for name in ("seen", "unseen"):
        summary["evaluation"][name]["sft"]["reward"] = 0.12
    changed_by(summary, -5.0, reward=0.05)
    del summary["stages"]["reward"]["scores"]
    assert "(+0.12 to +0.17 of raw score on held-out" in diagnose(summary, metrics).because


def test_points_lost_by_the_reward_model_are_not_called_points_of_100(healthy):
    summary, metrics = healthy
    general = summary["evaluation"]["general"]
    general["difference"] |= {"mean": -0.5, "ci95": [-0.6, -0.4]}
    assert "at the cost of general ability" in diagnose(summary, metrics).verdict
    general["judge"] = "reward_model"
    assert "general" not in diagnose(summary, metrics).verdict


def test_two_ill_checks_of_the_reward_model_explain_that_nothing_came_of_ppo(healthy):
    summary, metrics = healthy
    reward = summary["stages"]["reward"]
    reward["right_minus_wrong"] = 1.0
    reward["diagnostics"]["length"]["given_rank"] = 0.7
    assert diagnose(summary, metrics).culprit == ""
    changed_by(summary, 0.1, reward=0.0)
    found = diagnose(summary, metrics)
    assert found.culprit == "reward" and "right minus wrong (1.00" in found.because


def test_where_nothing_was_left_to_gain_nobody_is_at_fault(healthy):
    summary, metrics = healthy
    for name in ("seen", "unseen"):
        summary["evaluation"][name]["sft"]["overall"] = 98.0
    changed_by(summary, 0.1)
    found = diagnose(summary, metrics)
    assert found.culprit == "" and "98.0 points of 100 already" in found.because
    changed_by(summary, -9.0)
    assert diagnose(summary, metrics).culprit != ""


def test_the_verdict_tells_splits_apart(healthy):
    summary, metrics = healthy
    changed_by(summary, -3.0, splits=["unseen"])
    assert diagnose(summary, metrics).verdict.startswith("Better on seen and worse on unseen.")


def test_the_verdict_tells_what_general_ability_paid(healthy):
    summary, metrics = healthy
    changed_by(summary, -4.0, splits=["general"])
    found = diagnose(summary, metrics)
    assert found.verdict.startswith("Better, at the cost of general ability")
    assert "; -4.0 points of 100 (95% interval -5.0 to -3.0) on general." in found.verdict
    assert ("rlhf", "general ability") in ill(found)


def test_the_reward_model_is_no_witness_for_itself(healthy):
    summary, metrics = healthy
    for split in summary["evaluation"].values():
        if isinstance(split, dict) and "judge" in split:
            split |= {"judge": "reward_model"}
            split["difference"] = {"mean": 0.5, "ci95": [0.4, 0.6]}
            for model in ("sft", "rlhf"):
                split[model] |= {"overall": None, "reward_agrees": None}
    found = diagnose(summary, metrics)
    assert found.verdict.startswith("Not known to be better") and "+0.50" in found.verdict
    assert found.culprit == ""


def test_where_a_rubric_judged_one_split_the_reward_model_says_nothing_of_another(healthy):
    summary, metrics = healthy
    unseen = summary["evaluation"]["unseen"]
    unseen |= {"judge": "reward_model", "difference": {"mean": -0.5, "ci95": [-0.6, -0.4]}}
    verdict = diagnose(summary, metrics).verdict
    assert verdict.startswith("Better: RLHF against SFT +17.7 points of 100")
    assert "unseen" not in verdict and "reward score" not in verdict


def test_a_run_at_its_beginning_is_not_judged(tmp_path, write_result):
    write_result(tmp_path, "data", {"seconds": 1.0})
    found = diagnose(build_summary(tmp_path), {})
    assert found.verdict.startswith("Not known yet") and found.culprit == ""
    assert all(check.healthy is None for check in found.checks)
    assert found.because == "Nothing was measured yet."


def test_a_stage_can_be_named_before_the_next_one_runs(healthy):
    summary, metrics = healthy
    del summary["stages"]["rlhf"], metrics["rlhf"]
    summary["evaluation"] = {}
    assert diagnose(summary, metrics).culprit == ""
    summary["stages"]["reward"]["diagnostics"]["accuracy"]["ci95"] = [0.47, 0.53]
    found = diagnose(summary, metrics)
    assert found.culprit == "reward" and "no better than chance" in found.because


def test_dpo_in_place_of_ppo_is_no_illness(healthy):
    summary, metrics = healthy
    for part in (summary["stages"], metrics):
        del part["rlhf"]
    summary["stages"]["dpo"] = {}
    found = diagnose(summary, metrics)
    (check,) = [check for check in found.checks if check.stage == "rlhf"]
    assert check.healthy is None and "DPO" in check.why
    changed_by(summary, -9.0)  # DPO's doing, of which nothing was checked
    found = diagnose(summary, metrics)
    assert found.culprit == "" and "no PPO to be judged" in found.because


def test_greedy_answers_that_got_worse_are_noted_beside_sampled_ones_that_did_not(healthy):
    summary, metrics = healthy
    general = summary["evaluation"]["greedy"]["general"]
    general |= {"judge": "rubric", "difference": {"mean": -2.1, "ci95": [-3.7, -0.5]}}
    (note,) = diagnose(summary, metrics).notes
    assert note.startswith("general: greedy answers got worse, RLHF against SFT -2.1 points of 100")
    general["difference"]["ci95"] = [-3.7, 0.5]
    assert diagnose(summary, metrics).notes == ()


def test_greedy_at_the_ceiling_is_noted(healthy):
    summary, metrics = healthy
    del summary["evaluation"]["greedy"]["general"]
    assert diagnose(summary, metrics).notes == ()
    summary["evaluation"]["greedy"]["seen"]["rlhf"]["overall"] = 99.0
    (note,) = diagnose(summary, metrics).notes
    assert "seen" in note and "99.0" in note


def test_what_a_guard_found_is_told(tmp_path, write_lines, healthy):
    summary, metrics = healthy
    path = tmp_path / "sft" / "metrics.jsonl"
    write_lines(path, [{"step": 1, "train/loss": 1.0}])
    noted = {"step": 7, "fault": "kl", "text": "the KL is high", "action": "went on"}
    write_lines(path.with_name("events.jsonl"), [noted, {"step": 8}])
    events = read_metrics(path).events
    metrics["sft"] = Metrics(metrics["sft"].series, [], events)
    found = diagnose(summary, metrics)
    (check,) = [check for check in found.checks if (check.stage, check.name) == ("sft", "alarms")]
    assert check.healthy is False and "step 7: the KL is high; the run went on" in check.why


def test_how_ppo_stands_to_best_of_n_is_noted(healthy):
    summary, metrics = healthy
    assert not any("best of" in note for note in diagnose(summary, metrics).notes)
    for name, mean, ci in (("seen", -0.8, [-2.4, 0.9]), ("unseen", -3.7, [-5.7, -1.6])):
        gap = {"mean": mean, "ci95": ci}  # of best of 8 to RLHF
        summary["evaluation"][name]["further"] = {
            "best_of_8": {"best_of": 8, "against": {"rlhf": {"difference": gap}}},
            "dpo": {"against": {"rlhf": {"difference": gap}}},
        }
    (note,) = [n for n in diagnose(summary, metrics).notes if "best of" in n]
    assert note.startswith("RLHF against best of 8 ")
    assert "seen +0.8 [-0.9, +2.4], no difference seen; unseen +3.7 [+1.6, +5.7], ahead." in note
