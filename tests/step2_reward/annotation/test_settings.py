"""Settings of the labeling page that are refused, links, and one server per project."""

import json
import stat
import subprocess
import sys

import pytest
from starlette.testclient import TestClient

from common.errors import UserError
from common.files import write_json_lines
from step2_reward.annotate import (
    AnnotateArguments,
    address_of,
    is_loopback,
    main,
    own_address,
)
from step2_reward.annotation.export import check_export, write_export
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.server import listen
from step2_reward.annotation.storage import Storage
from step2_reward.annotation.tokens import Tokens, read_or_make, write_links
from tests.step2_reward.annotation.projects import save
from tests.step2_reward.annotation.serving import ROOT

THREE = ["anna", "ben", "carla"]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"labelers": []}, "names nobody"),
        ({"labelers": ["anna", "Anna", "ben"]}, "'Anna' is there twice"),
        ({"labelers": ["anna", " ", "ben"]}, "is no name"),
        ({"labelers": ["anna", "b\x00n", "carla"]}, "is no name"),
        ({"labelers": ["anna", "b" * 61, "carla"]}, "longer than 60"),
        ({"labelers": THREE, "host": "0.0.0.0"}, "add --allow_remote true"),
        ({"labelers": THREE, "host": "::"}, "add --allow_remote true"),
        ({"labelers": THREE, "host": "example.org"}, "add --allow_remote true"),
        ({"labelers": THREE, "address": "label.example"}, "must be like https://"),
        ({"labelers": THREE, "address": "https://label.example/x"}, "without a path"),
        ({"labelers": THREE, "lease_minutes": 0.0}, "lease_minutes is 0"),
        ({"labelers": THREE, "gold_every": 0}, "gold_every is 0"),
    ],
)
def test_settings_that_are_refused(settings, says):
    with pytest.raises(UserError, match=says):
        AnnotateArguments(**settings)


def test_hosts(monkeypatch):
    assert all(map(is_loopback, ["127.0.0.1", "127.1.2.3", "::1", "localhost"]))
    remote = AnnotateArguments(labelers=THREE, host="0.0.0.0", allow_remote=True)
    monkeypatch.setattr("step2_reward.annotate.own_address", lambda _: "10.1.2.3")
    assert address_of(remote, 80) == "http://10.1.2.3:80"  # nobody gets to 0.0.0.0
    monkeypatch.setattr("step2_reward.annotate.own_address", lambda _: None)
    assert address_of(remote, 80) == "http://0.0.0.0:80"
    assert address_of(AnnotateArguments(labelers=THREE, host="::1"), 80) == "http://[::1]:80"
    proxied = AnnotateArguments(labelers=THREE, address="https://label.example")
    assert address_of(proxied, 8765) == "https://label.example"


def test_a_taken_port_is_said():
    listener = listen("127.0.0.1", 0)
    with pytest.raises(UserError, match="choose another --port"):
        listen("127.0.0.1", listener.getsockname()[1])
    listener.close()
    with pytest.raises(UserError, match="there is no such port"):
        listen("127.0.0.1", 70000)


def test_the_way_out():
    assert own_address("127.0.0.2") == "127.0.0.1"
    assert own_address("no address") is None


def test_tokens_are_kept_private_and_told_apart(tmp_path):
    tokens = read_or_make(tmp_path, THREE)
    assert read_or_make(tmp_path, [*THREE, "dmitri"]) | tokens == read_or_make(
        tmp_path, [*THREE, "dmitri"]
    )
    assert len(set(tokens.values())) == 4 and all(len(t) >= 43 for t in tokens.values())
    links = write_links(tmp_path, "http://localhost:1", tokens)
    for file in (tmp_path / "tokens.json", links):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    known = Tokens(tokens[""], {name: tokens[name] for name in THREE})
    assert known.labeler(tokens["ben"]) == "ben" and known.is_project(tokens[""])
    for other in (tokens[""], "", tokens["ben"][:-1], tokens["ben"] + "x", "\ud800"):
        assert known.labeler(other) is None
    assert not known.is_project(tokens["ben"])


