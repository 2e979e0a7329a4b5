"""Merging rankings: each labeler's newest order once, whatever the order of files and responses."""

import json
import random

from common.data.labeled import labeled_of
from common.data.merging import ADDED, OLDER, REPLACED, UNCHANGED, WITHDRAWN, merge


def items(row, name="file"):
    return labeled_of(row, "f:1", name)


def row_of(orders, labelers, prompt="q", responses=("a", "b", "c"), **more):
    return {
        "prompt": prompt,
        "responses": list(responses),
        "orders": orders,
        "labelers": labelers,
        **more,
    }


def test_two_labelers_of_one_prompt_share_a_row():
    rows, counts = merge(
        [*items(row_of([[0, 1, 2]], ["ann"], facts={"x": 1})), *items(row_of([[2, 1]], ["bob"]))]
    )
    assert rows == [row_of([[0, 1, 2], [2, 1]], ["ann", "bob"], facts={"x": 1})]
    assert counts == {ADDED: 2}


def test_the_same_again_changes_nothing():
    row = row_of([[0, [1, 2]], [2, 1, 0]], ["ann", "bob"], comments=["", "hm"], model="m")
    once, _ = merge(items(row))
    twice, counts = merge([*items(row), *items(row)])
    again, _ = merge([x for r in once for x in items(r)])
    assert once == twice == again and json.dumps(once) == json.dumps(again)
    assert counts == {ADDED: 2, UNCHANGED: 2}


def test_a_newer_order_replaces_the_older_and_is_counted():
    old, new = row_of([[0, 1, 2]], ["ann"]), row_of([[2, 1, 0]], ["ann"])
    rows, counts = merge([*items(old), *items(new)])
    assert rows == [new] and counts == {ADDED: 1, REPLACED: 1}


def test_newer_is_what_was_saved_later_where_that_is_known():
    old = row_of([[0, 1, 2]], ["ann"], saved=["2024-05-01T12:00:00+02:00"])
    new = row_of([[2, 1, 0]], ["ann"], saved=["2024-05-01T11:00:00Z"])  # an hour later
    for order in ([old, new], [new, old]):
        rows, counts = merge([x for r in order for x in items(r)])
        assert rows == [new]
        assert counts == ({ADDED: 1, REPLACED: 1} if order[0] is old else {ADDED: 1, OLDER: 1})
    undated = row_of([[1, 2, 0]], ["ann"])
    rows, _ = merge([*items(new), *items(undated)])
    assert rows[0]["orders"] == [[1, 2, 0]]


def test_other_prompts_and_other_responses_are_rows_of_their_own():
    found = [
        row_of([[0, 1]], ["ann"], prompt="q"),
        row_of([[0, 1]], ["ann"], prompt="Q"),
        row_of([[0, 1]], ["ann"], responses=("a", "b", "d")),
    ]
    rows, counts = merge([x for r in found for x in items(r)])
    assert rows == found and counts == {ADDED: 3}


def test_responses_in_another_order_are_the_same_prompt():
    """Each labeler's preferences, as pairs of texts, are what they were."""
    draw = random.Random(0)
    for _ in range(200):
        texts = [draw.choice("abc") * n for n in range(1, draw.randint(2, 6) + 1)]
        given, expected = [], {}
        for labeler in ("ann", "bob", "cy"):
            shuffled = draw.sample(texts, len(texts))
            order = draw.sample(range(len(texts)), draw.randint(2, len(texts)))
            ratings = [{"clarity": len(t) % 3} for t in shuffled]
            shown = draw.sample(range(len(texts)), len(texts))
            given += items(
                row_of([order], [labeler], "q", shuffled, ratings=[ratings], shown=[shown])
            )
            expected[labeler] = (
                [shuffled[i] for i in order],
                {t: r for t, r in zip(shuffled, ratings, strict=True)},
                [shuffled[i] for i in shown],
            )
        (row,), counts = merge(given)
        assert counts == {ADDED: 3}
        for i, labeler in enumerate(row["labelers"]):
            best_first = [row["responses"][n] for n in row["orders"][i]]
            rated = dict(zip(row["responses"], row["ratings"][i], strict=True))
            shown = [row["responses"][n] for n in row["shown"][i]]
            assert (best_first, rated, shown) == expected[labeler]


