"""Differences over seeds, from their definition."""

import json
import math
from dataclasses import replace

import pytest

from common.errors import UserError
from common.evaluation.ablation.compare import (
    Difference,
    Outcome,
    against_paper,
    facts_of,
    means_of,
    paired,
    read_outcome,
    verdict,
)
from common.training.resume.identity import content_hashes


def outcome(seed, *scores, facts=None):
    return Outcome(
        seed, {"domain": {str(i): s for i, s in enumerate(scores)}}, {}, facts or {}, ([], [])
    )


def test_the_interval_is_students_over_seeds():
    arm = {0: outcome(0, 80.0, 90.0), 1: outcome(1, 70.0, 88.0), 2: outcome(2, 60.0, 64.0)}
    base = {0: outcome(0, 78.0, 84.0), 1: outcome(1, 71.0, 83.0), 2: outcome(2, 50.0, 60.0)}
    found = paired(arm, base, "domain")
    gaps = [((80 - 78) + (90 - 84)) / 2, ((70 - 71) + (88 - 83)) / 2, ((60 - 50) + (64 - 60)) / 2]
    mean = sum(gaps) / 3
    deviation = math.sqrt(sum((gap - mean) ** 2 for gap in gaps) / 2)
    assert found.value == pytest.approx(mean) and found.seeds == 3
    # The quantile is that of printed tables: t(0.975) at two degrees of freedom.
    assert found.half == pytest.approx(4.303 * deviation / math.sqrt(3), rel=1e-4)


def test_only_seeds_and_prompts_that_both_have_are_compared():
    arm = {0: outcome(0, 1.0, 2.0, 90.0), 1: outcome(1, 5.0), 7: outcome(7, 100.0)}
    base = {0: outcome(0, 0.0, 0.0), 1: outcome(1, 2.0), 8: outcome(8, 0.0)}
    found = paired(arm, base, "domain")
    assert found.value == pytest.approx((1.5 + 3.0) / 2) and found.seeds == 2
    assert paired({7: arm[7]}, base, "domain") is None
    assert paired(arm, base, "general") is None


def test_scores_of_different_reward_models_are_not_compared():
    def by(judge, score):
        return {s: replace(outcome(s, score), judge=f"{judge}{s}") for s in (0, 1)}

    assert paired(by("one", 5.0), by("another", 1.0), "domain") is None
    assert paired(by("one", 5.0), by("one", 1.0), "domain").value == pytest.approx(4.0)


def test_one_seed_says_so_and_scatters_over_prompts():
    arm, base = {0: outcome(0, *[10.0, 20.0] * 50)}, {0: outcome(0, *[9.0, 17.0] * 50)}
    found = paired(arm, base, "domain")
    assert found.value == pytest.approx(2.0) and found.seeds == 1
    # Differences of 1 and 3, a hundred of them: 1.96 · 1 / 10, give or take the resampling.
    assert found.half == pytest.approx(0.196, rel=0.15)
    assert verdict(found).endswith("(one seed: over prompts only)")
    assert against_paper(found, "better") == "seen here, too, of one seed"


@pytest.mark.parametrize(
    ("value", "half", "said", "paper"),
    [
        (3.1, 1.2, "better by 3.1 ± 1.2", "the opposite here"),
        (-3.14, 1.2, "worse by 3.1 ± 1.2", "seen here, too"),
        (-0.4, 0.5, "no difference seen (-0.4 ± 0.5)", "not seen here"),
        (0.0, 0.0, "no difference seen (+0.0 ± 0.0)", "not seen here"),
    ],
)
def test_verdicts(value, half, said, paper):
    assert verdict(Difference(value, half, 3)) == said
    assert against_paper(Difference(value, half, 3), "worse") == paper
    assert against_paper(Difference(value, half, 3), None) == "says nothing"


