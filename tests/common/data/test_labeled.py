"""Rankings files with labelers: what is read of a row, and what is refused by name."""

import json
from collections import Counter

import pytest

from common.data.labeled import (
    NOT_RANKED,
    UNRANKED,
    check_order,
    labeled_of,
    named_in,
    prompt_column,
    read_samples,
)
from common.data.ranking_layouts import rankings_of, ranks_of_order
from common.data.records import Message
from common.errors import UserError

ROW = {"prompt": "q", "responses": ["a", "b", "c", "d"], "orders": [[2, [0, 3], 1]]}


def read(row, left_out=None):
    return labeled_of({**ROW, **row}, "f:1", "file", left_out)


def test_ties_and_responses_that_were_not_ranked():
    """As the form of an order says: a list is a tie, who is not named was not ranked."""
    (whole,) = read({})
    assert whole.order == [2, [0, 3], 1] and named_in(whole.order) == [2, 0, 3, 1]
    (part,) = read({"orders": [[3, 1]]})
    assert part.order == [3, 1]


@pytest.mark.parametrize(
    ("order", "plain"),
    [
        ([[3, 0], [1]], [[0, 3], 1]),
        ([[], 1, [2, 0]], [1, [0, 2]]),
        ([[0, 1, 2, 3]], [[0, 1, 2, 3]]),
        ([1, 0], [1, 0]),
    ],
)
def test_an_order_in_its_plainest_form(order, plain):
    assert check_order(order, 4, "orders[0]", "f:1") == plain


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"orders": [[0, 4]]}, "field 'orders[0]' has the index 4"),
        ({"orders": [[0, 1], [-1, 1]]}, "field 'orders[1]' has the index -1"),
        ({"orders": [[0, [1, 0]]]}, "field 'orders[0]' repeats response 0"),
        ({"orders": [["a", 1]]}, "field 'orders[0]' must hold indices"),
        ({"orders": [[True, 0]]}, "field 'orders[0]' must hold indices"),
        ({"orders": [[[0, [1]], 2]]}, "field 'orders[0]' must hold indices"),
        ({"orders": [{"best": 1}]}, "field 'orders[0]' must be a list"),
        ({"orders": [], "labelers": ["ann"]}, "field 'labelers' has 1 names for 0 orders"),
        ({"orders": None}, "field 'orders' is missing"),
        ({"responses": None}, "field 'responses' is missing"),
        ({"responses": ["a", 3, "c", "d"]}, "field 'responses[1]' must be a string"),
        ({"prompt": " "}, "field 'prompt' is empty"),
        ({"labelers": ["ann", "bob"]}, "field 'labelers' has 2 names for 1 orders"),
        ({"labelers": [""]}, "field 'labelers[0]' is empty"),
        ({"labelers": [7]}, "field 'labelers[0]' must be a string"),
        ({"labelers": {"a": 1}}, "field 'labelers' must be a list"),
        ({"orders": [[0, 1]] * 2, "labelers": ["ann", "ann"]}, "names 'ann' twice"),
        ({"cannot_judge": ["bob"]}, "field 'cannot_judge' must be a list of objects"),
        ({"saved": "today"}, "field 'saved' must be a list"),
        ({"ratings": [None, None]}, "field 'ratings' has 2 entries for 1 orders"),
    ],
)
def test_a_bad_row_is_named_with_its_field(row, said):
    with pytest.raises(UserError) as caught:
        read(row)
    assert str(caught.value).startswith("f:1: ") and said in str(caught.value)


def test_names_of_labelers():
    two = {"orders": [[0, 1], [1, 0]]}
    assert [x.labeler for x in read({**two, "labelers": ["ann", "ai:judge"]})] == [
        "ann",
        "ai:judge",
    ]
    assert [x.labeler for x in read({**two, "labelers": "simulated"})] == [
        "simulated:1",
        "simulated:2",
    ]
    assert [x.labeler for x in read(two)] == ["file:1", "file:2"]


