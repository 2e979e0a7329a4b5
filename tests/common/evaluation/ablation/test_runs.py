"""Which runs there are to make, and what one takes over from another."""

import json
from pathlib import Path

import pytest
import yaml

from common.errors import UserError
from common.evaluation.ablation.runs import plan_runs, share_stages
from common.evaluation.ablation.spec import Ablation, read_ablation

QUICKSTART = Path(__file__).parents[4] / "launch" / "quickstart.yaml"


def ablation(name="gamma", **arms):
    return Ablation(name, name, "", "as it is", {"as it is": {}, **arms})


def finish(run, stage, outputs=(), **files):
    """What a stage leaves behind."""
    folder = run.folder / stage
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "big").write_text("x")
    for name, text in files.items():
        (folder / name).write_text(text)
    for output in outputs:
        path = run.folder / output
        path.mkdir(parents=True)
        (path / "model.safetensors").write_text(output)
    result = {"outputs": [f"{{run}}/{output}" for output in outputs]}
    (folder / "result.json").write_text(json.dumps(result))


def test_the_standard_run_is_shared_and_comes_before_what_builds_on_it(tmp_path):
    first = ablation(low={"rlhf": {"gamma": 0.9}})
    second = ablation("loss", logistic={"reward": {"loss": "logistic"}})
    runs = plan_runs([first, second], [0, 3], tmp_path, QUICKSTART)
    assert [str(run.folder.relative_to(tmp_path)) for run in runs] == [
        f"seed{seed}/{label}"
        for seed in (0, 3)
        for label in ("standard", "gamma.low", "loss.logistic")
    ]
    trees = [yaml.safe_load(run.config.read_text()) for run in runs]
    assert trees[1]["rlhf"] == {**trees[0]["rlhf"], "gamma": 0.9}
    assert [tree["seed"] for tree in trees] == [0, 0, 0, 3, 3, 3]
    assert trees[1]["run"] == str(tmp_path / "seed0" / "gamma.low")
    assert yaml.safe_load(QUICKSTART.read_text())["evaluation"]["best_of"] > 1
    assert all(tree["evaluation"]["best_of"] == 0 for tree in trees)  # nobody looks at it


def test_a_plan_that_stands_is_not_written_again(tmp_path):
    """Seeds side by side plan at the same time, and would take each other's half-written files."""
    arms = {"low": {"rlhf": {"gamma": 0.9}}}
    first = plan_runs([ablation(**arms)], [0], tmp_path, QUICKSTART)
    before = [run.config.stat() for run in first]
    again = plan_runs([ablation(**arms)], [0], tmp_path, QUICKSTART)
    assert [run.config.stat() for run in again] == before
    plan_runs([ablation(low={"rlhf": {"gamma": 0.8}})], [0], tmp_path, QUICKSTART)
    assert first[1].config.stat() != before[1]


def test_runs_that_others_build_on_come_first(tmp_path):
    runs = plan_runs([read_ablation("reward_size")], [1], tmp_path, QUICKSTART)
    assert [run.folder.name for run in runs] == [
        *("reward_size.before.smaller", "reward_size.before.larger", "standard"),
        *("reward_size.smaller", "reward_size.larger"),
    ]
    trees = {run.folder.name: yaml.safe_load(run.config.read_text()) for run in runs}
    assert trees["reward_size.smaller"]["reward"]["model"] == str(
        tmp_path / "seed1" / "reward_size.before.smaller" / "models" / "sft"
    )
    assert "rlhf" not in trees["reward_size.before.larger"]
    assert trees["reward_size.before.larger"]["sft"]["tiny_width"] == 192


def test_a_setting_that_a_stage_refuses_costs_no_run(tmp_path):
    with pytest.raises(UserError, match="gama"):
        plan_runs([ablation(low={"rlhf": {"gama": 0.9}})], [0], tmp_path, QUICKSTART)
    with pytest.raises(UserError, match="arm 'low': the arm changes 'dpo'"):
        plan_runs([ablation(low={"dpo": {"epochs": 1}})], [0], tmp_path, QUICKSTART)
    file = tmp_path / "none.yaml"
    file.write_text("sft: {model: tiny, data: [x.jsonl]}")
    with pytest.raises(UserError, match="blanks in a path"):
        plan_runs([ablation()], [0], tmp_path / "my runs", QUICKSTART)
    with pytest.raises(UserError, match="needs a section 'evaluation'"):
        plan_runs([ablation(low={"rlhf": {"gamma": 0.9}})], [0], tmp_path, file)


def test_a_base_arm_that_is_not_what_it_is_called_is_refused(tmp_path):
    tree = yaml.safe_load(QUICKSTART.read_text())
    tree["rlhf"]["kl_coefficient"] = 0.1
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(tree))
    kl, clip = read_ablation("kl"), read_ablation("clip_range")  # 0.2 is a default
    plan_runs([kl, clip], [0], tmp_path, QUICKSTART)
    plan_runs([clip], [0], tmp_path, other)
    with pytest.raises(UserError, match=r"rlhf.kl_coefficient 0.06, but .* has 0.1"):
        plan_runs([kl], [0], tmp_path, other)


def test_a_run_takes_over_the_stages_before_its_own_change(tmp_path):
    arms = {"low": {"rlhf": {"gamma": 0.9}}, "loss": {"reward": {"loss": "logistic"}}}
    standard, low, loss, other = (
        *plan_runs([ablation(**arms)], [0], tmp_path, QUICKSTART),
        plan_runs([ablation(**arms)], [1], tmp_path, QUICKSTART)[1],
    )
    for stage in ("data", "sample", "rank", "pairs"):
        finish(standard, stage, **{"rows.jsonl": stage})
    finish(standard, "sft", ["models/sft"])
    finish(standard, "reward", ["models/reward"])
    finish(standard, "rlhf", ["models/actor"])

    assert share_stages(other, [standard, low, loss]) == []  # another seed
    before = ["data", "sft", "sample", "rank", "pairs"]
    assert share_stages(loss, [standard, low, loss]) == before
    assert not (loss.folder / "reward").exists()
    assert not (loss.folder / "models" / "reward").exists()
    assert share_stages(low, [standard, low, loss]) == [*before, "reward"]
    assert (low.folder / "models" / "reward" / "model.safetensors").read_text() == "models/reward"
    assert (low.folder / "pairs" / "rows.jsonl").read_text() == "pairs"
    assert not (low.folder / "models" / "actor").exists()
    assert not list(low.folder.rglob("checkpoints"))
    assert json.loads((low.folder / "pipeline.json").read_text()) == {"seed": 0}
    # One that has begun is left alone.
    (low.folder / "pairs" / "rows.jsonl").write_text("mine")
    assert share_stages(low, [standard]) == []
    assert (low.folder / "pairs" / "rows.jsonl").read_text() == "mine"


def test_an_unfinished_stage_ends_what_is_shared(tmp_path):
    standard, low = plan_runs([ablation(low={"rlhf": {"gamma": 0.9}})], [0], tmp_path, QUICKSTART)
    finish(standard, "data")
    finish(standard, "sample")  # without sft, which comes before it
    assert share_stages(low, [standard]) == ["data"]
