"""SIGKILL of the server under a load of eight labelers: what was acknowledged is there, once."""

import json
import random
import sqlite3
import threading
import time
from collections import Counter

import httpx
import pytest

from common.files import write_json_lines
from tests.step2_reward.annotation.serving import Labeler, Server, answer

NAMES = [f"labeler {i}" for i in range(8)]


class Worker(threading.Thread):
    """Ranks at random as fast as it can; sends an answer again until it has a reply."""

    def __init__(self, labeler: Labeler, stop: threading.Event) -> None:
        super().__init__()
        self.labeler = labeler
        self.stop = stop
        self.acknowledged: dict[str, tuple[str, str]] = {}
        self.answers = self.repeated = 0
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.until_reached(self.labeler.sign_in)
            while not self.stop.is_set():
                item = self.until_reached(self.labeler.next)
                if not item:
                    return
                self.rank(item)
        except Exception as error:
            self.error = error

    def rank(self, item) -> None:
        places = random.sample(range(len(item["responses"])), len(item["responses"]))
        comment = str(random.random())
        body = answer([[place] for place in places], comment=comment)
        reply = self.until_reached(lambda: self.labeler.post(item["key"], body))
        assert reply.status_code == 200, reply.text
        self.answers += 1
        self.repeated += not reply.json()["new"]
        self.acknowledged[body["answer_id"]] = item["key"], comment

    def until_reached(self, action):
        while True:
            try:
                return action()
            except httpx.TransportError:
                time.sleep(0.05)


def kill_under_load(tmp_path, kills: int) -> None:
    samples = tmp_path / "samples.jsonl"
    rows = [{"prompt": f"prompt {i}", "responses": ["a", "b", "c", "d", "e"]} for i in range(3000)]
    write_json_lines(samples, rows)
    stop = threading.Event()
    counts = []
    with Server(tmp_path / "run", samples=str(samples), labelers=NAMES) as server:
        workers = [Worker(server.labeler(name), stop) for name in NAMES]
        for worker in workers:
            worker.start()
        for kill in range(kills):
            before = sum(w.answers for w in workers)
            deadline = time.monotonic() + 60
            while sum(w.answers for w in workers) < before + 10:
                assert time.monotonic() < deadline, server.log.read_text()
                assert not any(w.error for w in workers), [w.error for w in workers]
                time.sleep(0.005)
            time.sleep(random.Random(kill).uniform(0, 0.1))
            counts.append(sum(w.answers for w in workers) - before)
            assert server.stop(9) == -9
            server.start()
        stop.set()
        for worker in workers:
            worker.join(timeout=60)
            assert not worker.is_alive() and worker.error is None, worker.error
        assert server.stop() == 0  # SIGTERM ends it in order
    assert len(counts) == kills and min(counts) >= 10  # each kill fell into work

    database = sqlite3.connect(tmp_path / "run" / "annotate" / "labels.sqlite")
    assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    stored = {}
    for row in database.execute("SELECT answer_id, item, labeler, revision, content FROM answers"):
        assert row[0] not in stored
        stored[row[0]] = row[1:]
    for worker in workers:
        for answer_id, (item, comment) in worker.acknowledged.items():
            assert stored[answer_id][:2] == (item, worker.labeler.name)
            assert json.loads(stored[answer_id][3])["comment"] == comment
    assert {revision for _, _, revision, _ in stored.values()} == {1}  # none twice
    assert len({(item, labeler) for item, labeler, _, _ in stored.values()}) == len(stored)
    assert len(stored) == sum(w.answers for w in workers)  # and none that nobody sent
    assert max(Counter(item for item, *_ in stored.values()).values()) == 3


def test_three_kills(tmp_path):
    kill_under_load(tmp_path, 3)


@pytest.mark.slow
def test_twenty_kills(tmp_path):
    kill_under_load(tmp_path, 20)
