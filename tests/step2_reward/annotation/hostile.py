"""Texts that want to be more than text, and requests that want what is not theirs."""

import json
import socket
from typing import Any

from tests.step2_reward.annotation.serving import Server, answer

TEXTS: list[str] = [
    "<script>window.pwned = 1</script>",
    "<img src=x onerror='window.pwned = 1'>",
    "<svg/onload=window.pwned=1>",
    "</textarea></div></main><script>window.pwned=1</script>",
    "[click](javascript:window.pwned=1) and <a href='javascript:window.pwned=1'>here</a>",
    "![x](http://127.0.0.1:9/steal.png) <link rel=stylesheet href=//evil.example/x.css>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<style>* { display: none !important }</style><base href='//evil.example/'>",
    "<form action=/api/next><button autofocus onfocus=window.pwned=1>Go</button></form>",
    "<meta http-equiv=refresh content='0;url=//evil.example/'>",
    "{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1} <%= 1 %>",
    "\"><body onload=window.pwned=1> ' onmouseover='window.pwned=1",
    "```html\n<script>window.pwned = 1</script>\n```",
    "`<script>window.pwned=1</script>` **<b onclick=window.pwned=1>bold</b>**",
    "| <script>window.pwned=1</script> | b |\n|---|---|\n| <img src=x onerror=pwned=1> | d |",
    "nul \x00 bell \x07 escape \x1b[31m delete \x7f",
    "\u202egpj.exe\u202c and \u2066isolated\u2069 \u200frtl\u200e",
    "مرحبا <script>window.pwned=1</script> بالعالم",
    "a\u0300\u0301\u0302" * 3000,
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &#60;script&#62; &amp;",
    "> " * 4000 + "deep",
    "\n".join("  " * i + "- item" for i in range(400)),
    "*" * 30000 + "`" * 30000,
    "-" * 50000 + "|\n" + "-" * 50000 + "x",
    "W" * 5_000_000,
    "ends here",
]
"""Five a prompt are shown in a browser; the largest has 5 MB."""


def raw(server: Server, data: bytes) -> tuple[int, str]:
    """Bytes as they are, and the reply; status 0: the server hung up."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        reply = b""
        try:
            while part := connection.recv(65536):
                reply += part
        except ConnectionResetError:
            pass
    status = int(reply.split(b" ", 2)[1]) if reply.startswith(b"HTTP/1.1 ") else 0
    return status, reply.decode("utf-8", "replace")


def head(server: Server, line: str, *more: str) -> bytes:
    lines = [line, f"Host: 127.0.0.1:{server.port}", "Connection: close", *more]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


PATHS = [
    "/..",
    "/../../../../etc/passwd",
    "/static/../server.py",
    "/static/..%2fserver.py",
    "/static/%2e%2e/%2e%2e/annotate.py",
    "/static/..\\server.py",
    "/static//etc/passwd",
    "/static/style.css%00.html",
    "/static/",
    "/static",
    "/annotate/tokens.json",
    "/tokens.json",
    "/labels.sqlite",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/project/",
    "/api/items/..%2f..%2fetc%2fpasswd",
    "/%ff%fe%00",
    "/" + "a" * 9000,
]
"""With nobody signed in each gets an error, and nothing that it should not."""

METHODS = ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "CONNECT", "BREW"]

ORDER = [[0], [1], [2], [3], [4]]


def bodies() -> list[tuple[str, Any]]:
    """What a labeler who is signed in may try to post as an answer; each is refused."""
    good = answer(ORDER)
    return [
        ("an id of another form", good | {"answer_id": "'; DROP TABLE answers; --"}),
        ("a comment of 100,000 characters", good | {"comment": "x" * 100_000}),
        ("half a surrogate pair", good | {"comment": "\ud800"}),
        ("a field too many", good | {"labeler": "ben"}),
        ("a field too few", {k: v for k, v in good.items() if k != "order"}),
        ("numbers as text", good | {"order": [["0"], ["1"], ["2"], ["3"], ["4"]]}),
        ("a response twice", good | {"order": [[0], [0], [2], [3], [4]]}),
        ("a response that is not there", good | {"order": [[0], [1], [2], [3], [99]]}),
        ("a huge number", good | {"order": [[0], [1], [2], [3], [10**30]]}),
        ("true for a number", good | {"order": [[0], [True], [2], [3], [4]]}),
        ("another criterion", good | {"ratings": [{"__proto__": 2}, {}, {}, {}, {}]}),
        ("three points", good | {"ratings": [{"clarity": 3}, {}, {}, {}, {}]}),
        ("time before time", good | {"seconds": -1}),
        ("no object", [good]),
        ("null", None),
    ]


def broken_json() -> list[bytes]:
    text = json.dumps(answer(ORDER))
    return [
        text[:-1].encode(),
        b"[" * 100_000,
        text.replace("12.5", "NaN").encode(),
        text.replace("12.5", "1e999").encode(),
        text.replace("12.5", "9" * 10_000).encode(),
        b"\xff" + text.encode(),
        b"",
    ]
