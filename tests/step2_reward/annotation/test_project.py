"""A project without a server: places, time-outs, corrections, replays, export, figures."""

import json
import sqlite3
import threading
from collections import Counter

import pytest
from starlette.testclient import TestClient

from common.data.layouts import read_rankings
from common.data.sources import DataSource
from common.errors import UserError
from common.files import write_json_lines
from step2_reward.annotation.answers import Answer, BadAnswer, content_of, places_of
from step2_reward.annotation.export import split_rows
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.server import build_app
from step2_reward.annotation.storage import NotYours, OtherContent, Storage
from step2_reward.annotation.summary import summarize
from step2_reward.annotation.tokens import Tokens
from tests.step2_reward.annotation.serving import answer as body

LENGTHS = ["a", "bb", "ccc", "dddd", "eeeee"]


class Clock:
    now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def write(path, count=4, **more):
    rows = [{"prompt": f"prompt {i}", "responses": LENGTHS, **more} for i in range(count)]
    write_json_lines(path, rows)
    return path


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def make(tmp_path, clock):
    made = []

    def project(count=4, gold=0, **rules):
        samples = read_items(write(tmp_path / "samples.jsonl", count, model="m"))
        golden = []
        if gold:
            file = tmp_path / "gold.jsonl"
            rows = [
                {"prompt": f"gold {i}", "responses": LENGTHS, "orders": [[0, 1, 2, 3, 4]]}
                for i in range(gold)
            ]
            write_json_lines(file, rows)
            golden = read_items(file, gold=True)
        storage = Storage(tmp_path / "labels.sqlite")
        made.append(storage)
        return Project(samples, golden, storage, Rules(**rules), clock=clock)

    yield project
    for storage in made:
        storage.close()


def by_length(page):
    """Shortest first, as places on the page."""
    order = sorted(range(len(page["responses"])), key=lambda i: len(page["responses"][i]))
    return [[place] for place in order]


def save(project, labeler, page, order=None, **more):
    sent = Answer(**body(by_length(page) if order is None else order, **more))
    return project.save(labeler, page["key"], sent)


def test_exactly_three_labelers_each(make):
    project = make(count=5)
    seen = Counter()
    for labeler in ["anna", "ben", "carla", "dmitri", "emma"] * 5:
        page = project.next_page(labeler)
        if page:
            save(project, labeler, page)
            seen[page["key"]] += 1
    assert seen == {item.key: 3 for item in project.samples}
    assert all(project.next_page(name) is None for name in ("anna", "emma"))
    answers = project.storage.answers()
    assert len({(a.item, a.labeler) for a in answers}) == len(answers) == 15


def test_many_at_once_never_take_a_place_too_many(make):
    """Twelve threads, one place left at a time: the database decides, not the luck of threads."""
    project = make(count=10)
    errors = []

    def work(name):
        try:
            while page := project.next_page(name):
                save(project, name, page)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(f"labeler {i}",)) for i in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert Counter(a.item for a in project.storage.answers()) == {
        item.key: 3 for item in project.samples
    }


def test_an_open_prompt_is_held_and_comes_back(make, clock):
    project = make(count=1, per_prompt=1, lease_seconds=100)
    page = project.next_page("anna")
    assert project.next_page("ben") is None
    assert project.next_page("anna") == page  # she loads the page again
    clock.now += 99
    assert project.still_at_work("anna", page["key"])
    clock.now += 99
    assert project.next_page("ben") is None
    clock.now += 2
    assert not project.still_at_work("anna", page["key"])
    with pytest.raises(NotYours):
        project.page_again("anna", page["key"])
    other = project.next_page("ben")
    assert other["key"] == page["key"]
    with pytest.raises(NotYours):
        save(project, "anna", page)
    save(project, "ben", other)
    with pytest.raises(NotYours):
        save(project, "anna", page)


def test_who_comes_late_may_still_answer_while_the_place_is_free(make, clock):
    project = make(count=1, per_prompt=1, lease_seconds=100)
    page = project.next_page("anna")
    clock.now += 5000
    save(project, "anna", page)
    assert project.next_page("ben") is None


def test_what_is_on_anothers_desk_is_left(make, clock):
    """The page looks again as long as something is left: it may be given back."""
    project = make(count=2, per_prompt=1, lease_seconds=100)
    page = project.next_page("anna")
    save(project, "ben", project.next_page("ben"))
    assert project.next_page("ben") is None
    assert project.progress("ben") == {"done": 1, "left": 1}
    clock.now += 101
    assert project.next_page("ben")["key"] == page["key"]
    save(project, "ben", page)
    assert project.progress("ben") == {"done": 2, "left": 0}
    assert project.progress("anna") == {"done": 0, "left": 0}


