"""What of a run is older than what it was made from: by content, stage by stage."""

import json
import os
import shutil

import pytest

from common.evaluation.outdated import outdated
from common.evaluation.report import main, write_comparison, write_report
from common.training.resume.identity import Identity, content_hashes, write_identity
from tests.pages import Reader

READS = {
    "sft": ["data/sft.jsonl"],
    "sample": ["models/sft"],
    "pairs": ["sample/samples.jsonl"],
    "reward": ["models/sft", "pairs/pairs.jsonl"],
    "rlhf": ["models/sft", "models/reward"],
    "evaluation": ["models/sft", "models/actor", "models/critic", "models/reward"],
    "benchmarks": ["models/sft", "models/actor"],
}
FILES = ["data/sft.jsonl", "sample/samples.jsonl", "pairs/pairs.jsonl"]
FILES += [f"models/{name}/model.safetensors" for name in ("sft", "reward", "actor", "critic")]


def begin(folder, stage):
    """Notes what a stage was begun with, as stages do."""
    hashes = content_hashes([str(folder / path) for path in READS[stage]], folder)
    write_identity(folder / stage, Identity({}, hashes))


@pytest.fixture
def made(run, response_row, write_lines):
    """A finished run whose stages noted what they read."""
    rows = [response_row(index=i, model=m) for i in range(2) for m in ("sft", "rlhf")]
    rows = [row | {"task": "yes", "overall": 50.0 + (row["model"] == "rlhf")} for row in rows]
    write_lines(run / "evaluation" / "responses.jsonl", rows)
    for name in FILES:
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(f"first {name}")
    scores = {"benchmarks": {"mmlu": {"title": "MMLU"}}, "models": {"actor": {"mmlu": {"n": 1}}}}
    for stage in READS:
        (run / stage).mkdir(exist_ok=True)
        begin(run, stage)
        result = run / stage / "result.json"
        if not result.is_file():
            result.write_text('{"seconds": 1.0}')
    (run / "benchmarks" / "benchmarks.json").write_text(json.dumps(scores))
    return run


def test_nothing_is_out_of_date_in_a_run_as_it_was_made(made):
    assert outdated(made) == ({}, [])


@pytest.mark.parametrize(
    ("changed", "older"),
    [
        ("models/actor/model.safetensors", ["evaluation", "benchmarks"]),
        ("models/reward/model.safetensors", ["rlhf", "evaluation"]),
        ("pairs/pairs.jsonl", ["reward", "rlhf", "evaluation", "benchmarks"]),
        ("models/sft/model.safetensors", [*list(READS)[1:]]),
        ("models/actor/README.md", []),
    ],
)
def test_what_was_made_of_something_else_is_out_of_date(made, changed, older):
    (made / changed).write_text("made again")
    found, notes = outdated(made)
    assert notes == []
    if changed.startswith("models/reward"):  # the actor was trained by the one before
        older = [*older, "benchmarks"]
    assert list(found) == older


def test_the_same_content_made_again_is_not_something_else(made, tmp_path):
    for name in FILES:
        os.utime(made / name, (1, 1))
    moved = shutil.move(made, tmp_path / "elsewhere")
    assert outdated(moved) == ({}, [])
    shutil.rmtree(moved / "models")  # to save space
    assert outdated(moved) == ({}, [])


@pytest.mark.parametrize(
    ("stage", "older"),
    [
        ("rlhf", ["evaluation", "benchmarks"]),
        ("reward", ["rlhf", "evaluation", "benchmarks"]),
        ("evaluation", ["evaluation"]),
        ("benchmarks", ["benchmarks"]),
    ],
)
def test_a_stage_that_is_being_done_again_leaves_what_it_made_before(made, stage, older):
    (made / stage / "result.json").unlink()
    found, _ = outdated(made)
    assert list(found) == older
    assert found[older[0]] == f"{stage} was begun anew, and has not finished"


def test_a_first_evaluation_under_way_is_nothing_old(made):
    (made / "evaluation" / "result.json").unlink()
    (made / "evaluation" / "responses.jsonl").unlink()
    assert outdated(made)[0] == {}


def test_a_record_that_cannot_be_read_is_named_and_taken_at_its_word(made):
    (made / "rlhf" / "begun.json").write_text("{")
    found, notes = outdated(made)
    assert found == {} and "rlhf/begun.json: cannot be read" in notes[0]


def test_the_report_shows_no_older_evaluation_beside_a_newer_model(made, capsys, tmp_path):
    before = Reader(write_report(made)[1].read_text())
    assert "Samples" in before.headings and "Benchmarks" in before.headings
    (made / "models" / "actor" / "model.safetensors").write_text("of other settings")
    assert main([str(made)]) == 0
    page, said = Reader((made / "report.html").read_text()), capsys.readouterr().out
    why = "models/actor has changed since"
    for told in (page.text, said):
        assert f"Evaluation ({why}). Run evaluation again." in told
        assert f"Benchmarks ({why}). Run benchmarks again." in told
    assert "Not known: the evaluation is of an earlier state" in page.text
    for name in ("Samples", "Benchmarks", "By task", "Largest regressions and wins"):
        assert name not in page.headings
    assert "RLHF − SFT" not in page.text and "rlhf says yes" not in page.text
    assert "Reward and KL over training" in page.headings  # PPO is as it is
    summary = json.loads((made / "summary.json").read_text())
    assert summary["evaluation"] == {} and list(summary["outdated"]) == ["evaluation", "benchmarks"]
    compared = Reader(write_comparison([made, made], tmp_path / "c.html").read_text())
    assert why in compared.text and "No run has an evaluation." in compared.text


def test_ppo_against_an_earlier_reward_model_is_left_out_with_what_follows(made):
    (made / "models" / "reward" / "model.safetensors").write_text("of other pairs")
    page = Reader(write_report(made)[1].read_text())
    assert "PPO (ICE-GRT) (models/reward has changed since). Run rlhf again." in page.text
    assert "Reward and KL over training" not in page.headings
    assert "up to date" in page.text and "SFT, reward model, DPO" in page.headings
