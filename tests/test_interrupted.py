"""Whole stages that are interrupted: by a full disk, and by moving to other numbers of ranks."""

import random
import shutil
import signal

import pytest
import torch

from common.training.resume import folders
from tests.chaos import ALL_CHECKPOINTS, Case, Killed, compare, prepare, untimed
from tests.disks import make_room, small_disk
from tests.stages import finish

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(torch.cuda.is_available(), reason="two ranks in fp32 on the CPU"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    root = tmp_path_factory.mktemp("interrupted")
    return root, prepare(root)


def kilobytes(folder) -> int:
    """As a file system of pages of 4 KiB counts them."""
    return sum(4 * -(-p.stat().st_size // 4096) for p in folder.rglob("*") if p.is_file())


def test_a_run_on_a_disk_that_holds_one_checkpoint(base, tmp_path):
    pair = Killed(Case("sft", 1, "0"), *base, random.Random(0))
    whole = pair.undisturbed()
    saved = kilobytes(whole / "sft" / "checkpoints")
    rest = kilobytes(whole) - saved
    with small_disk(tmp_path / "disk", rest + saved * 3 // 2) as disk:
        run = disk / "run"
        shutil.copytree(pair.folder("full"), run)
        process = pair.begin(run, *ALL_CHECKPOINTS)
        output, _ = process.communicate(timeout=90)
        assert process.returncode == 2, output[-3000:]
        assert "Traceback" not in output
        assert "the checkpoint of step 2 could not be written" in output, output[-3000:]
        assert "step 1 is whole" in output and "Make room" in output
        assert folders.damage(run / "sft" / "checkpoints" / "step_00000001") is None
        make_room(disk, rest + saved * 8)
        assert "going on after step 1" in finish(pair.begin(run, *ALL_CHECKPOINTS))
        assert compare("sft", whole, run) == []


def moved(pair, run, ranks, *options) -> tuple[str, int]:
    """Goes on with a run on so many ranks; returns what it said, and its exit code."""
    here = Killed(Case(pair.case.stage, ranks, pair.case.zero), pair.root, pair.base, pair.draw)
    process = here.begin(run, *ALL_CHECKPOINTS)
    if "stop" in options:
        here.wait_for_work(process, run)
        process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    return output, process.returncode


@pytest.mark.parametrize(
    "case",
    [Case("sft", 2, "3"), Case("reward", 2, "0"), Case("rlhf", 2, "3"), Case("dpo", 2, "3")],
    ids=str,
)
def test_from_two_ranks_to_one_and_back(base, case):
    pair = Killed(case, *base, random.Random(0))
    whole, run = pair.undisturbed(), pair.folder("moved")
    assert moved(pair, run, 2, "stop")[1] == 75
    said, code = moved(pair, run, 1, "stop")
    assert code == 75 and "from 2 ranks to 1" in said, said[-3000:]
    said, code = moved(pair, run, 2)
    assert code == 0 and "from 1 ranks to 2" in said, said[-3000:]

    expected, found = (untimed(r / case.stage / "metrics.jsonl") for r in (whole, run))
    assert [row["step"] for row in found] == [row["step"] for row in expected]
    if case.stage != "rlhf":  # PPO's mini-batches are each rank's own
        for a, b in zip(expected, found, strict=True):
            assert b["train/loss"] == pytest.approx(a["train/loss"], abs=1e-3), a["step"]
