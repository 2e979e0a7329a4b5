"""The pipeline on other people's files: every reader and every stage, as a user starts them."""

import json
import math
import os
import subprocess
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from common.config.parsing import fill_placeholders

ROOT = Path(__file__).parents[2]
DATA = Path(fill_placeholders("{data}", ""))
COMMAND = ["bash", "launch/pipeline.sh", "launch/real_data.yaml", "--run"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (DATA / "preference").is_dir(),
        reason=f"no data in {DATA}; RLHF_DATA names the folder of data files",
    ),
    pytest.mark.skipif(
        not (ROOT / ".venv/bin/python").is_file(), reason="run `bash launch/setup.sh` first"
    ),
]


def run_pipeline(folder: Path) -> str:
    done = subprocess.run(
        [*COMMAND, str(folder)],
        cwd=ROOT,
        env={**os.environ, "RLHF_DATA": str(DATA)},
        text=True,
        capture_output=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real") / "run"
    return folder, run_pipeline(folder)


def test_every_stage_of_the_chain_has_worked(run):
    folder, output = run
    summary = json.loads((folder / "summary.json").read_text())
    stages = summary["stages"]
    assert set(stages) == {"sft", "sample", "reward", "rlhf", "evaluation"}
    # 999 rows in the file: each one is trained on, held out, or counted as left out.
    assert 900 < stages["sft"]["examples"] < 999
    assert sum(stages["sft"]["pii_replaced"].values()) > 0
    assert 1 < stages["sft"]["eval_perplexity"] < 1536, "no better than a uniform guess"
    assert stages["sample"]["prompts"] == 20 and stages["sample"]["responses"] == 100
    # 1,095 pairs at most, and at most four for each of 300 rankings of five.
    assert 1095 < stages["reward"]["pairs"] + stages["reward"]["held_out_pairs"] < 1095 + 1200
    assert stages["reward"]["accuracy"] > 0.5
    assert stages["rlhf"]["prompts"] + stages["rlhf"]["left_out"]["long prompts skipped"] == 335
    assert math.isfinite(stages["rlhf"]["score"]) and stages["rlhf"]["kl_per_sequence"] < 6
    for split, prompts in (("lottery", 60), ("trees", 40)):
        block = summary["evaluation"][split]
        assert 0 < block["prompts"] <= prompts and block["judge"] == "reward_model"
        counted = block["rlhf_wins"] + block["ties"] + block["rlhf_losses"]
        assert counted == block["prompts"]
    assert "lottery*" in output and "no independent evidence" in output
    assert '<div id="samples">' in (folder / "report.html").read_text()


def test_stock_classes_load_what_was_trained(run):
    folder, _ = run
    for name, kind in (
        ("sft", AutoModelForCausalLM),
        ("actor", AutoModelForCausalLM),
        ("reward", AutoModelForSequenceClassification),
    ):
        _, info = kind.from_pretrained(folder / "models" / name, output_loading_info=True)
        assert not any(info.values()), (name, info)


def test_a_second_run_trains_nothing_again(run):
    folder, _ = run
    stages = ("sft", "sample", "reward", "rlhf", "evaluation")
    before = {s: (folder / s / "result.json").stat().st_mtime_ns for s in stages}
    run_pipeline(folder)
    assert before == {s: (folder / s / "result.json").stat().st_mtime_ns for s in stages}
