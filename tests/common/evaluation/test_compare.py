"""Several runs on one page: settings that differ, curves overlaid, differences by prompt."""

import json
import shutil

import numpy as np
import pytest
import yaml

from common.evaluation.page.compare import different_settings, labels, text_means
from common.evaluation.page.facts import read_facts
from common.evaluation.report import main
from tests.pages import Reader


def write_config(run, stage, **settings):
    (run / stage).mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump({"run": f"/old/{run.name}", "seed": 0} | settings)
    (run / stage / "config.yaml").write_text(text)


@pytest.fixture
def two(tmp_path, response_row, write_lines, write_result):
    """Two small runs; the second asks two of the first's three prompts, in another order."""
    scores = {"a": [("x", 10, 50), ("y", 20, 60), ("z", 30, 70)]}
    scores["b"] = [("y", 20, 75), ("x", 12, 45), ("new", 0, 100)]
    runs = []
    for name, prompts in scores.items():
        run = tmp_path / name / "run"
        rows = [
            response_row(index=i, model=m, prompt=p, overall=s, criteria=None, reward=None)
            for i, (p, *both) in enumerate(prompts)
            for m, s in zip(("sft", "rlhf"), map(float, both), strict=True)
        ]
        write_lines(run / "evaluation" / "responses.jsonl", rows)
        rising = [{"step": s, "reward/score": s / 10, "kl/sequence_k1": s / 5} for s in (1, 2, 3)]
        write_lines(run / "rlhf" / "metrics.jsonl", rising)
        rate = {"a": 0.1, "b": 0.2}[name]
        later = {"came_later": 1} if name == "b" else {}
        data = [f"/old/run/{name}.jsonl"]
        write_config(run, "rlhf", actor_learning_rate=rate, data=data, steps=3, **later)
        runs.append(run)
    write_config(runs[0], "sft", epochs=1.0)
    return runs


def test_names_are_as_long_as_they_must_be(two):
    assert labels([read_facts(run) for run in two]) == ["a/run", "b/run"]
    facts = read_facts(two[0])
    assert labels([facts, facts]) == ["run (1)", "run (2)"]


def test_only_settings_that_differ_are_listed(two):
    found = different_settings([read_facts(run) for run in two])
    assert found == [
        ("rlhf", "actor_learning_rate", [0.1, 0.2]),
        ("rlhf", "data", [["{run}/a.jsonl"], ["{run}/b.jsonl"]]),
    ]


def test_differences_are_over_the_prompts_that_both_have(two):
    facts = [read_facts(run) for run in two]
    first, second = (text_means(f.responses, "seen", "sample", "rlhf", "rubric") for f in facts)
    assert first == {"x": 50.0, "y": 60.0, "z": 70.0}
    assert second == {"y": 75.0, "x": 45.0, "new": 100.0}
    assert main([*map(str, two), "--output", str(two[0] / "both.html")]) == 0
    page = Reader((two[0] / "both.html").read_text())
    row = page.row("Held-out scores", "b/run", "seen", "sampled", "RLHF")
    gap = np.mean([45.0 - 50.0, 75.0 - 60.0])
    assert row[4:6] == ["3", "73.3"]
    assert row[6] == f"{gap:+.1f} [-5.0, +15.0]" and row[7:] == ["2", "1 / 0 / 1"]
    assert page.row("Held-out scores", "a/run", "seen", "sampled", "SFT")[4:6] == ["3", "20.0"]
    assert page.row("Settings that are not the same", "PPO (ICE-GRT): actor_learning_rate") == [
        *("PPO (ICE-GRT): actor_learning_rate", "0.1", "0.2")
    ]
    assert len(page.table("What each run came to")) == 3
    assert page.headings[0] == "2 runs compared"


def test_further_contenders_of_any_run_are_among_the_scores(two, response_row):
    extra = {"model": "best_of_4", "index": 0, "prompt": "y", "overall": 90.0, "sample": 0}
    with (two[1] / "evaluation" / "responses.jsonl").open("a") as file:
        file.write(json.dumps(response_row(criteria=None, reward=None, **extra)) + "\n")
    assert main([*map(str, two), "--output", str(two[0] / "both.html")]) == 0
    page = Reader((two[0] / "both.html").read_text())
    row = page.row("Held-out scores", "b/run", "seen", "sampled", "best of 4")
    assert row[4:] == ["1", "90.0", "–", "0", "–"], "the first run has none to be held against"
    assert not any("best of 4" in r and "a/run" in r for r in page.table("Held-out scores"))


def test_curves_lie_over_one_another(two, capsys):
    assert main(list(map(str, two))) == 0
    assert str(two[0] / "comparison.html") in capsys.readouterr().out
    text = (two[0] / "comparison.html").read_text()
    page = Reader(text)
    assert "/old" not in text and page.styled == []
    for title in ("Reward of the rollouts", "KL to the SFT model"):
        (figure,) = [f for f in text.split("<figure")[1:] if title in f.split("</figcaption>")[0]]
        assert figure.count('<path class="line k0"') == 2  # the curve, and its sample below
        assert figure.count('<path class="line k1"') == 2
        assert "a/run: from" in figure and "b/run: from" in figure


def test_runs_without_an_evaluation_or_a_stage_in_common_are_compared(two):
    shutil.rmtree(two[1] / "evaluation")
    shutil.rmtree(two[1] / "rlhf")
    (two[1] / "sft").mkdir()
    (two[1] / "sft" / "result.json").write_text('{"seconds": 1.0}')
    assert main(list(map(str, two))) == 0
    page = Reader((two[0] / "comparison.html").read_text())
    assert "None, in the stages that two of them have." in page.text


def test_a_folder_that_is_no_run_is_refused(two, tmp_path, capsys):
    assert main([str(two[0]), str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
