"""What every request passes before the application sees it, and what every reply carries."""

import asyncio
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MOST_BYTES = 256 * 1024
"""Of a request's body: the longest comment and all ratings take a tenth of it."""

BODY_SECONDS = 30.0
"""In which a request's body has to arrive."""

HEADERS = {
    # Nothing but our own files; no inline script or style; text never becomes markup
    # (https://www.w3.org/TR/CSP3/, https://www.w3.org/TR/trusted-types/).
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware: refuses foreign hosts and origins and long bodies; adds `HEADERS`."""

    def __init__(self, app: Any, address: str, *, remote: bool) -> None:  # noqa: ANN401
        """Args:
        address: where people find the service, `https://label.example.org`; it goes by this name,
            `localhost` and addresses.
        remote: whether addresses other than the loopback's are served.
        """
        self.app = app
        self.origin = address.lower()
        self.names = {(urlsplit(address).hostname or "").lower(), "localhost"}
        self.remote = remote

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no web sockets here

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                given = {name.lower() for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (n.encode(), v.encode())
                        for n, v in HEADERS.items()
                        if n.encode() not in given
                    ),
                ]
            await send(message)

        headers: dict[str, list[str]] = {}
        for name, value in scope["headers"]:
            headers.setdefault(name.decode("latin-1"), []).append(value.decode("latin-1"))
        refusal = self._refusal(scope["method"], headers)
        body = b""
        if scope["method"] != "GET":
            # Refused or not: whoever still sends when we hang up may lose our reply.
            body, unread = await _read_body(headers, receive)
            refusal = refusal or unread
        if refusal:
            await _reply(send_with_headers, *refusal)
            return
        sent = False

        async def replay() -> MutableMapping[str, Any]:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope, replay, send_with_headers)

    def _refusal(self, method: str, headers: dict[str, list[str]]) -> tuple[int, str] | None:
        """Why a request is refused by its headers.

        A page of another site may make a browser send a request with our cookie where the two
        differ in nothing but the port (SameSite does not look at it); it cannot fake `Origin`.
        A proxy may send another `Host` than the browser did, as nginx does by default.
        """
        host = headers.get("host", [])
        if len(host) != 1 or not self._is_ours(host[0]):
            return 421, "this host name is not served here (see --address)"
        if method == "GET":
            return None
        origin = headers.get("origin", [])
        ours = (host[0].lower(), self.origin.split("://", 1)[-1])
        if origin and origin[0].split("://", 1)[-1].lower() not in ours:
            return 403, "the request comes from another site"
        if headers.get("sec-fetch-site", ["same-origin"])[0] != "same-origin":
            return 403, "the request comes from another site"
        if headers.get("content-type", [""])[0].split(";")[0].strip() != "application/json":
            return 415, "only JSON is taken"
        return None

    def _is_ours(self, host: str) -> bool:
        """Whether a Host header names this service.

        An address is no danger: it takes a name to make a foreign page of the same origin as
        ours (DNS rebinding).
        """
        name = host.lower()
        if name.startswith("["):
            name = name[1:].partition("]")[0]
        elif name.count(":") == 1:
            name = name.partition(":")[0]
        if name in self.names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return self.remote or address.is_loopback


async def _read_body(
    headers: dict[str, list[str]], receive: Receive
) -> tuple[bytes, tuple[int, str] | None]:
    """The whole body, or why it is refused."""
    too_long = 413, f"the request is longer than {MOST_BYTES} bytes"
    length = headers.get("content-length", ["0"])[0]
    if not length.isascii() or not length.isdigit() or len(length) > 12:
        return b"", (400, "the content's length is no number")
    if int(length) > MOST_BYTES:
        return b"", too_long
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return b"", (400, "the request broke off")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > MOST_BYTES:
                    return b"", too_long
                if not message.get("more_body"):
                    return b"".join(parts), None
    except TimeoutError:
        return b"", (408, "the request came too slowly")


async def _reply(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
