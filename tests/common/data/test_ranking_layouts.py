"""Rankings: layouts, ties, mistakes, and what is dropped and counted."""

import json
from collections import Counter

import datasets
import pytest

from common.data.layouts import read_rankings
from common.data.sources import DataSource
from common.errors import UserError


def read(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_rankings([DataSource(str(path))])


def message(role, content):
    return {"role": role, "content": content}


def turn(speaker, value):
    return {"from": speaker, "value": value}


QUESTION = [message("user", "q")]
TALK = [message("user", "1"), message("assistant", "2"), message("user", "3")]

PAIRS = {
    "strings": {"prompt": "q", "chosen": "good", "rejected": "bad"},
    "messages": {
        "prompt": QUESTION,
        "chosen": [message("assistant", "good")],
        "rejected": [message("assistant", "bad")],
    },
    "answers that repeat the prompt": {
        "prompt": "q",
        "chosen": [*QUESTION, message("assistant", "good")],
        "rejected": [*QUESTION, message("assistant", "bad")],
    },
    "prompt implied by messages": {
        "chosen": [*QUESTION, message("assistant", "good")],
        "rejected": [*QUESTION, message("assistant", "bad")],
    },
    "prompt implied by dialogue text": {
        "chosen": "\n\nHuman: q\n\nAssistant: good",
        "rejected": "\n\nHuman: q\n\nAssistant: bad",
    },
    "GPT-4-LLM": {"instruction": "q", "input": "", "output": ["good", "bad"]},
    "LLaMA-Factory": {"instruction": "q", "chosen": "good", "rejected": "bad"},
    "ShareGPT": {
        "conversations": [turn("human", "q")],
        "chosen": turn("gpt", "good"),
        "rejected": turn("gpt", "bad"),
    },
    "plain": {"prompt": "q", "responses": ["good", "bad"], "orders": [[0, 1]]},
    "objects": {
        "prompt": "q",
        "responses": [{"text": "good", "model": "m"}, {"text": "bad"}],
        "ranking_best_to_worst": [0, 1],
    },
}


@pytest.mark.parametrize("name", PAIRS)
def test_layouts_of_two_responses(tmp_path, name):
    (ranking,) = read(tmp_path / "a.jsonl", PAIRS[name]).rankings
    assert [(m.role, m.content) for m in ranking.messages] == [("user", "q")]
    assert ranking.responses == ("good", "bad")
    assert ranking.ranks == ((1, 2),)
    assert ranking.origin == f"{tmp_path / 'a.jsonl'}:1"


def test_an_implied_prompt_is_what_both_conversations_share(tmp_path):
    row = {
        "chosen": [*TALK, message("assistant", "good")],
        "rejected": [*TALK, message("assistant", "bad")],
    }
    (ranking,) = read(tmp_path / "a.jsonl", row).rankings
    assert [m.content for m in ranking.messages] == ["1", "2", "3"]


def test_orders_of_several_labelers_with_ties(tmp_path):
    row = {
        "prompt": "q",
        "responses": ["a", "b", "c", "d"],
        "orders": [[3, 0, 1, 2], [[2, 0], 1, 3], [1, [0, 2, 3]], [[0, 1, 2, 3]], [[0], [1], 2, 3]],
        "facts": {"x": 1},
    }
    (ranking,) = read(tmp_path / "a.jsonl", row).rankings
    assert ranking.ranks == (
        (2, 3, 4, 1),
        (1.5, 3, 1.5, 4),
        (3, 1, 3, 3),
        (2.5, 2.5, 2.5, 2.5),
        (1, 2, 3, 4),
    )
    assert ranking.facts == {"x": 1}


def test_a_tree_gives_a_ranking_for_each_user_message_with_two_ranked_answers(tmp_path):
    def node(role, text, replies=(), **more):
        return {"role": role, "text": text, "replies": list(replies), **more}

    follow_up = node(
        "prompter",
        "more?",
        [node("assistant", "no", rank=0), node("assistant", "yes", rank=0)],
    )
    root = node(
        "prompter",
        "q",
        [
            node("assistant", "worse", rank=1),
            node("assistant", "better", [follow_up], rank=0),
            node("assistant", "nobody ranked me"),
            node("assistant", "deleted", rank=2, deleted=True),
        ],
    )
    lonely = node("prompter", "alone", [node("assistant", "single", rank=0)])
    found = read(tmp_path / "a.jsonl", {"prompt": root}, lonely, root)
    seen = [([m.content for m in r.messages], r.responses, r.ranks) for r in found.rankings]
    expected = [
        (["q"], ("worse", "better"), ((2, 1),)),
        (["q", "better", "more?"], ("no", "yes"), ((1.5, 1.5),)),
    ]
    assert seen == expected * 2
    assert [r.origin[-2:] for r in found.rankings] == [":1", ":1", ":3", ":3"]
    assert found.dropped == {"responses without a rank": 2}


def test_what_answers_an_empty_answer_in_a_tree_is_passed_over(tmp_path):
    def node(role, text, *replies, **more):
        return {"role": role, "text": text, "replies": list(replies), **more}

    answers = [node("assistant", "a", rank=0), node("assistant", "b", rank=1)]
    empty = node("assistant", "", node("prompter", "more", *answers), rank=2)
    (ranking,) = read(tmp_path / "a.jsonl", node("prompter", "q", *answers, empty)).rankings
    assert [m.content for m in ranking.messages] == ["q"] and ranking.responses == ("a", "b")


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            {"role": "assistant", "rank": float("nan")},
            "'replies[0].rank' must be a number, not NaN",
        ),
        ({"role": "system", "rank": 0}, "'replies[0].role': a tree has no messages of the system"),
    ],
)
def test_a_mistake_in_a_tree_is_named(tmp_path, reply, words):
    row = {"role": "prompter", "text": "q", "replies": [{"text": "a", **reply}]}
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.jsonl", row)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:1: ")
    assert words in str(caught.value)


