"""Asking an endpoint: what is worth asking again, how long is waited, and what is never sent on."""

import socket
import threading
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from common.web import NoAnswer, ask, post_json
from tests.servers import Server


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def told(url, retries=2, jitter=0.0, timeout=5):
    """What is raised, and the pauses before it."""
    pauses = []
    with pytest.raises(NoAnswer) as caught:
        ask(
            lambda: post_json(url, {}, timeout=timeout),
            retries=retries,
            wait=pauses.append,
            jitter=jitter,
        )
    return caught.value, pauses


@pytest.mark.parametrize("code", [408, 425, 429, 500, 502, 503, 504, 529])
def test_what_passes_is_asked_again(code):
    with Server([(code, b"not now")]) as server:
        error, pauses = told(server.url)
    assert (error.code, error.tries, len(server.bodies)) == (code, 3, 3)
    assert pauses == [1.0, 2.0] and "not now" in str(error)


@pytest.mark.parametrize("code", [400, 401, 403, 404, 413, 422])
def test_what_lasts_is_not(code):
    with Server([(code, b"never")]) as server:
        error, pauses = told(server.url)
    assert (error.code, error.tries, len(server.bodies), pauses) == (code, 1, 1, [])


def test_pauses_grow_up_to_half_a_minute():
    with Server([(503, b"")]) as server:
        _, pauses = told(server.url, retries=7)
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


def test_jitter_spreads_the_pauses():
    with Server([(503, b"")]) as server:
        found = [told(server.url, retries=2, jitter=0.5)[1] for _ in range(8)]
    for first, second in found:
        assert 1 <= first <= 1.5 and 2 <= second <= 3
    assert len({first for first, _ in found}) > 1


@pytest.mark.parametrize(
    ("wish", "low", "high"),
    [
        ("7", 7, 7),
        ("0", 1, 1),
        ("86400", 600, 600),
        ("soon", 1, 1),
        ("-5", 1, 1),
        ("in two minutes", 60, 120),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 1, 1),
        ("Wed, 99 Oct 2015", 1, 1),
    ],
)
def test_the_endpoints_own_wish_is_respected(wish, low, high):
    if wish == "in two minutes":
        wish = format_datetime(datetime.now(UTC) + timedelta(seconds=120))
    with Server([(429, b"", {"Retry-After": wish}), (200, b"fine")]) as server:
        pauses = []
        found = ask(lambda: post_json(server.url, {}, timeout=5), retries=1, wait=pauses.append)
    assert found == b"fine" and len(pauses) == 1 and low <= pauses[0] <= high


def test_a_redirect_is_not_followed_and_the_token_goes_nowhere_else():
    with Server([(200, b"stolen")]) as other:
        moved = (307, b"", {"Location": other.url})
        see_other = (302, b"", {"Location": other.url})
        with Server([moved, see_other]) as server:
            for code in (307, 302):
                with pytest.raises(NoAnswer) as caught:
                    ask(
                        lambda: post_json(server.url, {}, timeout=5, token="secret"),
                        retries=2,
                        wait=pytest.fail,
                    )
                assert caught.value.code == code
        assert other.bodies == [] and server.headers[0]["Authorization"] == "Bearer secret"


def test_no_try_is_made_for_which_there_is_no_time():
    with Server([(503, b"", {"Retry-After": "400"})]) as server:
        pauses = []
        with pytest.raises(NoAnswer, match="code 503.*no time for a further try after 400 s"):
            ask(
                lambda: post_json(server.url, {}, timeout=5),
                retries=9,
                wait=pauses.append,
                seconds=399,
            )
    assert pauses == [] and len(server.bodies) == 1


def raw_server(chunks, pause):
    """Accepts one connection, and sends these chunks with a pause before each."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        connection, _ = listener.accept()
        with connection:
            asked = b""
            while not asked.endswith(b"{}"):  # what is left unread when it closes resets it
                asked += connection.recv(65536)
            for chunk in chunks:
                time.sleep(pause)
                try:
                    connection.sendall(chunk)
                except OSError:
                    return

    threading.Thread(target=serve, daemon=True).start()
    return listener, f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_an_answer_in_drops_ends_at_the_time_limit():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    listener, url = raw_server([head, *[b"x"] * 200], pause=0.05)
    with listener:
        started = time.monotonic()
        error, _ = told(url, retries=0, timeout=0.5)
    assert "timed out" in str(error) and time.monotonic() - started < 5


@pytest.mark.parametrize(
    "chunks",
    [
        [b"HTTP/1.1 200 OK\r\n", *[b"X: y\r\n"] * 40],  # each line in time, and never the last
        [b"HTTP/1.1 503 Busy\r\nContent-Length: 100\r\n\r\n", *[b"x"] * 40],
        [b"H", b"T"] + [b"T"] * 20,
    ],
)
def test_the_time_limit_is_one_for_all_parts_of_an_answer(chunks):
    listener, url = raw_server(chunks, pause=0.3)
    with listener:
        started = time.monotonic()
        error, _ = told(url, retries=0, timeout=0.5)
        took = time.monotonic() - started
    assert "timed out" in str(error) and took < 3  # in parts it would take 6 seconds and more


def test_an_answer_that_breaks_off_is_none():
    listener, url = raw_server([b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"], pause=0)
    with listener:
        error, _ = told(url, retries=0)
    assert "IncompleteRead" in str(error) and error.code is None


@pytest.mark.parametrize("token", ["sk-1\nsecret", "sk-secret\r", "sk-ключ"])
def test_a_token_that_no_header_can_hold_is_not_quoted(token):
    with pytest.raises(ValueError) as caught:
        post_json("http://127.0.0.1:9/", {}, timeout=1, token=token)
    assert "the token holds a character" in str(caught.value)
    assert "sk-" not in str(caught.value)


def test_nobody_there_is_asked_again():
    with Server([(200, b"")]) as server:
        url = server.url
    error, pauses = told(url)
    assert error.tries == 3 and error.code is None and len(pauses) == 2