def test_orders_that_say_nothing_are_left_out_and_counted():
    left_out = Counter()
    found = read({"orders": [[0], [0, 1], [[2]]], "labelers": ["ann", "bob", "cy"]}, left_out)
    assert [x.labeler for x in found] == ["bob"] and left_out == {NOT_RANKED: 2}


def test_each_labelers_notes_and_the_rest_of_the_row():
    row = {
        "orders": [[0, 1], [1, 0]],
        "labelers": ["ann", "bob"],
        "saved": ["2024-05-01T10:00:00+00:00", None],
        "comments": ["", "hard"],
        "facts": {"x": 1},
        "model": "sft",
    }
    ann, bob = read(row)
    assert ann.notes == {"saved": "2024-05-01T10:00:00+00:00", "comments": ""}
    assert bob.notes == {"comments": "hard"}
    assert ann.row == {"prompt": "q", "facts": {"x": 1}, "model": "sft"}


def test_a_single_ranking_and_responses_as_objects():
    row = {
        "instruction": "add",
        "input": "1 2",
        "responses": [{"text": "3"}, {"text": "12"}],
        "ranking_best_to_worst": [0, 1],
    }
    (found,) = labeled_of(row, "f:1", "file")
    assert found.responses == ("3", "12") and found.order == [0, 1]
    assert found.messages == (Message("user", "add\n1 2"),)


def test_prompts_of_one_message_are_texts():
    system, user = Message("system", "be brief"), Message("user", "q")
    assert prompt_column([user]) == "q"
    assert prompt_column([system, user]) == [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "q"},
    ]


def test_samples_come_without_earlier_orders(tmp_path):
    file = tmp_path / "samples.jsonl"
    row = {**ROW, "labelers": ["ann"], "saved": ["x"], "facts": {"k": 1}}
    file.write_text(json.dumps(row) + "\n")
    (sample,) = read_samples(file)
    assert sample.row == {"prompt": "q", "responses": ["a", "b", "c", "d"], "facts": {"k": 1}}
    assert sample.responses == ("a", "b", "c", "d")


def test_bad_samples_are_told_together(tmp_path):
    file = tmp_path / "samples.jsonl"
    rows = [{"prompt": "q"}, {"prompt": "q", "responses": ["a"]}, {"responses": ["a"]}]
    file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    with pytest.raises(UserError) as caught:
        read_samples(file)
    assert f"{file}:1: field 'responses' is missing" in str(caught.value)
    assert f"{file}:3: no known layout of prompts" in str(caught.value)
    file.write_text("")
    with pytest.raises(UserError, match="the file is empty"):
        read_samples(file)


def test_ties_that_only_scores_tell_are_read_as_the_pairs_stage_reads_them():
    scored = [{"text": "a", "score": 3}, {"text": "b", "score": 1}, {"text": "c", "score": 3}]
    row = {"prompt": "q", "responses": scored, "ranking_best_to_worst": [0, 2, 1]}
    (found,) = labeled_of(row, "f:1", "file")
    assert found.order == [[0, 2], 1]
    assert ranks_of_order(found.order, 3, "orders", "f:1") == rankings_of(row, "f:1")[0].ranks[0]


@pytest.mark.parametrize("orders", [[], [None, []]])
def test_a_prompt_that_nobody_ranked_is_counted(orders):
    """As the annotation's file of prompts that nobody could judge has it."""
    left_out = Counter()
    names = ["ann", "bob"][: len(orders)]
    given = {**ROW, "orders": orders, "labelers": names, "cannot_judge": [{"labeler": "cy"}]}
    (found,) = labeled_of(given, "f:1", "file", left_out)
    assert (found.order, found.labeler) == ([], "") and left_out == {UNRANKED: 1}
    unable = [entry["labeler"] for entry in found.row["cannot_judge"]]
    assert unable == ["cy", *names]