def test_means_and_facts_over_seeds():
    outcomes = [
        outcome(0, 1.0, facts={"kl": 2.0, "length": 10.0}),
        outcome(1, 4.0, facts={"kl": 4.0}),
    ]
    assert means_of(outcomes, "domain") == pytest.approx((2.5, math.sqrt(4.5)))
    assert means_of(outcomes[:1], "domain") == (1.0, 0.0)
    assert facts_of(outcomes) == {"kl": 3.0, "length": 10.0}


def write_run(run, rows):
    (run / "evaluation").mkdir(parents=True)
    (run / "evaluation" / "result.json").write_text("{}")
    lines = [
        json.dumps(
            {
                "split": split,
                "index": index,
                "model": model,
                "decoding": decoding,
                "sample": sample,
                "prompt": f"{split} {index}",
                "response": "x",
                "ended": True,
                "tokens": 3,
                "criteria": None,
                "overall": overall,
                "reward": 0.5,
            }
        )
        for split, index, model, decoding, sample, overall in rows
    ]
    (run / "evaluation" / "responses.jsonl").write_text("\n".join(lines))


def test_an_outcome_is_read_from_a_runs_files(tmp_path):
    assert read_outcome(tmp_path, 0) is None
    rows = [
        ("seen", 0, "rlhf", "sample", 0, 60.0),
        ("seen", 0, "rlhf", "sample", 1, 80.0),
        ("seen", 0, "rlhf", "greedy", 0, 5.0),  # greedy answers are not looked at
        ("unseen", 0, "rlhf", "sample", 0, 40.0),
        ("general", 0, "rlhf", "sample", 0, 90.0),
        *((split, 0, "sft", "sample", 0, 30.0) for split in ("seen", "unseen", "general")),
    ]
    write_run(tmp_path, rows)
    (tmp_path / "rlhf").mkdir()
    steps = [
        {"step": step, "kl/sequence_k1": float(step), "response/length": 20.0}
        for step in range(1, 21)
    ]
    steps[4]["eval/overall"] = 55.0
    (tmp_path / "rlhf" / "metrics.jsonl").write_text("\n".join(map(json.dumps, steps)))
    found = read_outcome(tmp_path, 4)
    assert found.seed == 4
    assert {m: found.mean(m) for m in found.scores} == {
        "domain": 55.0,
        "seen": 70.0,
        "unseen": 40.0,
        "general": 90.0,
    }
    assert found.before["domain"] == 30.0
    assert found.facts == {"kl": pytest.approx(15.5), "length": 20.0}  # the last ten steps
    assert found.curve == ([5], [55.0])


def test_a_reward_model_that_scored_is_told_by_its_content(tmp_path):
    rows = [("seen", 0, model, "sample", 0, None) for model in ("sft", "rlhf")]
    write_run(tmp_path, rows)
    inputs = {"{run}/models/reward": "one hash", "elsewhere": "another"}
    for settings, judge in (({"reward": ""}, "one hash"), ({"reward": "elsewhere"}, "another")):
        begun = {"settings": settings, "inputs": inputs}
        (tmp_path / "evaluation" / "begun.json").write_text(json.dumps(begun))
        found = read_outcome(tmp_path, 0)
        assert found.judge == judge and found.mean("domain") == 0.5


def test_a_run_that_nothing_judged_is_refused(tmp_path):
    write_run(tmp_path, [("seen", 0, "rlhf", "sample", 0, 1.0)])
    with pytest.raises(UserError, match="no response of 'sft' has a score"):
        read_outcome(tmp_path, 0)


def test_an_evaluation_of_an_earlier_actor_is_none(tmp_path):
    write_run(tmp_path, [("seen", 0, model, "sample", 0, 50.0) for model in ("sft", "rlhf")])
    actor = tmp_path / "models" / "actor"
    actor.mkdir(parents=True)
    (actor / "config.json").write_text("{}")
    begun = {
        "settings": {},
        "inputs": content_hashes([str(actor)], tmp_path),
    }
    (tmp_path / "evaluation" / "begun.json").write_text(json.dumps(begun))
    assert read_outcome(tmp_path, 0) is not None
    (actor / "config.json").write_text('{"done": "again"}')
    assert read_outcome(tmp_path, 0) is None
