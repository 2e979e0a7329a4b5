"""Real heartbeats on this machine: who is lost, who is gone, who is only slow."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest

from common.training import heartbeat
from common.training.heartbeat import Setup

SILENCE = 1.0
NAMES = ["a", "b", "c"]


class Node:
    """A heartbeat; the test is its rank."""

    def __init__(self, number, nodes, port=None, secret="s"):
        others = {str(i): NAMES[i] for i in range(1, nodes)} if number == 0 else {"0": "a"}
        first = None if number == 0 else ["127.0.0.1", port]
        setup = Setup(number, NAMES[number], others, SILENCE, secret, first)
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", heartbeat.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.tell(json.dumps(asdict(setup)))
        self.port = int(self.said(5).split()[1]) if number == 0 else port

    def tell(self, line):
        self.process.stdin.write(f"{line}\n".encode())
        self.process.stdin.flush()

    def said(self, seconds):
        """Its next line; '' when none comes in time."""
        ready, _, _ = select.select([self.process.stdout], [], [], seconds)
        line = b""
        while ready and not line.endswith(b"\n") and (byte := os.read(ready[0].fileno(), 1)):
            line += byte
        return line.decode().strip()


@contextlib.contextmanager
def running(count, present=None):
    nodes = [Node(0, count)]
    try:
        nodes += [Node(i, count, nodes[0].port) for i in range(1, present or count)]
        others = [NAMES[i] for i in range(1, len(nodes))]
        assert {nodes[0].said(20) for _ in others} == {f"watched {name}" for name in others}
        assert all(node.said(20) == "watched a" for node in nodes[1:])
        yield nodes
    finally:
        for node in nodes:
            node.process.kill()
            node.process.wait()


def test_nodes_that_are_there_are_left_alone_and_do_not_end_by_requests_to_stop():
    with running(3) as nodes:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
            nodes[1].process.send_signal(number)
        end = time.monotonic() + 1.5 * SILENCE
        while time.monotonic() < end:
            assert [node.said(0.1) for node in nodes] == [""] * 3
        assert [node.process.poll() for node in nodes] == [None] * 3


@pytest.mark.parametrize("number", [0, 2])
def test_a_silent_node_is_named_to_all_others(number):
    """As from behind a cut cable, nothing comes from a process that is stopped, not even an end."""
    with running(3) as nodes:
        nodes[number].process.send_signal(signal.SIGSTOP)
        began = time.monotonic()
        for i in {0, 1, 2} - {number}:
            assert nodes[i].said(4 * SILENCE) == f"silent {NAMES[number]} (127.0.0.1)"
        assert SILENCE * 0.7 < time.monotonic() - began < 4 * SILENCE


@pytest.mark.parametrize("number", [0, 2])
@pytest.mark.parametrize("how", ["its rank ends", "all of it is killed"])
def test_a_node_whose_process_ends_is_gone_and_not_silent(number, how):
    with running(3) as nodes:
        if how == "its rank ends":
            nodes[number].process.stdin.close()
        else:
            nodes[number].process.kill()
        for i in {0, 1, 2} - {number}:
            assert nodes[i].said(3 * SILENCE) == f"gone {NAMES[number]} (127.0.0.1)"


def test_a_rank_may_stand_still_and_one_that_was_killed_is_gone():
    """Workers that a rank forked have its end of the pipe, too; here the test has it."""
    lines = (
        "import subprocess, sys, time; "
        f"subprocess.Popen([sys.executable, '-I', '-S', {heartbeat.__file__!r}]); time.sleep(600)"
    )
    with running(2, present=1) as (first,):
        setup = Setup(1, "b", {"0": "a"}, SILENCE, "s", ["127.0.0.1", first.port])
        rank = subprocess.Popen(
            [sys.executable, "-c", lines], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
        )
        rank.stdin.write(json.dumps(asdict(setup)).encode() + b"\n")
        rank.stdin.flush()
        assert first.said(20) == "watched b"
        rank.send_signal(signal.SIGSTOP)
        assert first.said(2 * SILENCE) == ""
        rank.kill()
        rank.wait()
        assert first.said(3 * SILENCE) == "gone b (127.0.0.1)"
        rank.stdin.close()


def test_one_that_ends_in_order_is_not_missed():
    with running(3) as nodes:
        nodes[1].tell("bye")
        nodes[0].tell("bye")
        assert nodes[0].process.wait(5) == nodes[1].process.wait(5) == 0
        assert nodes[2].said(2 * SILENCE) == ""


@contextlib.contextmanager
def second_of(answer):
    """A node whose first one is a socket of the test's, which does `answer(connection)`."""
    with socket.create_server(("127.0.0.1", 0)) as first:
        second = Node(1, 2, first.getsockname()[1])
        try:
            connection, _ = first.accept()
            with connection:
                assert connection.recv(100) == b"hello s 1\n"
                answer(connection)
                yield second
        finally:
            second.process.kill()
            second.process.wait()


