"""The planner's benchmark: what it runs, and one corner of its table for real."""

import importlib
import json

import pytest

from common.benchmark.plan import Case, PlanBenchmark, cases, options, table
from common.config.parsing import parse_arguments
from common.config.pipeline import MODULES
from tests.stages import finish, start


def test_all_corners_of_sft_are_run_and_every_option_is_one_of_its_stage(tmp_path):
    chosen = list(cases(["sft", "reward", "rlhf"]))
    assert len(set(chosen)) == 24 and sum(c.stage == "sft" for c in chosen) == 12
    for case in chosen:
        types = importlib.import_module(MODULES[case.stage]).ARGUMENTS
        groups = parse_arguments(types, case.stage, options(tmp_path, case, 2))
        values = {name: value for group in groups for name, value in vars(group).items()}
        assert values["zero"] == case.zero and bool(values["lora_rank"]) == case.lora


def test_the_table_has_the_error_of_each_row():
    row = {"case": str(Case("sft", "2", True, False)), "planned": 110.0, "measured": 100.0}
    head, rule, line = table([{**row, "phase": "backward"}]).splitlines()
    assert line == "| sft, ZeRO-2, LoRA on, checkpointing off | 110 | 100 | +10.0% | backward |"
    assert head.count("|") == rule.count("|") == line.count("|")


@pytest.mark.slow
def test_plans_of_ppo_are_within_ten_percent_of_what_it_takes(tmp_path):
    small = ["--layers", "4", "--stages", "rlhf", "--progress", "false"]
    # Six runs of a minute each.
    output = finish(start("-m", "common.benchmark.plan", "--run", str(tmp_path), *small), 600)
    rows = json.loads((tmp_path / "plan/rows.json").read_text())
    assert len(rows) == len(list(cases(PlanBenchmark(stages=["rlhf"]).stages))) == 6
    for row in rows:
        assert abs(row["planned"] / row["measured"] - 1) < 0.1, output
