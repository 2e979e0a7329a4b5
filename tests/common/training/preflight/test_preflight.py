"""Between processes of this machine: who cannot be reached, who did not come, and all is well."""

import re
import socket
import subprocess
import sys
import threading
import time
from dataclasses import replace

import pytest

from common.errors import UserError
from common.training.nodes import Place, node_name
from common.training.preflight import __main__ as preflight
from common.training.preflight import board, facts, network
from common.training.preflight.board import Board, why_unreachable
from common.training.preflight.network import Ping, answering, bus_bandwidth, in_time, ping
from tests.stages import ROOT, environment


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_why_a_connection_does_not_come_about():
    assert "it refused" in why_unreachable("127.0.0.1", free_port(), 0)
    assert "its name is unknown" in why_unreachable("no-such-node.invalid", 1, 0)
    with socket.create_server(("127.0.0.1", 0)) as there:
        assert why_unreachable("127.0.0.1", there.getsockname()[1], 0) == ""
    with pytest.raises(UserError, match=r"first node, 127\.0\.0\.1, cannot be reached at port"):
        Board(Place(1, 2, 0, 1, 2), "127.0.0.1", free_port(), seconds=0)
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} cannot be used.*--master_port"):
            Board(Place(0, 2, 0, 0, 2), "127.0.0.1", port, seconds=1)