def test_who_comes_too_late_to_be_awaited_goes_on_unwatched():
    """The first node closes the connection, and is well."""
    with second_of(lambda connection: connection.shutdown(socket.SHUT_RDWR)) as second:
        assert second.said(5) == "unwatched a"
        assert second.said(1.5 * SILENCE) == ""


def test_a_connection_that_is_open_to_nobody_is_not_a_lost_node():
    with second_of(lambda connection: None) as second:
        assert second.said(4 * SILENCE) == "unwatched a"
        assert second.said(0.5) == ""


def test_a_first_node_that_has_spoken_is_missed():
    with second_of(lambda connection: connection.sendall(b"beat\n")) as second:
        assert second.said(5) == "watched a"
        assert second.said(4 * SILENCE) == "silent a (127.0.0.1)"


def test_when_all_are_there_the_door_is_closed():
    with running(2) as nodes, pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", nodes[0].port))


def test_a_stranger_is_told_nothing_and_not_kept(monkeypatch):
    """In this process, so that the time to say hello is short."""
    monkeypatch.setattr(heartbeat, "SECONDS_TO_SAY_HELLO", 1.5)
    said = []
    ours = heartbeat.Heartbeat(Setup(0, "a", {"1": "b"}, 6.0, "s"), said.append)
    words, end = os.pipe()
    ours.watch_parent(words)
    ours.connect()
    thread = threading.Thread(target=ours.run, daemon=True)
    thread.start()
    port = int(said[0].split()[1])
    with socket.create_connection(("127.0.0.1", port), timeout=9) as stranger:
        began = time.monotonic()
        assert stranger.recv(100) == b""  # no beat, and then the end
        assert 1.0 < time.monotonic() - began < 5.0
    os.close(end)
    thread.join(5)
    assert len(said) == 1 and not thread.is_alive()
    ours._give_up()
    assert said[1:] == ["unwatched b"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    os.close(words)


@pytest.mark.slow
def test_strangers_are_not_listened_to():
    with running(2, present=1) as (first,):
        for words in (b"gone\n", b"hello wrong 1\ngone\n", b"hello s 7\ngone\n", b"\xff" * 9000):
            with socket.create_connection(("127.0.0.1", first.port)) as stranger:
                stranger.sendall(words)
        assert first.said(1.5 * SILENCE) == ""
        second = Node(1, 2, first.port)  # there is still a place for the right one
        assert first.said(20) == "watched b"
        second.process.kill()
        second.process.wait()
        assert first.said(2.0) == "gone b (127.0.0.1)"


@pytest.mark.slow
def test_a_node_that_stood_still_itself_blames_nobody():
    with running(2) as nodes:
        for node in nodes:
            node.process.send_signal(signal.SIGSTOP)
        time.sleep(2 * SILENCE)
        for node in nodes:
            node.process.send_signal(signal.SIGCONT)
        assert [node.said(1.5 * SILENCE) for node in nodes] == ["", ""]
