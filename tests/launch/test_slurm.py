"""slurm.sbatch with stand-ins for Slurm's own commands; it has not been on a cluster."""

import os
import signal
import subprocess
import time

import pytest

from tests.stages import ROOT

SRUN = """#!/bin/bash
# Every node's task is one process here; signals are passed on, the highest code is the code.
shift
tasks=()
for ((i = 0; i < NODE_COUNT; i++)); do SLURM_NODEID=$i "$@" & tasks+=($!); done
trap 'kill -USR1 "${tasks[@]}"' USR1
code=0
for task in "${tasks[@]}"; do
  while kill -0 "$task" 2>/dev/null; do wait "$task"; done
  wait "$task"; got=$?
  ((got > code)) && code=$got
done
exit "$code"
"""
SCONTROL = """#!/bin/bash
if [[ "$1" == show ]]; then for ((i = 0; i < NODE_COUNT; i++)); do echo "node$i"; done; exit; fi
echo "$@" >>calls
"""
# Stands for multinode.sh, and on one node for the launcher: notes its arguments, ends as asked.
LAUNCHER = """
trap 'exit 75' USR1
echo "$@" >"started.$SLURM_NODEID"
for ((i = 0; i < WAIT; i++)); do sleep 0.1; done
exit "$CODE"
"""


def submitted(folder, nodes, code, wait):
    (folder / "tools").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (folder / "tools" / name).write_text(text)
        (folder / "tools" / name).chmod(0o755)
    (folder / "launch").mkdir()
    (folder / "launch/multinode.sh").write_text(LAUNCHER)
    (folder / "launcher.sh").write_text(LAUNCHER)
    slurm = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node[0-1]", "SLURM_GPUS_ON_NODE": "4"}
    tools = f"{folder}/tools:{os.environ['PATH']}"
    more = {"PATH": tools, "NODE_COUNT": str(nodes), "CODE": str(code), "WAIT": str(wait)}
    return subprocess.Popen(
        ["bash", str(ROOT / "launch/slurm.sbatch"), "launcher.sh", "--run", "a run"],
        cwd=folder,
        env={**os.environ, **slurm, **more},
    )


@pytest.mark.parametrize("nodes", [1, 2])
def test_slurms_warning_reaches_all_nodes_and_the_job_queues_again(tmp_path, nodes):
    job = submitted(tmp_path, nodes, code=0, wait=200)
    deadline = time.monotonic() + 10
    while len(list(tmp_path.glob("started.*"))) < nodes and time.monotonic() < deadline:
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)  # by itself it ends nothing: the tasks get their own
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=10) == 75
    assert (tmp_path / "calls").read_text() == "requeue 7\n"


@pytest.mark.parametrize("code", [0, 2])
def test_a_job_that_is_done_or_has_failed_is_not_queued_again(tmp_path, code):
    assert submitted(tmp_path, 2, code, wait=0).wait(timeout=10) == code
    assert not (tmp_path / "calls").exists()
    (hosts,) = (tmp_path / "runs/.slurm").glob("*.hosts")
    assert hosts.read_text() == "node0 slots=4\nnode1 slots=4\n"
    for i in (0, 1):
        expected = f"--no_ssh --node_rank {i} --master_addr node0 launcher.sh --run a run"
        assert (tmp_path / f"started.{i}").read_text().strip().endswith(expected)
