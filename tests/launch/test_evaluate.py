"""What `launch/evaluate.sh` makes of its words; the stages that it starts are noted, not run."""

import os
import subprocess

import pytest

from tests.stages import ROOT


def evaluate(folder, *words):
    """Exit code and output of the launcher with stand-ins beside it; each stage is a line."""
    folder.mkdir(exist_ok=True)
    script = (ROOT / "launch/evaluate.sh").read_text()
    (folder / "evaluate.sh").write_text(script)
    (folder / "setup.sh").write_text("")
    (folder / "env.sh").write_text(
        'PYTHON=echo GPUS=0\nlaunch_stage() { echo "stage|$(printf "%s|" "$@")"; }\n'
        'launch_plain() { echo "plain $*"; }\n'
    )
    environment = {k: v for k, v in os.environ.items() if k != "RANKS"}
    done = subprocess.run(
        ["bash", folder / "evaluate.sh", *words], capture_output=True, text=True, env=environment
    )
    return done.returncode, done.stdout + done.stderr


def test_models_and_options_reach_the_stage(tmp_path):
    words = "a b --mode harness --limit 20 --benchmarks mmlu gsm8k --data dir --run r --processes 2"
    code, said = evaluate(tmp_path, *words.split(), "--zero", "3")
    assert code == 0
    (line,) = [line for line in said.splitlines() if line.startswith("stage")]
    words = line.split("|")[1:-1]
    assert words[:3] == ["2", "-m", "common.evaluation.benchmarks.run"]
    assert " ".join(words[3:]) == (
        "--mode harness --benchmarks mmlu gsm8k --benchmark_data dir --suite table1 --models a b "
        "--zero 3 --run r --limit 20"
    )


def test_the_domain_is_made_where_it_is_missing_and_asked_of_all_models(tmp_path):
    code, said = evaluate(tmp_path, "a", "b", "c", "--suite", "all", "--run", str(tmp_path / "r"))
    assert code == 0
    bench, plain, stage, report = said.splitlines()
    assert "|--suite|all|--models|a|b|c|" in bench
    assert plain == f"plain echo -m common.data.ad_moderation.prepare --run {tmp_path}/r"
    assert "|common.evaluation.main|--sft|a|--rlhf|b|--further|c|--data|{" in stage
    assert report == f"-m common.evaluation.report {tmp_path}/r"


def test_a_runs_models_are_named_for_the_domain_as_for_the_benchmarks(tmp_path):
    run = tmp_path / "my run"
    words = ["{run}/models/sft", "b", "{run}/c", "--suite", "all", "--run", str(run)]
    code, said = evaluate(tmp_path, *words)
    bench, _, stage, _ = said.splitlines()
    assert code == 0 and "|--models|{run}/models/sft|b|{run}/c|" in bench, "filled by the stage"
    assert f"|--sft|{run}/models/sft|--rlhf|b|--further|{run}/c|--data|" in stage


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--suite", "table2"], "there are table1, ablation, domain and all"),
        (["a", "--suite", "domain"], "give two or more"),
        (["a", "--limit"], "--limit needs a value"),
        (["a", "b", "--suite", "domain", "--mode", "harness"], "does not take --mode"),
    ],
)
def test_mistakes_are_named(tmp_path, words, message):
    code, said = evaluate(tmp_path, *words)
    assert code == 2 and message in said
