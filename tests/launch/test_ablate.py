"""`launch/ablate.sh` from end to end, on a small pipeline."""

import os
import signal
import subprocess
import time

import pytest
import yaml

from tests.stages import ROOT, config_of, environment, write_data, write_rows

NAMES = ("standard", "mine.half_as_wide")


def prepare(tmp_path):
    write_data(tmp_path)
    sections = config_of(tmp_path)
    del sections["dpo"]
    sections["pairs"] = {"rankings": [str(tmp_path / "rankings.jsonl")]}
    for name in ("sft", "reward", "rlhf"):
        sections[name] |= {"zero": "0", "progress": False}
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(sections))
    write_rows(
        tmp_path / "rankings.jsonl",
        [
            {
                "prompt": f"Is the {thing} blue?",
                "responses": [f"The {thing} is blue.", "Yes.", "No, it", "The"],
                "orders": [[1, 0, 2, 3]],
            }
            for thing in ("sky", "sea", "wood", "snow", "coal", "grass")
        ],
    )
    arms = {"as it is": {}, "half as wide": {"rlhf": {"clip_range": 0.1}}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"base": "as it is", "arms": arms}))
    return [
        *("bash", "launch/ablate.sh", str(tmp_path / "mine.yaml"), "--seeds", "0", "1"),
        *("--run", str(tmp_path / "runs"), "--config", str(tmp_path / "small.yaml")),
    ]


def start(command):
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finished(runs):
    return {
        path.relative_to(runs).parts[:3]
        for path in runs.glob("seed*/*/*/result.json")
        if not path.parent.parent.name.startswith(".")
    }


def stand_ins(folder, seeds, script):
    """The launcher with stand-ins beside it: two runs a seed, each of them `script`."""
    plan = "".join(
        f"{seed} out/seed{seed}/{arm} out/{seed}.{arm}\n" for seed in seeds for arm in "ab"
    )
    (folder / "plan").write_text(plan)
    (folder / "python").write_text('if [[ "$3" == plan ]]; then cat plan; else echo "$3"; fi\n')
    (folder / "env.sh").write_text('PYTHON="bash_python"\nbash_python() { bash python "$@"; }\n')
    (folder / "setup.sh").write_text("")
    (folder / "pipeline.sh").write_text(script)
    (folder / "ablate.sh").write_text((ROOT / "launch/ablate.sh").read_text())
    return ["bash", "ablate.sh", "x"]


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_signal_ends_it_with_the_code_of_its_runs_and_begins_no_other(tmp_path, jobs):
    script = 'trap "sleep 0.3; exit 75" TERM\necho "$1" >>begun\nwhile :; do sleep 0.1; done\n'
    command = [*stand_ins(tmp_path, (0, 1, 2), script), "--jobs", jobs]
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True)
    begun = tmp_path / "begun"
    while not begun.exists() or len(begun.read_text().splitlines()) < int(jobs):
        assert process.poll() is None
        time.sleep(0.05)
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) == 75
    assert len(begun.read_text().splitlines()) == int(jobs)


def test_the_code_is_that_of_the_run_that_failed(tmp_path):
    command = stand_ins(tmp_path, (0, 1), '[[ "$1" == out/0.b ]] && exit 3\nexit 0\n')
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 3 and "report" not in done.stdout
    assert "seed1" not in done.stdout and "out/seed0/b: ended with code 3" in done.stderr


@pytest.mark.parametrize("words", [["--jobs"], ["--jobs", "0"], ["--processes", "two"]])
def test_numbers_of_jobs_and_ranks_are_checked(tmp_path, words):
    command = [*stand_ins(tmp_path, (0,), "exit 0\n"), *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and f"{words[0]} needs a whole number" in done.stderr


@pytest.mark.slow
def test_a_stopped_ablation_goes_on_and_shares_stages(tmp_path):
    command = [*prepare(tmp_path), "--jobs", "2"]
    runs = tmp_path / "runs"
    process = start(command)
    while not any(stage == "sft" for *_, stage in finished(runs)):
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGTERM)  # as a terminal and a batch system do
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 75, output[-3000:]
    assert not (runs / "ablations.md").exists()
    kept = finished(runs)

    process = start(command)
    output, _ = process.communicate(timeout=500)
    assert process.returncode == 0, output[-3000:]
    assert kept <= finished(runs)
    for seed in ("seed0", "seed1"):
        for name in NAMES:
            assert (seed, name, "evaluation") in finished(runs)
        assert f"{seed}/mine.half_as_wide: shares sft, sample, pairs, reward with a run" in output
        log = (runs / seed / "mine.half_as_wide.log").read_text()
        assert "reward: finished already, from the same settings and inputs" in log
    page = (runs / "ablations.md").read_text()
    assert "| mine | half as wide, against as it is | 2 |" in page
    assert (runs / "mine.png").read_bytes().startswith(b"\x89PNG")
