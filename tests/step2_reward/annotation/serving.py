"""A labeling server in a process of its own, and a labeler who talks to it without a browser."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

ROOT = Path(__file__).parents[3]
PATIENCE = 60.0
"""Seconds in which a server has to come up, on a machine that does other things as well."""

# As annotate.py, but without transformers' parser, whose import takes most of a start.
_PROGRAM = """
import json, sys
from step2_reward.annotate import AnnotateArguments, main
main(AnnotateArguments(**json.loads(sys.argv[1])))
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """`with Server(tmp_path, samples=…, labelers=[…]) as server: …`; can be killed and started."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.settings = {"run": str(folder), "port": self.port, **settings}
        self.process: subprocess.Popen | None = None
        self.log = folder.parent / "server.log"

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, json.dumps(self.settings)],
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            try:
                if httpx.get(self.address, timeout=5).status_code == 200:
                    return
            except httpx.TransportError:
                assert self.process.poll() is None, self.log.read_text()
                time.sleep(0.02)
        raise AssertionError(f"the server did not come up: {self.log.read_text()}")

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends this server alone; returns its exit code."""
        self.process.send_signal(number)
        return self.process.wait(timeout=PATIENCE)

    def __enter__(self) -> "Server":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.stop(signal.SIGKILL)

    @property
    def tokens(self) -> dict[str, str]:
        """By labeler; the project page's under ""."""
        return json.loads((self.folder / "annotate" / "tokens.json").read_text())

    def link(self, name: str) -> str:
        return f"{self.address}/{'' if name else 'project'}#{self.tokens[name]}"

    def labeler(self, name: str) -> "Labeler":
        return Labeler(self.address, name, self.tokens[name])

    @contextmanager
    def project_page(self) -> Iterator[httpx.Client]:
        """A client that is signed in to the project page."""
        with httpx.Client(base_url=self.address, timeout=30) as client:
            body = {"page": "project", "token": self.tokens[""]}
            client.post("/api/session", json=body).raise_for_status()
            yield client


class Labeler:
    """What the page does, by plain requests."""

    def __init__(self, address: str, name: str, token: str) -> None:
        self.name = name
        self.client = httpx.Client(
            base_url=address, timeout=30, headers={"x-annotate": quote(name, safe="")}
        )
        self.token = token

    def sign_in(self) -> "Labeler":
        body = {"page": "labeler", "token": self.token}
        self.client.post("/api/session", json=body).raise_for_status()
        return self

    def next(self) -> dict[str, Any] | None:
        reply = self.client.post("/api/next", json={})
        reply.raise_for_status()
        return reply.json()["item"]

    def post(self, key: str, body: dict[str, Any]) -> httpx.Response:
        return self.client.post(f"/api/items/{key}/answer", json=body)

    def save(self, item: dict[str, Any], order: list[list[int]], **more: Any) -> dict[str, Any]:
        reply = self.post(item["key"], answer(order, **more))
        reply.raise_for_status()
        return reply.json()


def answer(order: list[list[int]], **more: Any) -> dict[str, Any]:
    """A body as the page sends it."""
    return {
        "answer_id": uuid.uuid4().hex,
        "order": order,
        "cannot_judge": False,
        "ratings": [],
        "comment": "",
        "seconds": 12.5,
        **more,
    }