def test_empty_and_repeated_responses_are_dropped_counted_and_the_rest_ranked_anew(tmp_path):
    row = {
        "prompt": "q",
        "responses": ["same", "", "b", " same\n", "c"],
        "orders": [[3, 2, 0, 4, 1], [1, [0, 2], [3, 4]]],
    }
    found = read(tmp_path / "a.jsonl", row)
    (ranking,) = found.rankings
    assert ranking.responses == ("same", "b", "c")
    # The first "same" stays at its own place: third of the first labeler, tied with b at the other.
    assert ranking.ranks == ((2, 1, 3), (1.5, 1.5, 3))
    assert found.dropped == Counter({"empty responses": 1, "repeated responses": 1})


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "chosen": "x", "rejected": "x "},
        {"prompt": "q", "chosen": "", "rejected": "x"},
        {"instruction": "q", "output": ["x", "  "]},
        {
            "chosen": [*QUESTION, message("assistant", "x")],
            "rejected": [*QUESTION, turn("gpt", "")],
        },
    ],
)
def test_a_ranking_with_one_response_left_is_dropped_and_counted(tmp_path, row):
    found = read(tmp_path / "a.jsonl", row, PAIRS["strings"])
    assert [r.responses for r in found.rankings] == [("good", "bad")]
    assert found.dropped["rankings with fewer than two responses"] == 1


def test_a_file_whose_rankings_are_all_dropped_is_empty(tmp_path):
    with pytest.raises(UserError, match="empty"):
        read(tmp_path / "a.jsonl", {"prompt": "q", "chosen": "x", "rejected": "x"})