@pytest.mark.parametrize("gold", [1, 2, 9])
def test_what_is_left_does_not_tell_gold_questions(make, gold):
    project = make(count=12, gold=gold, per_prompt=1, gold_every=4)
    lefts = [project.progress("anna")["left"]]
    while page := project.next_page("anna"):
        save(project, "anna", page)
        lefts.append(project.progress("anna")["left"])
    assert lefts == list(range(len(lefts) - 1, -1, -1))


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
    assert project.mine("anna")[0]["corrected"]


def test_nobody_sees_anothers_prompt_or_answer(make):
    project = make(per_prompt=1)
    page = project.next_page("anna")
    save(project, "anna", page)
    with pytest.raises(NotYours):
        project.page_again("ben", page["key"])
    with pytest.raises(NotYours):
        save(project, "ben", page)
    assert project.mine("ben") == []
    assert set(page) == {"key", "messages", "responses", "answer"}


def test_a_restart_goes_on_and_changed_samples_are_refused(make, tmp_path):
    project = make()
    page = project.next_page("anna")
    save(project, "anna", page)
    open_page = project.next_page("anna")
    project.storage.close()
    again = make()
    assert again.next_page("anna") == open_page
    assert len(again.storage.answers()) == 1
    with pytest.raises(UserError, match="there were 4 prompts, and now there are 5"):
        make(count=5)
    write_json_lines(
        tmp_path / "other.jsonl",
        [{"prompt": f"prompt {i}", "responses": ["x", "y"]} for i in range(4)],
    )
    with pytest.raises(UserError, match="4 prompts, and now there are 4 prompts with other texts"):
        Project(read_items(tmp_path / "other.jsonl"), [], again.storage, Rules())


def test_gold_questions_look_like_any_other_and_do_not_leave(make, clock):
    project = make(count=12, gold=3, per_prompt=2, gold_every=4)
    for labeler in ("anna", "ben"):
        pages = []
        while page := project.next_page(labeler):
            pages.append(page)
            order = by_length(page)
            save(project, labeler, page, order if labeler == "anna" else order[::-1])
        golden = [p["messages"][0]["content"].startswith("gold") for p in pages]
        assert sum(golden) == 3 and len(pages) == 15
        assert len({tuple(sorted(p)) for p in pages}) == 1
    figures = summarize(project, ["anna", "ben"], clock.now)
    assert [row["gold_right"] for row in figures["labelers"]] == [1.0, 0.0]
    assert figures["answers"] == 24 and figures["complete"] == 12
    rows, _ = split_rows(project)
    assert len(rows) == 12 and not any(r["prompt"].startswith("gold") for r in rows)


def test_gold_questions_are_for_everybody(make):
    project = make(count=3, gold=1, per_prompt=1, gold_every=1)
    for labeler in ("anna", "ben", "carla"):
        page = project.next_page(labeler)
        assert page["messages"][0]["content"] == "gold 0"
        save(project, labeler, page)
        assert project.next_page(labeler)["messages"][0]["content"].startswith("prompt")


def test_export_is_what_readers_of_rankings_take(make, tmp_path):
    project = make(count=3, per_prompt=2)
    orders = {"anna": {}, "ben": {}}
    for labeler in orders:
        for i in range(3):
            page = project.next_page(labeler)
            order = by_length(page)
            if labeler == "ben" and i == 0:  # the two shortest are alike to ben
                order = [order[0] + order[1], *order[2:]]
            cannot = labeler == "anna" and i == 1 or i == 2
            rated = [{"clarity": len(text) % 3} for text in page["responses"]]
            save(
                project,
                labeler,
                page,
                [] if cannot else order,
                cannot_judge=cannot,
                ratings=[] if cannot else rated,
                comment="no idea" if cannot else "",
            )
    ranked, unranked = split_rows(project)
    assert [r["labelers"] for r in ranked] == [["anna", "ben"], ["ben"]]
    assert ranked[0]["orders"] == [[0, 1, 2, 3, 4], [[0, 1], 2, 3, 4]]
    assert ranked[0]["ratings"][0] == [{"clarity": len(t) % 3} for t in LENGTHS]
    assert ranked[0]["model"] == "m" and ranked[0]["seconds"] == [12.5, 12.5]
    for labeler, shown in zip(ranked[0]["labelers"], ranked[0]["shown"], strict=True):
        page = project.page_again(labeler, project.samples[0].key)
        assert page["responses"] == [LENGTHS[number] for number in shown]
    assert [c["labeler"] for c in ranked[1]["cannot_judge"]] == ["anna"]
    assert [c["comment"] for c in unranked[0]["cannot_judge"]] == ["no idea", "no idea"]
    write_json_lines(tmp_path / "rankings.jsonl", ranked)
    read = read_rankings([DataSource(str(tmp_path / "rankings.jsonl"))])
    assert [r.ranks for r in read] == [
        ((1, 2, 3, 4, 5), (1.5, 1.5, 3, 4, 5)),
        ((1, 2, 3, 4, 5),),
    ]


