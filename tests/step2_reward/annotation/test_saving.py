"""Answers in the database: replays, corrections, a disk that refuses."""

import json
import sqlite3

import pytest
from starlette.testclient import TestClient

from common.errors import UserError
from step2_reward.annotation.answers import Answer
from step2_reward.annotation.server import build_app
from step2_reward.annotation.storage import OtherContent, Storage
from step2_reward.annotation.tokens import Tokens
from tests.step2_reward.annotation.projects import by_length, save
from tests.step2_reward.annotation.serving import answer as body


def test_a_replay_changes_nothing(make, clock):
    project = make()
    page = project.next_page("anna")
    sent = Answer(**body(by_length(page), comment="first"))
    first, new = project.save("anna", page["key"], sent)
    assert new
    clock.now += 60
    correction, new = save(project, "anna", page, comment="second")
    assert new and correction.revision == 2
    clock.now += 60
    assert project.save("anna", page["key"], sent) == (first, False)
    (current,) = project.storage.answers()
    assert current == correction
    with pytest.raises(OtherContent):
        project.save("anna", page["key"], sent.model_copy(update={"comment": "forged"}))


def test_corrections_keep_the_history(make, tmp_path):
    project = make()
    page = project.next_page("anna")
    save(project, "anna", page)
    again = project.page_again("anna", page["key"])
    assert again["answer"]["order"] == by_length(page)
    assert again["responses"] == page["responses"]
    save(project, "anna", again, order=[[0, 1, 2, 3, 4]], comment="all alike")
    kept = sqlite3.connect(tmp_path / "labels.sqlite").execute(
        "SELECT revision, content FROM answers ORDER BY revision"
    )
    history = [(revision, json.loads(content)["comment"]) for revision, content in kept]
    assert history == [(1, ""), (2, "all alike")]
    assert project.mine("anna")["answers"][0]["corrected"]


def test_a_database_that_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_text("no database, and no folder; long enough to be looked at" * 20)
    for path in (tmp_path / "file", tmp_path / "file" / "labels.sqlite"):
        with pytest.raises(UserError, match="cannot be opened"):
            Storage(path)


def test_a_commit_waits_for_the_disk(tmp_path):
    """What makes an acknowledged answer survive a loss of power; a kill alone would not tell."""
    storage = Storage(tmp_path / "labels.sqlite")
    assert storage._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert storage._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    storage.close()


def test_a_disk_that_refuses_is_no_acknowledgement(make, capsys):
    project = make()
    page = project.next_page("anna")
    tokens = Tokens("p" * 43, {"anna": "a" * 43})
    app = build_app(project, tokens, ["anna"], "0")
    project.storage._db.execute("PRAGMA max_page_count = 1")  # as full as can be
    with TestClient(app, headers={"x-annotate": "anna"}) as client:
        client.post("/api/session", json={"page": "labeler", "token": "a" * 43})
        path = f"/api/items/{page['key']}/answer"
        full = client.post(path, json=body(by_length(page), comment="x" * 4000))
        assert full.status_code == 503 and full.json()["kind"] == "not saved"
        assert "not saved: database or disk is full" in capsys.readouterr().err
        project.storage._db.execute("PRAGMA max_page_count = 100000")
        assert client.get("/api/mine").json()["answers"] == []
        assert client.post(path, json=body(by_length(page))).status_code == 200
