"""A share of `launch/chaos.sh`: runs that are killed or stopped end as runs that were not."""

import random
import signal
import subprocess
import time

import psutil
import pytest
import torch

from tests.chaos import ALL_CHECKPOINTS, NO_CHECKPOINTS, Case, Killed, compare, prepare
from tests.stages import finish, launch

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(torch.cuda.is_available(), reason="two ranks in fp32 on the CPU"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("chaos")
    return root, prepare(root)


@pytest.fixture(scope="module")
def undisturbed(base):
    """The run that a case is compared with; made once."""
    made = {}

    def get(case):
        if case not in made:
            pair = Killed(case, *base, random.Random(str(case)))
            made[case] = (pair, pair.undisturbed())
        return made[case]

    return get


CASES = [
    *(Case("sft", 1, "0", lora=True), Case("sft", 2, "3", lora=True), Case("reward", 2, "0")),
    *(Case("sample", 2), Case("evaluation", 2), Case("rlhf", 1, "0"), Case("rlhf", 2, "3")),
    *(Case("dpo", 1, "0"), Case("dpo", 2, "3", lora=True)),
]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_killed_run_ends_bit_for_bit_as_one_that_was_not(undisturbed, case):
    pair, whole = undisturbed(case)
    assert compare(case.stage, whole, pair.killed(1)) == []


STOPS = [(Case("rlhf", 1, "0"), signal.SIGTERM)]
MORE_STOPS = [
    *((Case("sft", 1, "0", lora=True), signal.SIGINT), (Case("rlhf", 2, "3"), signal.SIGINT)),
    *((Case("reward", 2, "0"), signal.SIGUSR1), (Case("sample", 2), signal.SIGTERM)),
    (Case("evaluation", 2), signal.SIGTERM),
]


@pytest.mark.parametrize(
    ("case", "number"),
    [*STOPS, *(pytest.param(*s, marks=pytest.mark.slow) for s in MORE_STOPS)],
    ids=str,
)
def test_a_stopped_run_is_saved_says_so_by_its_code_and_goes_on(undisturbed, case, number):
    pair, whole = undisturbed(case)
    run = pair.folder("stopped")
    trains = case.stage in ("sft", "reward", "rlhf")  # the others have no metrics to look at
    process = pair.begin(run, *(NO_CHECKPOINTS if trains else ALL_CHECKPOINTS))
    pair.wait_for_work(process, run)
    everything = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 75, output[-3000:]
    assert f"{case.stage}: stopped; the same command goes on" in output
    assert "Traceback" not in output
    assert not psutil.wait_procs(everything, timeout=5)[1], "a process was left behind"
    saved = sorted((run / case.stage / "checkpoints").glob("step_*"))
    assert saved and not (run / case.stage / "result.json").exists()
    said = finish(pair.begin(run, *ALL_CHECKPOINTS))
    assert f"going on after step {int(saved[-1].name.split('_')[1])}" in said
    assert compare(case.stage, whole, run) == []


def long_run(base, kind):
    """A run that is at work, and would be for long; with all its processes."""
    pair = Killed(Case("sft", 1, "0"), *base, random.Random(0))
    run = pair.folder(kind)
    process = pair.begin(run, *NO_CHECKPOINTS, "--epochs", "4000")
    pair.wait_for_work(process, run)
    return process, psutil.Process(process.pid).children(recursive=True)


@pytest.mark.slow
def test_a_second_signal_ends_at_once(base):
    process, everything = long_run(base, "twice")
    # Stopped ranks cannot finish their step: only the second signal can end them.
    for one in everything:
        one.suspend()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 137, output[-3000:]
    assert not psutil.wait_procs(everything, timeout=5)[1]


@pytest.mark.slow
def test_the_launchers_own_death_is_no_success_and_leaves_nothing(base):
    """The deepspeed command by itself would end with 0, and leave the rank behind."""
    process, everything = long_run(base, "orphans")
    (launcher,) = [p for p in everything if "deepspeed.launcher.launch" in " ".join(p.cmdline())]
    launcher.kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1 and "the launcher ended before its ranks" in output
    assert not psutil.wait_procs(everything, timeout=5)[1]


@pytest.mark.slow
def test_a_run_whose_shell_was_killed_saves_and_ends(base):
    process, everything = long_run(base, "shell")
    process.kill()
    assert not psutil.wait_procs(everything, timeout=30)[1]
    run = base[0] / "sft_1_rank(s)_ZeRO_0.shell" / "sft"
    steps = len((run / "metrics.jsonl").read_text().splitlines())
    assert max((run / "checkpoints").glob("step_*")).name == f"step_{steps:08d}"


def test_a_rank_that_fails_is_heard_first_and_takes_the_others_along(tmp_path):
    """The other waits for it in a collective."""
    script = tmp_path / "fails.py"
    script.write_text(
        """
import torch.distributed as dist, torch
from common.config.arguments import RunArguments
from common.training.distributed import rank
from common.training.run import run_stage

def main(stage, run):
    stage.begin()
    if rank() == 1:
        raise KeyError("the cause")
    dist.all_reduce(torch.zeros(1))

run_stage("fails", (RunArguments,), main)
"""
    )
    began = time.monotonic()
    process = launch(2, str(script), "--run", str(tmp_path / "run"))
    time.sleep(3)
    output, _ = process.communicate(timeout=90)
    assert process.returncode not in (0, 75)
    assert time.monotonic() - began < 60
    assert "KeyError" in output and "(rank 1)" in output
    follows = output.find("another rank is gone or hung")
    assert follows == -1 or output.index("the cause") < follows
    left = subprocess.run(["pgrep", "-f", str(script)], capture_output=True, text=True).stdout
    assert not left