def test_figures(make, clock):
    project = make(count=4, per_prompt=3)
    for labeler in ("anna", "ben", "carla"):
        for i in range(2):
            page = project.next_page(labeler)
            order = by_length(page)
            contrary = labeler == "carla" and i == 1
            save(project, labeler, page, order[::-1] if contrary else order, seconds=30 + 30 * i)
    figures = summarize(project, ["anna", "ben", "carla", "dmitri"], clock.now)
    assert (figures["complete"], figures["answers"], figures["wanted"]) == (2, 6, 12)
    # Two agree and one is contrary: rank sums 7, 8, 9, 10, 11, so S = 10 of 90 at most.
    assert figures["mean_w"] == pytest.approx((1 + 1 / 9) / 2)
    assert figures["histogram"] == [0, 1, 0, 0, 0, 0, 0, 0, 0, 1]
    anna, _, carla, dmitri = figures["labelers"]
    assert anna["tau"] == pytest.approx((1 + 1 + 1 - 1) / 4)
    assert carla["tau"] == pytest.approx((1 + 1 - 1 - 1) / 4)
    assert anna["median_seconds"] == 45 and anna["per_hour"] == pytest.approx(80)
    assert dmitri["answers"] == 0 and dmitri["tau"] is None and dmitri["per_hour"] is None
    (worst,) = figures["disagreed"]
    assert worst["w"] == pytest.approx(1 / 9)
    assert worst["ranks"]["carla"] == [5, 4, 3, 2, 1]
    json.dumps(figures, allow_nan=False)


def test_figures_of_a_project_that_has_not_begun(make, clock):
    figures = summarize(make(), ["anna"], clock.now)
    assert figures["alpha"] is None and figures["mean_w"] is None and not figures["disagreed"]


SHOWN = [3, 0, 2, 1]


def test_places_become_numbers_and_back():
    ratings = [{"clarity": 2}, {}, {"safety": 0}, {}]
    sent = Answer(**body([[1], [3, 0], [2]], ratings=ratings))
    content = content_of(sent, SHOWN)
    assert content["order"] == [[0], [1, 3], [2]]
    assert content["ratings"] == [{}, {}, {"safety": 0}, {"clarity": 2}]
    assert places_of(content)["order"] == [[1], [0, 3], [2]]
    assert places_of(content)["ratings"] == ratings


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": [[0], [1], [2]]},
        {"order": [[0], [1], [2], [2]]},
        {"order": [[0], [1], [2], [4]]},
        {"order": [[0], [1], [2], [-1]]},
        {"order": [[0], [], [1], [2, 3]]},
        {"order": []},
        {"cannot_judge": True},
        {"ratings": [{}]},
        {"ratings": [{"beauty": 1}, {}, {}, {}]},
        {"ratings": [{"clarity": 3}, {}, {}, {}]},
    ],
)
def test_answers_that_no_page_sends(wrong):
    sent = Answer(**body([[0], [1], [2], [3]]) | wrong)
    with pytest.raises(BadAnswer):
        content_of(sent, SHOWN)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "p", "responses": ["only one"]}, "'responses' holds 1"),
        ({"prompt": "p", "responses": ["a"] * 27}, "'responses' holds 27"),
        ({"prompt": "p", "responses": ["a", " "]}, r"responses\[1\]' is empty"),
        ({"prompt": "p"}, "'responses' is missing"),
        ({"responses": ["a", "b"]}, "columns"),
        ({"prompt": "p", "responses": ["a", "\ud800"]}, "surrogate"),
    ],
)
def test_samples_that_cannot_be_labeled(tmp_path, row, says):
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=says) as raised:
        read_items(file)
    assert f"{file}:1" in str(raised.value)


def test_gold_questions_need_an_order(tmp_path):
    with pytest.raises(UserError, match="'orders' is missing"):
        read_items(write(tmp_path / "gold.jsonl"), gold=True)
    with pytest.raises(UserError, match="ties all responses"):
        read_items(write(tmp_path / "gold.jsonl", orders=[[[4, 3, 2, 1, 0]]]), gold=True)


def test_a_database_that_cannot_be_opened(tmp_path):
    (tmp_path / "file").write_text("no database, and no folder; long enough to be looked at" * 20)
    for path in (tmp_path / "file", tmp_path / "file" / "labels.sqlite"):
        with pytest.raises(UserError, match="cannot be opened"):
            Storage(path)


def test_the_same_row_twice_is_two_prompts(tmp_path):
    file = tmp_path / "samples.jsonl"
    write_json_lines(file, [{"prompt": "p", "responses": ["a", "b"]}] * 2)
    assert len({item.key for item in read_items(file)}) == 2


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
