"""From each node to each other: a connection, its round trip, the clocks; then a collective."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from common.training.preflight.board import SECONDS_A_TRY, Board, explained
from common.training.preflight.comparison import Problem

PINGS = 5
ELEMENTS = 16 * 2**20
"""float32 that are summed over the ranks: 64 MiB."""
REPEATS = 3
HUNG = "it hung"
SECONDS_FOR_THE_GROUP = 60.0
"""The library's own time-out is so much longer: this one can say which ranks are missing."""


@dataclass(frozen=True)
class Ping:
    """What came of a connection to another node; seconds."""

    why_not: str = ""
    round_trip: float = 0.0
    ahead: float = 0.0
    """Of the other's clock before this one's, to half a round trip."""


@contextlib.contextmanager
def answering() -> Iterator[int]:
    """Tells the time to whoever connects, and yields the port, which the system chooses.

    The libraries' own connections go to ports that the system chooses, too.
    """
    both = socket.has_dualstack_ipv6()  # the first node may be known by either address
    family = socket.AF_INET6 if both else socket.AF_INET
    listener = socket.create_server(("", 0), family=family, backlog=128, dualstack_ipv6=both)

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(SECONDS_A_TRY)
            while connection.recv(1):
                connection.sendall(f"{time.time():.9f}\n".encode())

    def accept() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=answer, args=listener.accept()[:1], daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)  # ends the wait for the next connection
        listener.close()


def ping(host: str, port: int) -> Ping:
    """Asks another node's `answering` for the time; the quickest of a few answers counts."""
    try:
        with socket.create_connection((host, port), timeout=SECONDS_A_TRY) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            lines = connection.makefile("r", encoding="ascii")
            answers = []
            for _ in range(PINGS):
                asked = time.time()
                connection.sendall(b"?")
                there = float(lines.readline())
                now = time.time()
                answers.append(Ping("", now - asked, there - (asked + now) / 2))
    except OSError as error:
        return Ping(explained(error))
    except ValueError:
        return Ping("it closed the connection")
    return min(answers, key=lambda a: a.round_trip)


def unreachable(pings: Mapping[int, Mapping[int, Ping]], names: Mapping[int, str]) -> list[Problem]:
    """One problem for each connection that did not come about.

    Args:
        pings: by the number of who asked, then of who was asked.
    """
    return [
        Problem(names[number], f"it cannot reach {names[to]} at a port above 1023: {ping.why_not}")
        for number, row in sorted(pings.items())
        for to, ping in sorted(row.items())
        if ping.why_not
    ]


def backend() -> str:
    """The library of the stages' collectives here."""
    return "nccl" if torch.cuda.is_available() else "gloo"


def bus_bandwidth(size: int, ranks: int, seconds: float) -> float:
    """Bytes per second over each link of an all-reduce in a ring.

    As NCCL's tests have it: every byte goes over a link 2 (n - 1) / n times
    (https://github.com/NVIDIA/nccl-tests/blob/master/doc/PERFORMANCE.md).
    """
    return 2 * (ranks - 1) / ranks * size / seconds


def all_reduce_check(board: Board) -> float:
    """Seconds of an all-reduce of 64 MiB, the quickest of three, after a look at the sum.

    Raises:
        RuntimeError: the sum is wrong, or the library raised it.
    """
    place = board.place
    cards = backend() == "nccl"
    where = torch.device("cuda", place.local_rank) if cards else torch.device("cpu")
    if cards:
        torch.cuda.set_device(where)
    dist.init_process_group(
        backend(),
        store=dist.PrefixStore("group", board.store),
        rank=place.rank,
        world_size=place.ranks,
        timeout=timedelta(seconds=board.seconds + SECONDS_FOR_THE_GROUP),
    )
    times = []
    expected = place.ranks * (place.ranks + 1) / 2
    for _ in range(1 + REPEATS):  # the first one makes the connections
        values = torch.full((ELEMENTS,), float(place.rank + 1), device=where)
        if cards:
            torch.cuda.synchronize()
        began = time.monotonic()
        dist.all_reduce(values)
        if cards:
            torch.cuda.synchronize()
        times.append(time.monotonic() - began)
        if not bool((values == expected).all()):
            raise RuntimeError(f"the sum over ranks is {values.max()}, and not {expected}")
    dist.destroy_process_group()
    return min(times[1:])


def in_time(work: Callable[[], float], seconds: float) -> tuple[float, str]:
    """What `work()` returned, and ''; or 0 and why not. It may hang: its thread is left then."""
    outcome: list[tuple[float, str]] = []

    def run() -> None:
        try:
            outcome.append((work(), ""))
        except Exception as error:
            text = str(error).strip() or type(error).__name__
            outcome.append((0.0, text.splitlines()[0]))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else (0.0, f"{HUNG} for {seconds:.0f} s")
