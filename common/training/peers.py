"""The other nodes of a stage: an end, with a name in it, when one is lost.

A collective waits for a node whose cable is cut until its time-out, which is longer than the
longest step, and does not know the node. A heartbeat beside each node's first rank
(`common.training.heartbeat`) knows it within `RLHF_SILENCE` seconds. With one node there is none.
"""

import contextlib
import json
import os
import secrets
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

import torch.distributed as dist

from common.errors import UserError
from common.training import heartbeat
from common.training.distributed import is_distributed
from common.training.heartbeat import Setup
from common.training.nodes import Place, node_name, own_name
from common.training.resume.signals import STOP_CODE, note_status
from common.training.watchdog import SECONDS_TO_SPEAK, WATCHDOG

SILENCE = 30.0
"""Seconds without a sign of life after which a node counts as lost, without `RLHF_SILENCE`."""

SECONDS_FOR_OWN_ERROR = 60.0
"""So long a rank may take to end by the library's own error when another node's rank is gone."""


class Peers:
    """This rank's view of the other nodes."""

    def __init__(self) -> None:
        self.stage, self.command = "", ""
        self.silence = SILENCE
        self.gone = ""
        """What is known of a node whose rank ended without a word."""
        self._beside = False
        """Another rank of this node has the heartbeat."""
        self._process: subprocess.Popen[bytes] | None = None
        self._told = threading.Event()

    def watch(self, stage: str, command: str) -> None:
        """From now on a lost node ends this process. On all ranks; needs the process group.

        Args:
            stage, command: for messages: its name, and what goes on with it ("the same command").

        Raises:
            UserError: `RLHF_SILENCE` is no number of seconds.
        """
        place = Place.from_environment()
        if place.nodes < 2 or not is_distributed():
            return
        self.stage, self.command = stage, command
        self.silence = silence_limit()
        self._beside = place.local_rank != 0
        if self._beside:
            return
        store = dist.PrefixStore("peers", dist.distributed_c10d._get_default_store())
        own = own_name(place.node)
        if place.node == 0:
            secret = secrets.token_hex(8)
            others = {str(n): node_name(n) for n in range(1, place.nodes)}
            self._start(Setup(0, own, others, self.silence, secret))
            _, _, port = self._process.stdout.readline().decode().partition(" ")
            store.set("first", json.dumps([own, int(port or 0), secret]))
        else:
            name, port, secret = json.loads(store.get("first"))
            first = [os.environ["MASTER_ADDR"], port]
            self._start(Setup(place.node, own, {"0": name}, self.silence, secret, first))
        threading.Thread(target=self._listen, daemon=True).start()

    def bye(self) -> None:
        """The process ends in order: the other nodes need not wait for a sign of life."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.write(b"bye\n")
                self._process.stdin.flush()

    def cause(self, seconds: float) -> str:
        """What another node's end has to do with an error here; '' where nothing is known.

        Waits for `seconds`, so that others can speak first, and as long as a silent node takes to
        be noticed; this process ends in here when there is one. So does a rank whose node's
        heartbeat is another rank's, and a little longer: with its end the launcher ends that one.
        """
        began = time.monotonic()
        if self._beside:
            seconds = max(seconds, self.silence + 3 * SECONDS_TO_SPEAK)
        time.sleep(seconds)
        if self._process is not None and self._process.poll() is None:
            self._told.wait(max(0.0, began + self.silence + SECONDS_TO_SPEAK - time.monotonic()))
        return self.gone

    def _start(self, setup: Setup) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(heartbeat.__file__))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._process.stdin.write(json.dumps(asdict(setup)).encode() + b"\n")
        self._process.stdin.flush()

    def _listen(self) -> None:
        for line in self._process.stdout:
            word, _, node = line.decode().strip().partition(" ")
            if word == "silent":
                self._end_for_silence(node)
            elif word == "gone" and not self.gone:
                self.gone = f"the process on {node} is gone (killed, or see what it printed)"
                self._told.set()
                threading.Thread(target=self._end_for_the_gone, daemon=True).start()
            elif word == "unwatched":
                print(
                    f"{self.stage}: warning: the heartbeat of {node} cannot be reached (a "
                    "firewall?); if its cable is cut, only time-outs will tell",
                    file=sys.stderr,
                    flush=True,
                )

    def _end_for_silence(self, node: str) -> None:
        end_at_once(
            f"{self.stage}: error: no sign of life from {node} for {self.silence:g} s, at "
            f"{WATCHDOG.place}; its cable, its network or the machine failed. From the last "
            f"checkpoint, {self.command} goes on",
            STOP_CODE,
        )

    def _end_for_the_gone(self) -> None:
        time.sleep(SECONDS_FOR_OWN_ERROR)
        end_at_once(f"{self.stage}: error: {self.gone}; at {WATCHDOG.place}", 1)


def silence_limit() -> float:
    """Seconds without a sign of life after which a node counts as lost.

    Raises:
        UserError: `RLHF_SILENCE` is no number above 0.
    """
    text = os.environ.get("RLHF_SILENCE", str(SILENCE))
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UserError(f"RLHF_SILENCE is '{text}', but must be a number of seconds above 0")
    return seconds


def end_at_once(message: str, code: int) -> None:
    """Ends this process from any thread, whatever its others wait for."""
    note_status(code)
    print(f"\n{message}", file=sys.stderr, flush=True)  # the progress bar has begun a line
    os._exit(code)


PEERS = Peers()
"""This process's."""
