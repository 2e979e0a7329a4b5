"""What a rank does with what its heartbeat says."""

import subprocess
import sys

import pytest

from common.errors import UserError
from common.training import peers
from common.training.peers import SECONDS_TO_SPEAK, Peers, silence_limit
from tests.stages import ROOT, environment

HEARTBEAT = """
import sys, time

sys.stdin.readline()
for line in ("port 7", "watched b", "unwatched c", "gone b (10.0.0.2)"):
    print(line, flush=True)
sys.stdin.readline()
print("silent d (10.0.0.4)", flush=True)
time.sleep(60)
"""
RANK = """
import sys, time
import torch.distributed as dist
from common.training import heartbeat
from common.training.peers import PEERS
from common.training.watchdog import WATCHDOG

heartbeat.__file__ = sys.argv[1]
dist.init_process_group("gloo", init_method=f"file://{sys.argv[1]}.store", rank=0, world_size=1)
PEERS.watch("rlhf", "this command")
WATCHDOG.at("step 3, scoring")
print(PEERS.cause(0.0), flush=True)
PEERS.bye()
time.sleep(60)  # in a collective, it could do nothing itself
"""


def test_a_rank_ends_for_a_silent_node_and_knows_of_one_that_is_gone(tmp_path):
    (tmp_path / "heartbeat.py").write_text(HEARTBEAT)
    variables = {"RANK": "0", "LOCAL_RANK": "0", "CROSS_RANK": "0", "CROSS_SIZE": "4"}
    variables |= {"RLHF_SILENCE": "7", "RLHF_STATUS_FILE": str(tmp_path / "status")}
    done = subprocess.run(
        [sys.executable, "-c", RANK, str(tmp_path / "heartbeat.py")],
        cwd=ROOT,
        env=environment(PYTHONPATH=str(ROOT), **variables),
        capture_output=True,
        text=True,
        timeout=50,
    )
    assert done.returncode == 75 and (tmp_path / "status").read_text() == "75\n", done.stderr
    assert done.stdout.startswith("the process on b (10.0.0.2) is gone")
    assert "rlhf: warning: the heartbeat of c cannot be reached" in done.stderr
    assert (
        "rlhf: error: no sign of life from d (10.0.0.4) for 7 s, at step 3, scoring; its cable, "
        "its network or the machine failed. From the last checkpoint, this command goes on"
    ) in done.stderr


def test_a_rank_beside_the_one_with_the_heartbeat_ends_after_it(monkeypatch):
    """Its launcher would end that one with it, before it can know of a silent node."""
    for name, value in (("LOCAL_RANK", 1), ("CROSS_SIZE", 2), ("RLHF_SILENCE", 40)):
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(peers, "is_distributed", lambda: True)
    waited = []
    monkeypatch.setattr(peers.time, "sleep", waited.append)
    beside = Peers()
    beside.watch("sft", "the same command")
    assert beside._process is None and beside.cause(15.0) == ""
    assert len(waited) == 1 and 40 + SECONDS_TO_SPEAK < waited[0] < 50


@pytest.mark.parametrize("text", ["soon", "0", "-3", "nan"])
def test_a_limit_that_is_no_time_is_refused(text, monkeypatch):
    monkeypatch.setenv("RLHF_SILENCE", text)
    with pytest.raises(UserError, match=f"RLHF_SILENCE is '{text}'"):
        silence_limit()
    monkeypatch.setenv("RLHF_SILENCE", "2.5")
    assert silence_limit() == 2.5
    monkeypatch.delenv("RLHF_SILENCE")
    assert silence_limit() == 30.0


def test_on_one_node_there_is_nothing_to_watch(monkeypatch):
    monkeypatch.delenv("CROSS_SIZE", raising=False)
    alone = Peers()
    alone.watch("sft", "the same command")
    alone.bye()
    assert alone.cause(0.0) == "" and alone._process is None