def test_responses_with_the_same_text_keep_their_own_places():
    rows, counts = merge(
        [
            *items(row_of([[0, 1, 2]], ["ann"], responses=("a", "b", "a"))),
            *items(row_of([[2, 0, 1]], ["bob"], responses=("a", "a", "b"))),
        ]
    )
    assert rows == [row_of([[0, 1, 2], [1, 0, 2]], ["ann", "bob"], responses=("a", "b", "a"))]
    assert counts == {ADDED: 2}


def test_who_could_not_judge_and_then_did():
    unable = [{"labeler": "bob", "comment": "?"}, {"labeler": "cy", "comment": ""}]
    given = [
        *items(row_of([[0, 1]], ["ann"], cannot_judge=unable)),
        *items(row_of([[1, 0], None, []], ["bob", "dan", "eve"])),
    ]
    rows, counts = merge(given)
    assert rows[0]["labelers"] == ["ann", "bob"] and counts == {ADDED: 2}
    others = [{"labeler": "cy", "comment": ""}, {"labeler": "dan"}, {"labeler": "eve"}]
    assert rows[0]["cannot_judge"] == others
    again, _ = merge([x for row in rows for x in items(row)])
    assert again == rows


def test_notes_on_an_earlier_order_go_with_it():
    words = {"comments": ["too long"], "ratings": [[{"clarity": 1}] * 3]}
    old = row_of([[0, 1, 2]], ["ann"], saved=["2024-05-01T10:00:00Z"], **words)
    new = row_of([[2, 1, 0]], ["ann"], saved=["2024-05-01T11:00:00Z"])
    cleared = {**new, "orders": old["orders"]}
    for later in (new, cleared):
        assert merge([*items(old), *items(later)])[0] == [later]
    undated = row_of([[0, 1, 2]], ["ann"])  # the same order, of which it knows less
    assert merge([*items(old), *items(undated)])[0] == [old]


def test_who_judged_and_then_could_not_has_no_order():
    """As two exports of the annotation page say it, in whichever order they come."""
    bob = {"orders": [[0, 1, 2]], "labelers": ["bob"], "saved": ["2024-05-01T09:00:00Z"]}
    both = row_of(
        [[2, 1, 0], [0, 1, 2]], ["ann", "bob"], saved=["2024-05-01T10:00:00Z", bob["saved"][0]]
    )
    unable = [{"labeler": "ann", "comment": "", "saved": "2024-05-01T11:00:00Z"}]
    later = {**row_of(**bob), "cannot_judge": unable}
    for order, told in (
        ([both, later], {ADDED: 2, UNCHANGED: 1, WITHDRAWN: 1}),
        ([later, both], {ADDED: 1, OLDER: 1, UNCHANGED: 1}),
    ):
        rows, counts = merge([x for r in order for x in items(r)])
        assert rows == [later] and counts == told
    undecided = {**later, "cannot_judge": [{**unable[0], "saved": "2024-05-01T08:00:00Z"}]}
    rows, _ = merge([x for r in (later, undecided) for x in items(r)])
    assert rows == [later]


def test_lists_by_response_follow_the_responses():
    """`ended` of the second file is in the order of that file's responses."""
    first = {
        "prompt": "q",
        "responses": ["a", "b", "c"],
        "orders": [[0, 1, 2]],
        "labelers": ["ann"],
    }
    second = {
        "prompt": [{"role": "user", "content": "q"}],
        "responses": ["c", "a", "b"],
        "orders": [[0, 1, 2]],
        "labelers": ["bob"],
        "ended": ["of c", "of a", "of b"],
        "tags": ["x", "y"],
    }
    (row,), _ = merge([*items(first), *items(second)])
    assert row["ended"] == ["of a", "of b", "of c"] and row["tags"] == ["x", "y"]
    assert row["orders"] == [[0, 1, 2], [2, 0, 1]]


def test_who_could_not_judge_is_carried_over_without_an_order():
    """From rows that hold nothing else, into rows that others have ranked, and once."""
    ranked = {"prompt": "q", "responses": ["a", "b"], "orders": [[0, 1]], "labelers": ["ann"]}
    nobody = {**ranked, "orders": [], "labelers": []}
    nobody["cannot_judge"] = [{"labeler": "bob", "comment": "?"}]
    other = {**nobody, "prompt": "r"}
    expected = [{**ranked, "cannot_judge": nobody["cannot_judge"]}, other]
    for given in ((other, ranked, nobody), (other, nobody, ranked, nobody)):
        rows, counts = merge([x for row in given for x in items(row)])
        assert rows == expected and counts == {"added": 1}