def test_a_spoiled_tokens_file_is_refused(tmp_path):
    for spoiled in ("{", "[]", '{"anna": "short"}', '{"anna": 1}'):
        (tmp_path / "tokens.json").write_text(spoiled)
        with pytest.raises(UserError, match="not a file of tokens"):
            read_or_make(tmp_path, THREE)


def test_export_needs_a_project(tmp_path):
    with pytest.raises(UserError, match="no labeling project in this run"):
        main(AnnotateArguments(run=str(tmp_path), export=str(tmp_path / "out.jsonl")))


def start(tmp_path, labelers, **settings):
    """As far as the server would begin to serve."""
    main(AnnotateArguments(run=str(tmp_path), port=0, labelers=labelers, **settings))


def test_who_leaves_need_not_stay_in_the_list(tmp_path, monkeypatch, capsys):
    """Of three for each prompt two go on; the third has answered, and is locked out."""
    served = {}
    monkeypatch.setattr("step2_reward.annotate.serve", lambda app, *_, **__: served.update(app=app))
    (tmp_path / "sample").mkdir()
    samples = tmp_path / "sample" / "samples.jsonl"
    write_json_lines(samples, [{"prompt": f"p{i}", "responses": ["a", "b"]} for i in range(4)])
    with pytest.raises(UserError, match="names 2 people, but 3 rank"):
        start(tmp_path, THREE[:2])
    start(tmp_path, THREE)
    storage = Storage(tmp_path / "annotate" / "labels.sqlite")
    project = Project(read_items(samples), [], storage, Rules())
    page = project.next_page("carla")
    save(project, "carla", page)
    begun = project.next_page("carla")["key"]
    storage.close()
    with pytest.raises(UserError, match="'Carla', but 'carla' has answered here"):
        start(tmp_path, ["anna", "ben", "Carla"])
    capsys.readouterr()
    start(tmp_path, THREE[:2])
    said = capsys.readouterr().out
    assert "have answered: carla" in said and "WARNING: 3 rank each prompt, and 2" in said
    tokens = json.loads((tmp_path / "annotate" / "tokens.json").read_text())
    with TestClient(served["app"]) as client:
        for name, status in (("carla", 403), ("anna", 200)):
            body = {"page": "labeler", "token": tokens[name]}
            assert client.post("/api/session", json=body).status_code == status
    storage = Storage(tmp_path / "annotate" / "labels.sqlite")
    assert storage.desk(begun, "carla").until == 0
    assert [a.labeler for a in storage.answers()] == ["carla"]
    storage.close()


def test_an_export_takes_an_older_ones_second_file_away(tmp_path):
    samples = tmp_path / "samples.jsonl"
    write_json_lines(samples, [{"prompt": "p", "responses": ["a", "b"]}])
    project = Project(read_items(samples), [], Storage(tmp_path / "labels.sqlite"), Rules())
    page = project.next_page("anna")
    save(project, "anna", page, [], cannot_judge=True)
    said = write_export(project, tmp_path / "rankings.jsonl")
    beside = tmp_path / "rankings_unranked.jsonl"
    assert beside.is_file() and "1 that nobody could judge" in said
    # The first file is empty, and yet an export: it may be replaced, in the run's folder too.
    check_export(project.storage, tmp_path / "rankings.jsonl", tmp_path, [str(samples)])
    save(project, "anna", page)
    said = write_export(project, tmp_path / "rankings.jsonl")
    assert not beside.exists() and "could judge" not in said
    project.storage.close()


def test_errors_are_told_without_a_traceback(tmp_path):
    write_json_lines(tmp_path / "samples.jsonl", [{"prompt": "p", "responses": ["only one"]}])
    settings = {"run": str(tmp_path), "samples": str(tmp_path / "samples.jsonl"), "seed": 3}
    (tmp_path / "all.yaml").write_text(json.dumps({**settings, "labelers": THREE}))
    done = subprocess.run(
        [sys.executable, "step2_reward/annotate.py", "--config", str(tmp_path / "all.yaml")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("annotate: error:") and "samples.jsonl:1" in done.stderr
    assert "Traceback" not in done.stderr
