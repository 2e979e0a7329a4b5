"""Connections on which no request arrives are closed, or they would keep labelers out.

uvicorn counts every connection against its limit and has no time-out for a request that does not
arrive; its own `timeout_keep_alive` begins behind the first reply.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADERS_SECONDS = 15.0
"""From a connection, or from the last reply on it, to the end of a request's headers."""

REQUEST_SECONDS = 45.0
"""From the headers to the body's end. `Guard` answers a slow body before that."""


class ImpatientProtocol(H11Protocol):
    """uvicorn's, and besides it hangs up on whoever takes too long to ask."""

    _waiting_for: type | None = None
    _waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Takes more of a request, and waits on, no longer than before, while it is not whole."""
        super().data_received(data)
        self._wait()

    def on_response_complete(self) -> None:
        """From here uvicorn waits for the next request, unless some of it is there already."""
        super().on_response_complete()
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        super().connection_lost(exc)
        self._stop()

    def _wait(self) -> None:
        """One timer for each part of each request, whatever arrives of that part meanwhile."""
        state = self.conn.their_state
        if state is self._waiting_for:
            return
        self._stop()
        seconds = {h11.IDLE: HEADERS_SECONDS, h11.SEND_BODY: REQUEST_SECONDS}.get(state)
        if seconds and not self.transport.is_closing():
            self._waiting_for = state
            self._waiting = self.loop.call_later(seconds, self._hang_up)

    def _stop(self) -> None:
        if self._waiting:
            self._waiting.cancel()
        self._waiting = self._waiting_for = None

    def _hang_up(self) -> None:
        # Not `abort`: a long reply may still be on its way over a slow line.
        self.transport.close()