ERRORS = {
    "repeats": ({"orders": [[0, 1, 2], [0, 1, 1]]}, "field 'orders[1]' repeats response 1"),
    "omits": ({"orders": [[2, 0]]}, "field 'orders[0]' omits response 1"),
    "omits two": ({"orders": [[2]]}, "omits response 0, 1"),
    "too far": ({"orders": [[0, 1, 3]]}, "'orders[0]' has the index 3, but there are 3 responses"),
    "negative": ({"orders": [[0, 1, -1]]}, "has the index -1"),
    "repeats in a tie": ({"orders": [[[0, 1], 1, 2]]}, "repeats response 1"),
    "no index": ({"orders": [["a", 1, 2]]}, "indices of responses, not a string"),
    "a truth value": ({"orders": [[True, 0, 2]]}, "indices of responses, not a boolean"),
    "flat": ({"orders": [0, 1, 2]}, "field 'orders[0]' must be a list"),
    "no labeler": ({"orders": []}, "field 'orders' is empty"),
    "no order": ({}, "field 'orders' is missing"),
    "single": ({"ranking_best_to_worst": [0, 0, 1]}, "'ranking_best_to_worst' repeats response 0"),
    "no prompt": ({"prompt": "", "orders": [[0, 1, 2]]}, "field 'prompt' is empty"),
    "wrong type": ({"responses": ["a", 2], "orders": [[0, 1]]}, "'responses[1]' must be a string"),
    "no text": ({"responses": [{"x": 1}], "orders": [[0]]}, "'responses[0].text' is missing"),
}


@pytest.mark.parametrize("name", ERRORS)
def test_a_mistake_in_an_order_is_named(tmp_path, name):
    change, words = ERRORS[name]
    row = {"prompt": "q", "responses": ["a", "b", "c"], **change}
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.jsonl", PAIRS["plain"], row)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:2: ")
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "q", "chosen": "x"}, "field 'rejected' is missing"),
        ({"prompt": "q", "chosen": None, "rejected": "x"}, "field 'chosen' is missing"),
        ({"chosen": "x", "rejected": "y"}, "field 'prompt' is missing"),
        ({"prompt": "q", "chosen": 1, "rejected": "x"}, "field 'chosen' must be an object"),
        (
            {"prompt": "q", "chosen": turn("human", "x"), "rejected": "y"},
            "field 'chosen' must hold one message of the assistant",
        ),
        (
            {"chosen": [*TALK, message("assistant", "x")], "rejected": TALK[:2]},
            "'chosen' must hold one message of the assistant after the prompt",
        ),
        ({"instruction": "q", "output": ["x"]}, "'output' must be [better, worse]"),
        ({"instruction": "q", "output": "x"}, "no known layout of rankings"),
        ({"prompt": "q"}, "no known layout of rankings fits the columns: prompt"),
    ],
)
def test_a_mistake_in_a_pair_is_named(tmp_path, row, words):
    with pytest.raises(UserError) as caught:
        read(tmp_path / "a.jsonl", PAIRS["plain"], row)
    assert str(caught.value).startswith(f"{tmp_path / 'a.jsonl'}:2: ")
    assert words in str(caught.value)


def test_the_same_ranking_from_csv_and_parquet(tmp_path):
    responses, orders = (
        ['first, "quoted"', "second\nline", "third"],
        [[[2], [0, 1]], [[0], [2], [1]]],
    )
    (tmp_path / "a.csv").write_text(
        "prompt,responses,orders\nq,"
        + ",".join('"' + json.dumps(v).replace('"', '""') + '"' for v in (responses, orders))
        + "\n"
    )
    row = {"prompt": "q", "responses": responses, "orders": orders}
    datasets.Dataset.from_list([row]).to_parquet(tmp_path / "a.parquet")
    for name, place in (("a.csv", ":2"), ("a.parquet", "[0]")):
        (ranking,) = read_rankings([DataSource(str(tmp_path / name))]).rankings
        assert ranking.responses == tuple(responses)
        assert ranking.ranks == ((2.5, 2.5, 1), (1, 3, 2))
        assert ranking.origin == f"{tmp_path / name}{place}"
