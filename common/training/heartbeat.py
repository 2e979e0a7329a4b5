"""A process beside each node's first rank that tells the other nodes: this node is there.

The nodes' heartbeats are connected to the first node's, which passes on what it learns. They know
nothing of the training, so a rank may take as long as it likes, or stand still, and its node is
there all the same. Two ends are told apart: a node that says nothing for too long (its cable, its
network, the machine), and one whose rank is gone, of which the machine still tells.

Standard library only: it is started as a file of its own, and takes some megabytes. The rank gives
a line of JSON (`Setup`) on the standard input, and "bye" before it ends in order; when it ends
without, it is gone. What the rank is to know comes as lines on the standard output:

    port 40123          the first node's heartbeat listens there
    watched b           they are connected, and have heard of each other
    silent b (10.0.0.2) no sign of life from that node
    gone b (10.0.0.2)   its rank ended without a word
    unwatched b         it cannot be connected to, or has said nothing since
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

SECONDS_TO_CONNECT = 60.0
SECONDS_TO_SAY_HELLO = 5.0
LONGEST_LINE = 4096


@dataclass(frozen=True)
class Setup:
    """What a heartbeat is told when it starts."""

    number: int
    """Of its node; the first, to which the others connect, is 0."""
    name: str
    """Its node's."""
    others: dict[str, str]
    """Names of those that will be connected, by number; JSON makes the numbers text."""
    silence: float
    """Seconds without a sign of life after which a node counts as lost."""
    secret: str
    """Whoever does not know it is no node of this run."""
    first: list | None = None
    """Address and port of the first node's, for the others."""

    @property
    def interval(self) -> float:
        """Seconds between two beats."""
        return min(1.0, self.silence / 5)


@dataclass
class Peer:
    """Another node's heartbeat; without a name before it has said who it is."""

    connection: socket.socket
    address: str
    name: str = ""
    came: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    watched: bool = False
    """It has said something that a node of this run says."""
    begun: bytes = b""
    """Of a line that has not come whole."""

    @property
    def shown(self) -> str:
        """ "b (10.0.0.2)"."""
        return self.name if self.name == self.address else f"{self.name} ({self.address})"

    def send(self, line: str) -> None:
        """What cannot be sent is not: that nothing comes is for the other side to notice."""
        with contextlib.suppress(OSError):
            self.connection.send(f"{line}\n".encode())

    def lines(self) -> list[str] | None:
        """What came since; None when the other process has closed the connection.

        Raises:
            OSError: the network fails, which tells nothing of the other process.
        """
        try:
            got = self.connection.recv(LONGEST_LINE)
        except ConnectionResetError:
            return None
        if not got:
            return None
        self.heard = time.monotonic()
        *whole, self.begun = (self.begun + got)[-LONGEST_LINE:].split(b"\n")
        return [line.decode(errors="replace") for line in whole]


