"""The launcher of the judges: its codes, and that a stopped judge goes on."""

import json
import signal
import subprocess
import threading
import time

import pytest

from tests.common.evaluation.judges.conftest import row, write_responses
from tests.common.evaluation.judges.test_ai import LONGER, PATH
from tests.servers import Server
from tests.stages import ROOT, environment


def start(*words):
    return subprocess.Popen(
        ["bash", "launch/judge.sh", *words],
        cwd=ROOT,
        env=environment(no_proxy="127.0.0.1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.slow
def test_a_stopped_judge_goes_on_and_pays_for_nothing_twice(tmp_path):
    """After six answers, with a seventh request under way, for which it still waits."""
    models = ("sft", "rlhf")
    run = write_responses(tmp_path, [row("s", i, m, f"{m} {i}") for i in range(3) for m in models])
    gate = threading.Event()

    def stall(body):
        gate.wait(300)
        return LONGER(body)

    with Server([*[LONGER] * 6, stall], PATH) as server:
        base = server.url.removesuffix("/chat/completions")
        words = ["ai", "--run", str(run), "--endpoint", base, "--judge_model", "m"]
        words += ["--concurrency", "1", "--progress", "false"]
        process = start(*words)
        deadline = time.monotonic() + 300
        while len(server.bodies) < 7 and time.monotonic() < deadline:
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        gate.set()
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 75 and "the same command goes on" in said, said
        with server.lock:
            server.answers = [LONGER]
        process = start(*words)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said
        assert len(server.bodies) == 3 * (2 + 2)
    (judge,) = json.loads((run / "evaluation/criteria.json").read_text())["judges"]
    assert judge["prompts"] == 3


@pytest.mark.slow
def test_mistakes_end_with_code_2():
    process = start("people", "--run", "nowhere")
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 2
    assert said.startswith("judge: error: nowhere: has no evaluation")