def test_the_other_clock_is_told_to_half_a_round_trip():
    with answering() as port:
        found = ping("127.0.0.1", port)
        assert not found.why_not and 0 < found.round_trip < 5
        assert abs(found.ahead) <= found.round_trip / 2
    assert "it refused" in ping("127.0.0.1", port).why_not

    def answer_an_hour_ahead(there):
        connection, _ = there.accept()
        for delay in (0.2, 0.0, 0.2, 0.2, 0.2):  # the quick answer is the exact one
            connection.recv(1)
            now = time.time() + 3600
            time.sleep(delay)
            connection.sendall(f"{now}\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as there:
        threading.Thread(target=answer_an_hour_ahead, args=[there], daemon=True).start()
        found = ping("127.0.0.1", there.getsockname()[1])
    assert found.round_trip < 0.2 and found.ahead == pytest.approx(3600, abs=0.09)


def test_who_cannot_reach_whom():
    names = {0: "a", 1: "b", 2: "c"}
    pings = {0: {1: Ping(), 2: Ping("no answer")}, 1: {0: Ping(), 2: Ping()}}
    (problem,) = network.unreachable(pings, names)
    assert problem.node == "a" and "cannot reach c" in problem.text and "no answer" in problem.text


def test_bandwidth_of_a_ring():
    # Two ranks: each half goes over the link once to be summed, and once back.
    assert bus_bandwidth(size=1000, ranks=2, seconds=0.5) == 2000
    assert bus_bandwidth(size=1000, ranks=4, seconds=1.0) == 1500


def test_what_hangs_or_fails_is_told():
    def refuse():
        raise RuntimeError("no route\nbecause")

    assert in_time(lambda: 2.5, 5) == (2.5, "")

    def refuse_without_a_word():
        raise RuntimeError

    assert in_time(refuse, 5) == (0.0, "no route")
    assert in_time(refuse_without_a_word, 5) == (0.0, "RuntimeError")
    assert in_time(lambda: time.sleep(60), 0.05) == (0.0, "it hung for 0 s")


@pytest.fixture
def first_of_two(monkeypatch, tmp_path):
    monkeypatch.setattr(board, "SECONDS_A_TRY", 0.5)  # it waits so long for others to read
    (tmp_path / "hosts").write_text("# ours\n127.0.0.1 slots=1\n\nsecond slots=1\n")
    (tmp_path / "notes").mkdir()
    variables = {"RANK": 0, "WORLD_SIZE": 2, "LOCAL_RANK": 0, "CROSS_RANK": 0, "CROSS_SIZE": 2}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    variables |= {"RLHF_HOSTFILE": tmp_path / "hosts", "RLHF_STOP_FILE": tmp_path / "notes/stop"}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path


def test_a_node_that_does_not_come_is_named(first_of_two, capfd):
    assert node_name(1) == "second" and node_name(2) == "node 2"
    assert preflight.preflight(preflight.PreflightArguments(seconds=0.5)) == 2
    assert "second: it did not come to the first node within 0.5 s" in capfd.readouterr().err


def test_a_node_whose_part_failed_is_not_waited_for(first_of_two, capfd):
    (first_of_two / "notes/failed.1").touch()
    began = time.monotonic()
    assert preflight.preflight(preflight.PreflightArguments(seconds=60)) == 2
    assert time.monotonic() - began < 30
    assert "second: its part of the preflight failed" in capfd.readouterr().err


def test_what_goes_wrong_on_a_node_is_for_all_to_know(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "SECONDS_TO_SHOW", 0.0)
    settings = preflight.PreflightArguments(folder=str(tmp_path / "nowhere"))
    marked = {"name": "x", "content": "y"}
    assert preflight.facts_here("b", settings, marked)["elsewhere"] == str(tmp_path / "nowhere")
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere/x").write_text("y")
    (tmp_path / "d").write_text("one\n")
    source = f'{{"path": "{tmp_path}/d", "weight": 2}}'
    settings = replace(settings, data=[source])
    found = preflight.facts_here("b", settings, marked)
    assert not found["elsewhere"] and found["data"][f"{tmp_path}/d"] not in ("", facts.MISSING)
    settings = replace(settings, data=['{"file": "d"}'])
    assert "unknown key 'file'" in preflight.facts_here("b", settings, marked)["why_not"]

    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(preflight, "gather_facts", fail)
    settings = replace(settings, data=[])
    why_not = preflight.facts_here("b", settings, marked)["why_not"]
    assert why_not.startswith("it could not be looked at: PermissionError")


def test_a_folder_that_is_not_there_is_told_at_once(first_of_two, monkeypatch, capfd):
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("CROSS_SIZE", "1")
    settings = preflight.PreflightArguments(folder=str(first_of_two / "run"), seconds=5)
    assert preflight.preflight(settings) == 2
    assert f"127.0.0.1: nothing can be written into {first_of_two}/run" in capfd.readouterr().err


def test_ranks_that_do_not_come_out_of_the_sum_are_named_and_who_waited_is_not():
    names = {0: "a", 1: "b"}
    hung = (0.0, "it hung for 9 s", 0)
    (gone,) = preflight.sum_problems({0: hung, 1: hung}, {2: 1, 3: 1}, names, "gloo")
    assert gone.node == "b" and gone.text.startswith("rank 2, 3 did not come out of")
    refused = (0.0, "no route", 0)
    both = preflight.sum_problems({1: refused, 0: hung}, {3: 1}, names, "nccl")
    assert [p.node for p in both] == ["b", "a"] and "failed on rank 1: no route. NCCL_" in both[
        1
    ].text
    all_hung = preflight.sum_problems({0: hung, 1: (0.0, "it hung for 9 s", 1)}, {}, names, "gloo")
    assert [p.node for p in all_hung] == ["a", "b"]
    assert preflight.sum_problems({0: (1.0, "", 0), 1: (1.0, "", 1)}, {}, names, "gloo") == []


@pytest.mark.parametrize(("failed", "named"), [([], ["b", "c"]), ([2], ["c"])])
def test_missing_ranks_belong_to_nodes(failed, named, monkeypatch):
    """Rank 2 said where it is; rank 5 never did. A node that failed has kept the others' word."""

    class Notes:
        place, seconds = Place(0, 6, 0, 0, 3), 0.0
        notes = {"sum": {r: (1.0, "", r // 2) for r in (0, 1, 3, 4)}, "rank": {2: 1}}

        def collect(self, topic, numbers, seconds):
            return self.notes[topic]

    monkeypatch.setattr(preflight, "failed_nodes", lambda: failed)
    found = preflight.judge_sums(Notes(), {0: "a", 1: "b", 2: "c"})
    assert [node for node, _ in found] == named


def test_two_nodes_that_fit_together_though_no_hostfile_names_them(tmp_path, monkeypatch):
    monkeypatch.delenv("RLHF_HOSTFILE", raising=False)
    (tmp_path / "data").write_text("one\n")
    port = free_port()
    words = [*("--data", tmp_path / "data"), *("--folder", tmp_path), *("--seconds", 40)]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "common.training.preflight", *map(str, words)],
            cwd=ROOT,
            env=environment(
                PYTHONPATH=str(ROOT),
                **{"RANK": str(i), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "CROSS_RANK": str(i)},
                **{"CROSS_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in (0, 1)
    ]
    outputs = [process.communicate(timeout=90)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    head, first, second, total = outputs[0].splitlines()
    assert head.split()[1:6] == ["node", "name", "code", "packages", "data"]
    # The same code, packages and data: the same digests.
    first, second = (re.split("  +", line) for line in (first, second))
    assert first[1] == "node 0" and second[1] == "node 1"
    assert first[2:5] == second[2:5]
    assert "all-reduce of 64 MiB over 2 ranks by gloo" in total
    assert outputs[1] == ""
