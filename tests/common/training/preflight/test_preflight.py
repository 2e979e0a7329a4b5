"""Between processes of this machine: who cannot be reached, who did not come, and all is well."""

import socket
import subprocess
import sys
import threading
import time

import pytest

from common.errors import UserError
from common.training.nodes import Place, node_name
from common.training.preflight import __main__ as preflight
from common.training.preflight import board, network
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
    assert in_time(refuse, 5) == (0.0, "no route")
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


def test_two_nodes_that_fit_together(tmp_path):
    (tmp_path / "hosts").write_text("localhost slots=1\n127.0.0.1 slots=1\n")
    (tmp_path / "data").write_text("one\n")
    port = free_port()
    words = [*("--data", tmp_path / "data"), *("--folder", tmp_path), *("--seconds", 40)]
    both = [
        subprocess.Popen(
            [sys.executable, "-m", "common.training.preflight", *map(str, words)],
            cwd=ROOT,
            env=environment(
                **{"PYTHONPATH": str(ROOT), "RLHF_HOSTFILE": str(tmp_path / "hosts")},
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
    assert first.split()[2] == "localhost" and second.split()[2] == "127.0.0.1"
    assert first.split()[3:6] == second.split()[3:6]
    assert "all-reduce of 64 MiB over 2 ranks by gloo" in total
    assert outputs[1] == ""
