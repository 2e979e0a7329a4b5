"""What a request is refused for, and that its reply arrives."""

import asyncio

import pytest

from common.web_guard import MOST_BYTES, Guard

OURS = [(b"host", b"127.0.0.1:80"), (b"content-type", b"application/json")]


def served(headers, parts, method="POST"):
    """Statuses sent, bodies that reached the application, and how many parts were left unread
    when the reply began."""
    waiting = [
        {"type": "http.request", "body": part, "more_body": n + 1 < len(parts)}
        for n, part in enumerate(parts)
    ]
    statuses, reached, unread = [], [], []

    async def application(scope, receive, send):
        reached.append((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def receive():
        return waiting.pop(0)

    async def send(message):
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
            unread.append(len(waiting))

    guard = Guard(application, "http://127.0.0.1:80", remote=False)
    scope = {"type": "http", "method": method, "headers": headers}
    asyncio.run(guard(scope, receive, send))
    return statuses, reached, unread


def test_a_request_reaches_the_application_whole():
    assert served(OURS, [b"[1,", b"2]"]) == ([200], [b"[1,2]"], [0])


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (403, [*OURS, (b"origin", b"http://evil.example")]),
        (403, [*OURS, (b"sec-fetch-site", b"same-site")]),
        (415, [OURS[0], (b"content-type", b"text/plain")]),
        (421, [(b"host", b"evil.example"), OURS[1]]),
        (421, [OURS[1]]),
    ],
    ids=["origin", "site", "type", "host", "no host"],
)
def test_a_refusal_comes_after_the_body(status, headers):
    """A connection closed on a body that is still being sent is reset, and the reply lost."""
    assert served(headers, [b"{", b"}"]) == ([status], [], [0])


def test_of_a_long_body_no_more_is_read_than_may_be():
    part = b" " * (MOST_BYTES // 2)
    for headers in (OURS, [*OURS, (b"origin", b"http://evil.example")]):
        statuses, reached, unread = served(headers, [part] * 9)
        assert statuses == [413 if headers is OURS else 403]
        assert (reached, unread) == ([], [6])
    announced = [*OURS, (b"content-length", b"%d" % (MOST_BYTES + 1))]
    assert served(announced, [part] * 3) == ([413], [], [3])
