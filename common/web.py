"""HTTP endpoints that may be busy or broken: tries, the pauses between them, what went wrong."""

import email.utils
import io
import json
import math
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from datetime import UTC, datetime
from http.client import HTTPException, IncompleteRead, InvalidURL
from typing import Any, TypeVar

Answer = TypeVar("Answer")

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
"""Seconds before an endpoint is asked again; twice as long at each further try."""
LONGEST_WISH = 600.0
"""Seconds that an endpoint's own `Retry-After` is waited for, at most."""
BUSY = (408, 425, 429)
"""Codes below 500 after which it is worth asking again."""
LARGEST_ANSWER = 2**26
SHOWN = 200
"""Characters of an answer that an error quotes."""

_draw = random.Random()  # of its own: pauses change no seeded draw


class NoAnswer(Exception):
    """An endpoint gave nothing that could be used; the text says what came instead."""

    def __init__(self, text: str, *, code: int | None, tries: int) -> None:
        """Args:
        code: of its last HTTP answer, or None where there was none.
        tries: how often it was asked.
        """
        super().__init__(text)
        self.code = code
        self.tries = tries


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: followed, it would take the token along to wherever it points."""

    def redirect_request(self, *_: Any) -> None:  # noqa: ANN401
        return None


def post_json(url: str, content: Any, *, timeout: float, token: str = "") -> bytes:  # noqa: ANN401
    """POSTs JSON; the body of the answer.

    Args:
        timeout: seconds for all of it, from looking up the name to the last drop of the answer.
        token: sent as a bearer token, unless empty.

    Raises:
        OSError, HTTPException, ValueError: nobody answers, or not in time; a code other than 2xx
            (`urllib.error.HTTPError`), a redirect among them; an answer that breaks off or is
            larger than 64 MiB.
    """
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if not (token.isascii() and token.isprintable()):
        raise ValueError("the token holds a character that no header may have")  # it is not quoted
    if token:
        headers["Authorization"] = f"Bearer {token}"
    request = urllib.request.Request(url, json.dumps(content).encode(), headers, method="POST")
    done: Future[bytes] = Future()
    # The library's own limit is one for each step: a name's every address, each piece of an answer.
    threading.Thread(target=_answer, args=(done, request, timeout), daemon=True).start()
    return done.result(timeout)


def _answer(done: "Future[bytes]", request: urllib.request.Request, timeout: float) -> None:
    """Sets the body of the answer, or what is raised in its place."""
    try:
        done.set_result(_send(request, timeout))
    except urllib.error.HTTPError as error:
        body = io.BytesIO(_read(error))  # here, where it counts as part of the time
        done.set_exception(
            urllib.error.HTTPError(error.url, error.code, error.reason, error.headers, body)
        )
    except Exception as error:
        done.set_exception(error)


def _send(request: urllib.request.Request, timeout: float) -> bytes:
    ends = time.monotonic() + timeout
    parts: list[bytes] = []
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=timeout) as answer:
        while part := answer.read1(2**16):
            parts.append(part)
            if time.monotonic() > ends:  # nobody waits for it any longer
                raise TimeoutError("timed out")
            if sum(map(len, parts)) > LARGEST_ANSWER:
                raise ValueError(f"answered more than {LARGEST_ANSWER} bytes")
        body = b"".join(parts)
        promised = answer.headers.get("Content-Length")
    if promised is not None and promised.isdigit() and len(body) < int(promised):
        raise IncompleteRead(body, int(promised) - len(body))
    return body


def ask(
    send: Callable[[], Answer],
    *,
    retries: int,
    wait: Callable[[float], Any],
    tell: Callable[[str], Any] = lambda text: None,
    jitter: float = 0.0,
    seconds: float = math.inf,
) -> Answer:
    """What `send` returns, asked again after what passes: time-outs, 408, 425, 429, 5xx.

    The pauses double, from one second to thirty, and are as long as the endpoint's `Retry-After`
    says where that is longer.

    Args:
        send: asks once; raises what `post_json` does, and ValueError where the answer is malformed.
        retries: further tries.
        wait: called with the seconds of a pause.
        tell: called before it, with what came in place of an answer.
        jitter: pauses grow by up to this share of theirs, drawn at random, so that callers that
            were refused together do not come back together.
        seconds: in which the last try must begin.

    Raises:
        NoAnswer: all tries failed, or one failed for a reason that will last, or there is no time
            for the pause before the next.
    """
    pause, latest = FIRST_PAUSE, time.monotonic() + seconds
    for tried in range(1, retries + 2):
        code, wish = None, 0.0
        try:
            return send()
        except urllib.error.HTTPError as error:
            code, wish = error.code, _seconds_of(error.headers.get("Retry-After"))
            text = f"code {code} ({error.reason}): {short(_read(error))}"
            lasting = code < 500 and code not in BUSY
        except (OSError, HTTPException, ValueError) as error:  # no answer, or half of one
            timed_out = "timed out" if isinstance(error, TimeoutError) else ""
            text = str(timed_out or getattr(error, "reason", "") or error or type(error).__name__)
            lasting = isinstance(error, ValueError | InvalidURL)  # or one that is malformed
        if lasting or tried > retries:
            raise NoAnswer(text, code=code, tries=tried)
        length = max(pause * (1 + jitter * _draw.random()), min(wish, LONGEST_WISH))
        if time.monotonic() + length > latest:
            late = f"{text}; no time for a further try after {length:.0f} s"
            raise NoAnswer(late, code=code, tries=tried)
        tell(text)
        wait(length)
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("unreachable")


def short(value: object) -> str:
    """What an error quotes of an answer."""
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else repr(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def _read(error: urllib.error.HTTPError) -> bytes:
    try:
        return error.read(SHOWN + 1)
    except OSError:
        return b""


def _seconds_of(wish: str | None) -> float:
    """`Retry-After`: seconds, or a date (RFC 9110, section 10.2.3); 0 for anything else."""
    if wish is None:
        return 0.0
    if wish.strip().isdecimal():
        return float(wish)
    try:
        until = email.utils.parsedate_to_datetime(wish)
    except (ValueError, TypeError):
        return 0.0
    if until.tzinfo is None:
        until = until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.now(UTC)).total_seconds())
