"""Where nodes that may not be able to talk yet leave word for one another: the first node's store.

Only the first node is waited for by name and port; what else the ranks do is told over this.
"""

import contextlib
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

from common.errors import UserError
from common.training.nodes import Place
from common.training.resume.signals import REQUESTS, Stopped

SECONDS_A_TRY = 5.0
SECONDS_BETWEEN_LOOKS = 0.1
SECONDS_TO_DECIDE = 30.0
"""The first rank may take so much longer than a time limit that all have."""


def why_unreachable(host: str, port: int, seconds: float) -> str:
    """'' once a connection to the port comes about; else, after `seconds`, what was in the way."""
    deadline = time.monotonic() + seconds
    while True:
        if REQUESTS.asked():
            raise Stopped
        try:
            socket.create_connection((host, port), timeout=SECONDS_A_TRY).close()
            return ""
        except OSError as error:
            if time.monotonic() > deadline:
                return explained(error)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def explained(error: OSError) -> str:
    """Why a connection did not come about, and where to look."""
    if isinstance(error, socket.gaierror):
        return "its name is unknown here (DNS, /etc/hosts)"
    if isinstance(error, ConnectionRefusedError):
        return "it refused: nothing listens on the port there; did the command start there?"
    if isinstance(error, TimeoutError):
        return "no answer: is it up, is the address right, is a firewall between?"
    return f"{error.strerror or error}: is there a route to it, is the cable in?"


class Board:
    """Notes that all ranks can read, kept by rank 0 at the first node's master port.

    When the first node is gone, everything here raises `torch.distributed.DistError`.
    """

    def __init__(self, place: Place, host: str, port: int, seconds: float) -> None:
        """Joins it, or, on rank 0, sets it up.

        Raises:
            UserError: the port is taken, or there is no way to the first node.
        """
        self.place, self.seconds = place, seconds
        self.first = host, port
        first = place.rank == 0
        if first:
            self._check_port_is_free(port)
        elif why := why_unreachable(host, port, seconds):
            raise UserError(f"the first node, {host}, cannot be reached at port {port}: {why}")
        limit = timedelta(seconds=seconds)
        try:
            self.store = dist.TCPStore(
                host, port, is_master=first, wait_for_workers=False, timeout=limit
            )
        except dist.DistError as error:
            raise UserError(
                f"the first node's store at {host}, port {port}, could not be joined ({error}); is "
                "--master_addr the first node's address, and does something else use the port?"
            ) from None

    def own_address(self) -> str:
        """Where the other nodes reach this one: what it is called by, they may not be able to find.

        Raises:
            UserError: the first node is not reached any longer.
        """
        if self.place.node == 0:
            return self.first[0]  # all others have found it
        try:
            with socket.create_connection(self.first, timeout=self.seconds) as connection:
                return connection.getsockname()[0]
        except OSError as error:
            raise UserError(f"the first node cannot be reached again: {explained(error)}") from None

    def _check_port_is_free(self, port: int) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError as error:
                raise UserError(
                    f"port {port} cannot be used on this, the first node ({error.strerror}): end "
                    "what listens there (ss -ltnp), or give another --master_port"
                ) from None

    def note(self, name: str, value: Any) -> None:  # noqa: ANN401
        """Leaves a value that JSON can hold, for whoever knows the name."""
        self.store.set(name, json.dumps(value))

    def read(self, name: str, seconds: float) -> Any:  # noqa: ANN401
        """What is noted under `name`; waits for it.

        Raises:
            UserError: it is not there after `seconds`.
        """
        if _until(lambda: self.store.check([name]), seconds):
            return json.loads(self.store.get(name))
        raise UserError(f"the first node did not say for {seconds:.0f} s how it goes on")

    def collect(self, topic: str, numbers: Sequence[int], seconds: float) -> dict[int, Any]:
        """Number -> what is noted under "topic/number". On rank 0; of those that came in time.

        It waits no longer when another node says that it failed.
        """
        found: dict[int, Any] = {}

        def all_there() -> bool:
            for n in numbers:
                if n not in found and self.store.check([f"{topic}/{n}"]):
                    found[n] = json.loads(self.store.get(f"{topic}/{n}"))
            return len(found) == len(numbers) or bool(failed_nodes())

        _until(all_there, seconds)
        return found

    def decided(self, topic: str, decide: Callable[[], Any], seconds: float = 0.0) -> Any:  # noqa: ANN401
        """What rank 0's `decide()` returns (JSON), on all ranks.

        Args:
            seconds: that it may take beyond the limit that the nodes have for one another.
        """
        if self.place.rank == 0:
            value = decide()
            self.note(f"decided/{topic}", value)
            return value
        return self.read(f"decided/{topic}", seconds + 2 * self.seconds + SECONDS_TO_DECIDE)

    def leave(self) -> None:
        """Rank 0 keeps the notes until all others have read them, for a few seconds at most."""
        if self.place.rank == 0:
            others = range(1, self.place.ranks)
            self.collect("through", others, SECONDS_A_TRY)
        else:
            with contextlib.suppress(dist.DistError):
                self.note(f"through/{self.place.rank}", True)


def failed_nodes() -> list[int]:
    """Numbers of the nodes whose launcher has noted in the shared files that its part failed."""
    stop = os.environ.get("RLHF_STOP_FILE")
    files = Path(stop).parent.glob("failed.*") if stop else ()
    return sorted(int(file.suffix[1:]) for file in files if file.suffix[1:].isdigit())


def _until(true: Callable[[], bool], seconds: float) -> bool:
    """Whether it came true in time.

    Raises:
        Stopped: somebody asked for it.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if REQUESTS.asked():
            raise Stopped
        if time.monotonic() > deadline:
            return False
        time.sleep(SECONDS_BETWEEN_LOOKS)
    return True
