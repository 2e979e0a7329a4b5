"""A process that stays at one place for too long is ended, and says where it was."""

import subprocess
import sys
import time

import pytest
import torch
import torch.distributed as dist

from common.training.watchdog import HUNG_CODE, Watchdog
from tests.ranks import run_ranks
from tests.stages import ROOT, environment

HANG = """
import time
from common.training.watchdog import WATCHDOG

def waits_for_ever():
    time.sleep(600)

WATCHDOG.at("step 16")
WATCHDOG.start(0.01)
for _ in range(4):
    time.sleep(0.3)
    WATCHDOG.at("step 17, scoring")
waits_for_ever()
"""


def test_a_hung_process_says_where_and_ends():
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HANG],
        cwd=ROOT,
        env=environment(RANK="3"),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == HUNG_CODE
    assert "rank 3 has been at step 17, scoring for over 0.01 minutes" in done.stderr
    assert "--step_timeout" in done.stderr and "waits_for_ever" in done.stderr
    assert time.monotonic() - began > 1.2, "as long as the place changes, it may go on"


def test_a_place_names_the_model_that_is_at_work():
    made = Watchdog()
    assert made.place == "start-up"
    made.at("step 3, scoring")
    made.using("critic")
    assert made.place == "step 3, scoring (critic)"
    made.alive()
    assert made.place == "step 3, scoring (critic)"
    made.at("step 3, training")
    assert made.place == "step 3, training"


def test_without_a_limit_nothing_is_ended():
    made = Watchdog()
    made.start(1e-3)
    made.stop()
    time.sleep(0.3)
    made.at("the end")


def joins_late():
    """Rank 1 never comes to the collective that rank 0 is in."""
    from common.training.watchdog import WATCHDOG

    WATCHDOG.at("step 5")
    WATCHDOG.start(0.05)
    if dist.get_rank() == 1:
        time.sleep(600)
    dist.all_reduce(torch.zeros(1))


def test_a_hung_collective_is_cut(capfd):
    began = time.monotonic()
    with pytest.raises(Exception, match=f"exit code {HUNG_CODE}"):
        run_ranks(joins_late, 2, fresh=True)
    assert time.monotonic() - began < 60
    printed = capfd.readouterr().err
    assert "has been at step 5 for over 0.05 minutes" in printed
    assert "all_reduce" in printed
