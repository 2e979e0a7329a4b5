"""What a pipeline file leads to: which stages run, whose the run directory is, what is refused."""

import importlib
import json
from pathlib import Path

import pytest

from common.config.parsing import parse_arguments, result_settings
from common.config.pipeline import MODULES, Plan, main, make_plan
from common.errors import UserError
from common.training.stage import Stage

CONFIG = """\
run: {run}
seed: 5
processes: 2
data:
  scale: 0.5
sft:
  model: tiny
  data: ["{{run}}/data/sft.jsonl"]
pairs: {{}}
reward:
rlhf:
  data: ["{{run}}/data/rlhf_prompts.jsonl"]
  steps: 4
"""
STAGES = ("data", "sft", "pairs", "reward", "rlhf")


@pytest.fixture
def config(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(CONFIG.format(run=tmp_path / "run"), encoding="utf-8")
    return file


def finish(plan: Plan, *stages: str) -> None:
    """Leaves what a finished stage leaves."""
    options = ["--config", str(plan.config), "--run", str(plan.run), "--seed", str(plan.seed)]
    for stage in stages:
        types = importlib.import_module(MODULES[stage]).ARGUMENTS
        groups = parse_arguments(types, stage, options)
        folder = plan.run / stage
        run_of_stage = Stage(stage, groups[0], {}, result_settings(*groups))
        run_of_stage.begin()
        (folder / "result.json").write_text("{}")


def left(config: Path, *argv: str) -> tuple[str, ...]:
    """Stages that have not been done with the settings that the file has now."""
    plan = make_plan([str(config), *argv])
    return tuple(name for name in plan.stages if name not in plan.settled)


def edit(config: Path, before: str, after: str) -> None:
    text = config.read_text()
    assert text.count(before) == 1
    config.write_text(text.replace(before, after))


def refused(config: Path, *argv: str) -> str:
    with pytest.raises(UserError) as caught:
        make_plan([str(config), *argv])
    return str(caught.value).replace(str(config), "FILE")


def test_a_fresh_plan_has_every_section_in_the_pipelines_order(config, tmp_path):
    edit(config, "data:\n  scale: 0.5\n", "")
    config.write_text(config.read_text() + "data:\n  scale: 0.5\n")  # last in the file, still first
    plan = make_plan([str(config)])
    assert plan == Plan(tmp_path / "run", 2, 5, config.resolve(), STAGES)


def test_the_command_line_beats_the_file(config, tmp_path):
    plan = make_plan(
        [str(config), "--run", str(tmp_path / "other"), "--seed=0", "--processes", "1"]
    )
    assert (plan.run, plan.seed, plan.processes) == (tmp_path / "other", 0, 1)


def test_a_file_without_run_seed_and_processes(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.write_text("data: {}\n")
    plan = make_plan([str(config)])
    assert (plan.run, plan.seed, plan.processes) == (Path("runs/config"), 0, 1)


def test_finished_stages_are_settled(config):
    plan = make_plan([str(config)])
    finish(plan, "data", "sft")
    assert make_plan([str(config)]).stages == STAGES
    assert left(config) == ("pairs", "reward", "rlhf")
    finish(plan, "pairs", "reward", "rlhf")
    assert left(config) == ()


def test_an_unfinished_stage_is_left_and_what_follows_is_for_its_inputs_to_say(config):
    plan = make_plan([str(config)])
    finish(plan, "data", "pairs", "reward", "rlhf")
    assert left(config) == ("sft",)


def test_a_changed_section_is_left(config):
    finish(make_plan([str(config)]), *STAGES)
    edit(config, "model: tiny", "model: tiny\n  eval_fraction: 0.1")
    assert left(config) == ("sft",)
    # Interrupted at once: the change must not be forgotten.
    assert left(config) == ("sft",)


@pytest.mark.parametrize("setting", ["progress: false", "checkpoint_minutes: 1", "wandb: false"])
def test_what_changes_no_result_is_no_change(config, setting):
    finish(make_plan([str(config)]), *STAGES)
    edit(config, "model: tiny", f"model: tiny\n  {setting}")
    assert left(config) == ()


def test_layout_and_comments_are_no_change(config):
    finish(make_plan([str(config)]), *STAGES)
    edit(config, "data:\n  scale: 0.5\n", "data: {scale: 0.50}  # the same\n")
    assert left(config) == ()


def test_a_new_section_is_left(config):
    finish(make_plan([str(config)]), *STAGES)
    edit(config, "pairs: {}\n", "rank: {labelers: 3}\npairs: {}\n")
    assert left(config) == ("rank",)


def test_a_run_may_be_moved(config, tmp_path):
    finish(make_plan([str(config)]), *STAGES)
    (tmp_path / "run").rename(tmp_path / "moved")
    assert left(config, "--run", str(tmp_path / "moved")) == ()


def test_a_run_belongs_to_one_seed_and_to_any_number_of_processes(config):
    finish(make_plan([str(config)]), "data")
    message = refused(config, "--seed", "6")
    assert "was made with seed 5, not 6" in message
    assert "--fresh" in message and "--run" in message
    assert left(config) == STAGES[1:], "the refusal must change nothing"
    assert left(config, "--processes", "1") == STAGES[1:]


def test_one_stage_is_restarted_by_name(config):
    plan = make_plan([str(config)])
    finish(plan, *STAGES)
    assert left(config, "--restart", "reward") == ("reward",)
    assert refused(config, "--restart", "rewards") == (
        "--restart rewards: no such stage; did you mean 'reward'?"
    )


def test_fresh_starts_over(config):
    plan = make_plan([str(config)])
    finish(plan, *STAGES)
    (plan.run / "models").mkdir()
    plan = make_plan([str(config), "--fresh", "--seed", "6"])
    assert (plan.seed, plan.stages, plan.settled) == (6, STAGES, ())
    assert [p.name for p in plan.run.iterdir()] == ["pipeline.json"]


def test_fresh_refuses_a_folder_that_no_pipeline_made(config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("years of work")
    message = refused(config, "--fresh")
    assert "no pipeline made it" in message and str(tmp_path / "run") in message
    assert (tmp_path / "run" / "thesis.txt").read_text() == "years of work"


def test_fresh_takes_an_empty_folder_or_none(config, tmp_path):
    assert make_plan([str(config), "--fresh"]).stages == STAGES
    (tmp_path / "empty").mkdir()
    assert make_plan([str(config), "--fresh", "--run", str(tmp_path / "empty")]).stages == STAGES


def test_a_mistake_in_the_last_section_is_told_before_the_first_stage(config):
    plan = make_plan([str(config)])
    finish(plan, "data")
    edit(config, "steps: 4", "stepz: 4")
    message = refused(config, "--fresh")
    assert message == "FILE:13: unknown setting 'stepz'; did you mean 'steps'?"
    assert (plan.run / "data" / "result.json").is_file(), "--fresh must not delete for a typo"


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("steps: 4", "steps: four", "FILE:13: argument --steps: invalid int value: 'four'"),
        ("steps: 4", "steps: 0", "steps is 0, but must be at least 1"),
        ("reward:\n", "rewards:\n", "FILE:10: unknown section 'rewards'; did you mean 'reward'?"),
        ("pairs: {}", "pairs: 3", "FILE:9: 'pairs' must hold settings (key: value)"),
        ("seed: 5", "seed: five", "FILE:2: 'seed' must be a whole number"),
        ("processes: 2", "processes: 1.5", "FILE:3: 'processes' must be a whole number"),
        ("processes: 2", "processes: 0", "--processes is 0, but must be at least 1"),
        (
            "processes: 2",
            "<<: {procesess: 2}",
            "FILE: unknown section 'procesess'; did you mean 'processes'?",
        ),
        ("seed: 5", "seed: 5\nseed: 6", "FILE:3: 'seed' is given twice"),
        ("  steps: 4", "  lam: 2.0", "gamma (1.0) and lam (2.0) must lie in [0, 1]"),
        ("  steps: 4", "  preset: ice", "unknown preset 'ice'; did you mean 'ice_grt'?"),
        (
            "  steps: 4",
            "  eval_data: [{path: x.csv, weigth: 2}]",
            "FILE:13: data[0]: unknown key 'weigth'; did you mean 'weight'?",
        ),
        ("  steps: 4", "  eval_data: [gone.jsonl]", "FILE:13: no such file: gone.jsonl"),
        ("  steps: 4", "  benchmark_data: gone", "FILE:13: no such folder: gone"),
        (
            "  steps: 4",
            "  reward: [models/reward, 'python:gone.py:score']",
            "FILE:13: reward python:gone.py:score: no such file: gone.py",
        ),
        (
            "  steps: 4",
            "  reward: [{path: m, wait: 1}]",
            "FILE:13: reward[0]: unknown key 'wait'; did you mean 'weight'?",
        ),
        (
            "  steps: 4",
            "  ptx_data: [gone.jsonl]\n  ptx_coefficient: 1",
            "FILE:13: no such file: gone.jsonl",
        ),
        (
            "  steps: 4",
            "  eval_data: [~nobody/gone.jsonl]",
            "FILE:13: no such file: ~nobody/gone.jsonl",
        ),
        (
            "  steps: 4",
            f"  eval_data: [{'x' * 300}.jsonl]",
            f"FILE:13: no such file: {'x' * 300}.jsonl",
        ),
    ],
)
def test_mistakes(config, tmp_path, before, after, message):
    edit(config, before, after)
    found = refused(config).replace("/--rollout-batch-size", "")
    assert found.replace("argument --steps/--steps", "argument --steps") == message
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("run", ["7", "2024_01", "true", "[a]", "{a: 1}"])
def test_a_run_directory_is_a_text(config, run):
    config.write_text(f"data: {{}}\nrun: {run}\n")
    message = "FILE:2: 'run' must be the name of a folder (in quotes if it looks like a number)"
    assert refused(config) == message


def test_a_run_may_be_named_by_its_date(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config.write_text("data: {}\nrun: 2024-01-31\n")
    assert make_plan([str(config)]).run == Path("2024-01-31")


@pytest.mark.parametrize("fresh", [(), ("--fresh",)])
def test_a_run_directory_that_cannot_be_made(config, tmp_path, fresh):
    (tmp_path / "file").write_text("")
    for run, words in (("file", ""), ("file/run", ""), ("x" * 300, "File name too long")):
        message = refused(config, "--run", str(tmp_path / run), *fresh)
        assert message.startswith(f"{tmp_path / run}: cannot be the run directory: ")
        assert words in message


@pytest.mark.parametrize("record", ["", "[]", '{"seed": 5', "\udcff", "[" * 5000])
def test_a_damaged_record_is_named(config, record):
    file = make_plan([str(config)]).run / "pipeline.json"
    file.write_bytes(record.encode("utf-8", "surrogateescape"))
    assert refused(config) == f"{file}: is damaged; use --fresh to start over"
    assert make_plan([str(config), "--fresh"]).stages == STAGES


def test_a_file_without_stages(config):
    config.write_text("run: somewhere\n")
    assert refused(config).startswith("FILE: no stage in it; sections are data, sft, sample")


def test_main_prints_the_plan_for_the_shell(config, tmp_path, capsys):
    assert main([str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{tmp_path / 'run'} 2 5 {config.resolve()}", *(f"{s} 0" for s in STAGES)]
    record = json.loads((tmp_path / "run" / "pipeline.json").read_text())
    assert record == {"seed": 5}


def test_main_tells_errors_without_a_traceback(config, capsys):
    edit(config, "reward:\n", "rewards:\n")
    assert main([str(config)]) == 2
    printed = capsys.readouterr()
    assert not printed.out and printed.err.startswith("pipeline: error: ")


def test_blanks_in_a_path_are_refused(config, tmp_path, capsys):
    assert main([str(config), "--run", str(tmp_path / "my run")]) == 2
    assert "blanks in a path" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("section", "row", "message"),
    [
        ("sft", '{"prompt": "q", "completion": ', "broken JSON"),
        ("reward", '{"prompt": "q", "chosen": "a"}', "field 'rejected' is missing"),
        ("rlhf", '{"prompt": ""}', "field 'prompt' is empty"),
    ],
)
def test_what_a_later_stage_would_refuse_is_refused_before_the_first(
    tmp_path, section, row, message
):
    data = tmp_path / "mine.jsonl"
    good = '{"prompt": "q", "completion": "a", "chosen": "a", "rejected": "b"}'
    data.write_text(f"{good}\n{row}\n")
    file = tmp_path / "config.yaml"
    file.write_text(f"run: {tmp_path / 'run'}\ndata: {{}}\n{section}:\n  data: [{data}]\n")
    with pytest.raises(UserError, match=f"mine.jsonl:2: {message}"):
        make_plan([str(file)])
    assert not (tmp_path / "run").exists()
    data.write_text(f"{good}\n")
    assert make_plan([str(file)]).stages == ("data", section)


def test_settled_stages_are_marked_for_the_shell(config, capsys):
    finish(make_plan([str(config)]), "data", "sft")
    capsys.readouterr()
    assert main([str(config)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["data 1", "sft 1", "pairs 0", "reward 0", "rlhf 0"]