class Heartbeat:
    """One node's."""

    def __init__(self, setup: Setup, say: Callable[[str], None]) -> None:
        self.setup, self.say = setup, say
        self.peers: list[Peer] = []
        self.awaited = dict(setup.others)
        self.selector = selectors.DefaultSelector()
        self.listener: socket.socket | None = None
        self.ended = False

    def connect(self) -> bool:
        """Connects to the first node, or listens for the others; whether it came about."""
        if self.setup.first is None:
            self.listener = socket.create_server(("", 0), backlog=128)
            self.selector.register(self.listener, selectors.EVENT_READ, self._accept)
            self.say(f"port {self.listener.getsockname()[1]}")
            return True
        deadline = time.monotonic() + SECONDS_TO_CONNECT
        while time.monotonic() < deadline and os.getppid() == self.parent:
            try:
                connection = socket.create_connection(tuple(self.setup.first), timeout=5.0)
            except OSError:
                time.sleep(0.5)
                continue
            peer = self._join(connection)
            (peer.name,) = self.awaited.values()
            self.awaited = {}
            peer.send(f"hello {self.setup.secret} {self.setup.number}")
            return True
        self._give_up()
        return False

    def watch_parent(self, words: int) -> None:
        """Looks after the process that started this one, which holds the file `words` open."""
        self.parent = os.getppid()
        self.selector.register(words, selectors.EVENT_READ, lambda: self._hear_parent(words))

    def run(self) -> None:
        """Beats, and listens, until a node is lost or the rank has ended."""
        interval = self.setup.interval
        began = beaten = looked = time.monotonic()
        while not self.ended:
            events = self.selector.select(interval / 2)
            now = time.monotonic()
            if now - looked > 5 * interval:
                # It stood still itself (a stopped job, a paused machine): that was not the others.
                for peer in self.peers:
                    peer.heard = now
            looked = now
            for key, _ in events:
                key.data()
            if os.getppid() != self.parent:
                self.ended = True  # its children may hold the file open
            if now - beaten >= interval:
                beaten = now
                self.tell("beat")
            if now - began > SECONDS_TO_CONNECT:
                self._give_up()
            for peer in list(self.peers):
                if now - peer.heard > self.setup.silence:
                    self._lost("silent", peer)
                elif not peer.name and now - peer.came > SECONDS_TO_SAY_HELLO:
                    self._drop(peer)

    def tell(self, line: str) -> None:
        """To all that are connected, and have said who they are."""
        for peer in self.peers:
            if peer.name:
                peer.send(line)

    def _accept(self) -> None:
        if self.listener is not None:
            with contextlib.suppress(OSError):
                self._join(self.listener.accept()[0])

    def _close_the_door(self) -> None:
        """Nobody is awaited any longer: whoever comes is a stranger."""
        if self.listener is not None:
            self.selector.unregister(self.listener)
            self.listener.close()
            self.listener = None

    def _join(self, connection: socket.socket) -> Peer:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(connection, connection.getpeername()[0])
        self.peers.append(peer)
        self.selector.register(connection, selectors.EVENT_READ, lambda: self._hear(peer))
        return peer

    def _hear(self, peer: Peer) -> None:
        try:
            lines = peer.lines()
        except BlockingIOError:
            return
        except OSError:  # of the network: nothing will come, and that is noticed
            self.selector.unregister(peer.connection)
            return
        if lines is None:
            self._lost("gone", peer)
            return
        for line in lines:
            word, _, rest = line.partition(" ")
            if not peer.name:
                secret, _, number = rest.partition(" ")
                if word != "hello" or secret != self.setup.secret or number not in self.awaited:
                    self._drop(peer)
                    return
                peer.name = self.awaited.pop(number)
                peer.send("beat")  # it knows by this that it is welcome
                if not self.awaited:
                    self._close_the_door()
            if not peer.watched:
                peer.watched = True
                self.say(f"watched {peer.name}")
            if word == "bye":
                self._drop(peer)
                return
            if word in ("lost-silent", "lost-gone"):  # the first node's word on a third
                self.say(f"{word.removeprefix('lost-')} {rest}")

    def _lost(self, how: str, peer: Peer) -> None:
        """Tells this node's rank, and, on the first node, the others.

        Of one that never said anything it is known only that the connection is none: the first node
        closes it when it has given up to wait, and a firewall may open one to nobody.
        """
        self._drop(peer)
        if peer.name and not peer.watched:
            self.say(f"unwatched {peer.name}")
        elif peer.name:  # else it was no node of this run
            self.say(f"{how} {peer.shown}")
            self.tell(f"lost-{how} {peer.shown}")

    def _give_up(self) -> None:
        for name in self.awaited.values():
            self.say(f"unwatched {name}")
        self.awaited = {}
        self._close_the_door()

    def _drop(self, peer: Peer) -> None:
        self.peers.remove(peer)
        with contextlib.suppress(KeyError):
            self.selector.unregister(peer.connection)
        peer.connection.close()

    def _hear_parent(self, words: int) -> None:
        said = os.read(words, LONGEST_LINE)
        if b"bye" in said:
            self.tell("bye")
        self.ended = b"bye" in said or not said  # then the closed connections tell


def main() -> None:
    """The process; it ends with the one that started it."""
    # Who asks a run to stop asks its ranks, which save first: signs of life are needed until then.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)

    def say(line: str) -> None:
        with contextlib.suppress(OSError):
            os.write(1, f"{line}\n".encode())

    line = b""
    while not line.endswith(b"\n"):
        got = os.read(0, 1)
        if not got:
            return
        line += got
    heartbeat = Heartbeat(Setup(**json.loads(line)), say)
    heartbeat.watch_parent(0)
    if heartbeat.connect():
        heartbeat.run()


if __name__ == "__main__":
    sys.exit(main())
