"""Connections that ask for nothing, or too slowly, keep nobody out."""

import socket
import threading
import time
from contextlib import contextmanager

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from step2_reward.annotation import connections
from step2_reward.annotation.server import configuration, listen

MOST = 24
HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
POST = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.fixture
def address(monkeypatch):
    """A server that takes two dozen connections, and waits a second."""
    monkeypatch.setattr(connections, "HEADERS_SECONDS", 1.0)
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 1.0)
    app = FastAPI()
    app.get("/")(lambda: {"here": True})
    app.post("/")(lambda: {"here": True})
    listener = listen("127.0.0.1", 0)
    config = configuration(app, "http://localhost", remote=False)
    config.limit_concurrency = MOST
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()
    server.should_exit = True
    thread.join(timeout=30)
    listener.close()


@contextmanager
def many(address, first=b""):
    """As many connections as there may be, each of which sends this much and waits."""
    held = [socket.create_connection(address, timeout=30) for _ in range(MOST)]
    for one in held:
        one.sendall(first)
    yield held
    for one in held:
        one.close()


def until_served(address):
    deadline = time.monotonic() + 30
    host, port = address
    while (status := httpx.get(f"http://{host}:{port}/").status_code) == 503:
        assert time.monotonic() < deadline, "nobody hung up on the silent ones"
        time.sleep(0.1)
    return status


@pytest.mark.parametrize(
    "first",
    [b"", HEAD, POST + b"Content-Length: 9\r\n\r\n{", HEAD + b"Content-Length: 9\r\n\r\n"],
    ids=["nothing", "half a head", "half a body", "a body that is not waited for"],
)
def test_silent_connections_are_closed(address, first):
    with many(address, first) as held:
        assert until_served(address) == 200
        for one in held:  # until the other side closes
            while one.recv(4096):
                pass


def test_a_byte_now_and_then_is_no_request(address):
    """The time counts for the whole head, on a connection that was used before as well."""
    with socket.create_connection(address, timeout=30) as one:
        one.sendall(HEAD + b"\r\n")
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
        one.settimeout(0.1)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                one.sendall(b"G" if deadline - time.monotonic() > 29.9 else b"X")
                if not one.recv(4096):
                    break
            except TimeoutError:
                continue
            except ConnectionError:
                break
        assert time.monotonic() < deadline


def test_a_request_that_takes_its_time_is_answered(address):
    with socket.create_connection(address, timeout=30) as one:
        for part in (HEAD[:20], HEAD[20:], b"\r\n"):
            one.sendall(part)
            time.sleep(0.1)
        assert one.recv(4096).startswith(b"HTTP/1.1 200")
