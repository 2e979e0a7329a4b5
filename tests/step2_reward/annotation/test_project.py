"""A project without a server: places, time-outs, gold questions, a new start."""

import threading
from collections import Counter

import pytest

from common.errors import UserError
from common.files import write_json_lines
from step2_reward.annotation.export import split_rows
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.storage import NotYours
from step2_reward.annotation.summary import Summary
from tests.step2_reward.annotation.projects import by_length, save


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


def test_nobody_sees_anothers_prompt_or_answer(make):
    project = make(per_prompt=1)
    page = project.next_page("anna")
    save(project, "anna", page)
    with pytest.raises(NotYours):
        project.page_again("ben", page["key"])
    with pytest.raises(NotYours):
        save(project, "ben", page)
    assert project.mine("ben")["answers"] == []
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
    figures = Summary(project, ["anna", "ben"]).figures(clock.now)
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


def test_all_earlier_answers_can_be_reached(make, clock, monkeypatch):
    """Page by page, each once, also those that were saved at one time or corrected meanwhile."""
    monkeypatch.setattr("step2_reward.annotation.project.EARLIER", 3)
    project = make(count=10, per_prompt=1)
    saved = []
    while page := project.next_page("anna"):
        save(project, "anna", page)
        saved.append(page["key"])
        clock.now += len(saved) % 2  # every other one at the same time as the one before
    clock.now += 1
    save(project, "anna", project.page_again("anna", saved[2]))
    seen, older, pages = [], {}, 0
    while older is not None:
        found = project.mine("anna", **older)
        seen += [entry["key"] for entry in found["answers"]]
        assert len(found["answers"]) <= 3 and found["all"] == 10
        older, pages = found["older"], pages + 1
    assert sorted(seen) == sorted(saved) and pages == 4
    assert seen[0] == saved[2] and seen[-1] == saved[0]
    assert project.mine("ben") == {"answers": [], "older": None, "all": 0}


def test_a_gold_question_that_was_withdrawn_while_somebody_was_at_it(make):
    """Whoever had it open keeps one and the same other prompt, however often they come."""
    project = make(count=9, gold=1, gold_every=1)
    assert project.next_page("anna")["messages"][0]["content"] == "gold 0"
    again = make(count=9)
    keys = set()
    for other in ("ben", "carla", "dmitri"):  # whose work makes other prompts the first to do
        keys.add(again.next_page("anna")["key"])
        save(again, other, again.next_page(other))
    assert len(keys) == 1
    assert len(again.storage.open_desks("anna", again._clock())) == 2
    assert make(count=9, gold=1, gold_every=1).next_page("anna")["messages"][0]["content"] == (
        "gold 0"
    )


def test_what_somebody_left_who_has_left_goes_back(make):
    project = make(count=1, per_prompt=1)
    page = project.next_page("anna")
    assert project.next_page("ben") is None
    project.storage.clear_desks(["anna", "ben"])
    assert project.next_page("ben") is None
    project.storage.clear_desks(["ben"])
    assert project.next_page("ben")["key"] == page["key"]
    save(project, "ben", page)
    project.storage.clear_desks([])  # answers stay
    assert project.page_again("ben", page["key"])["answer"]
