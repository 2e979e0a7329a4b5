"""Rankings: layouts, ties, mistakes, and what is left out as it cannot be compared."""

import itertools
import json

import datasets
import pytest

from common.data.cleaning import clean
from common.data.layouts import read_rankings
from common.data.records import PairNumbers
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
    (ranking,) = read(tmp_path / "a.jsonl", PAIRS[name])
    assert [(m.role, m.content) for m in ranking.messages] == [("user", "q")]
    assert ranking.responses == ("good", "bad")
    assert ranking.ranks == ((1, 2),)
    assert ranking.origin == f"{tmp_path / 'a.jsonl'}:1"


def test_an_implied_prompt_is_what_both_conversations_share(tmp_path):
    row = {
        "chosen": [*TALK, message("assistant", "good")],
        "rejected": [*TALK, message("assistant", "bad")],
    }
    (ranking,) = read(tmp_path / "a.jsonl", row)
    assert [m.content for m in ranking.messages] == ["1", "2", "3"]


def test_orders_of_several_labelers_with_ties(tmp_path):
    row = {
        "prompt": "q",
        "responses": ["a", "b", "c", "d"],
        "orders": [
            *([3, 0, 1, 2], [[2, 0], 1, 3], [1, [0, 2, 3]], [[0, 1, 2, 3]], [[0], [1], 2, 3]),
            *([2, [3, 0]], [1]),  # the others were not ranked
        ],
        "facts": {"x": 1},
    }
    (ranking,) = read(tmp_path / "a.jsonl", row)
    assert ranking.ranks == (
        (2, 3, 4, 1),
        (1.5, 3, 1.5, 4),
        (3, 1, 3, 3),
        (2.5, 2.5, 2.5, 2.5),
        (1, 2, 3, 4),
        (2.5, None, 1, 2.5),
        (None, 1, None, None),
    )
    assert ranking.facts == {"x": 1}


def test_a_tree_gives_a_ranking_for_each_message_that_was_answered(tmp_path):
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
    unranked = node("prompter", "later", [node("assistant", "a"), node("assistant", "b")])
    silent = node("prompter", "nobody answers", [node("assistant", "gone", deleted=True)])
    found = read(tmp_path / "a.jsonl", {"prompt": root}, lonely, unranked, silent, root)
    seen = [([m.content for m in r.messages], r.responses, r.ranks) for r in found]
    tree = [
        (["q"], ("worse", "better", "nobody ranked me"), ((2, 1, None),)),
        (["q", "better", "more?"], ("no", "yes"), ((1.5, 1.5),)),
    ]
    alone = (["alone"], ("single",), ((1,),))
    assert seen == [*tree, alone, (["later"], ("a", "b"), ((None, None),)), *tree]
    assert [r.origin[-2:] for r in found] == [":1", ":1", ":2", ":3", ":5", ":5"]
    usable = [clean(ranking).ranking for ranking in found]
    assert [r and r.responses for r in usable] == [
        *([("worse", "better"), ("no", "yes")]),
        *([None, None]),
        *([("worse", "better"), ("no", "yes")]),
    ]


def test_what_answers_an_empty_answer_in_a_tree_is_passed_over(tmp_path):
    def node(role, text, *replies, **more):
        return {"role": role, "text": text, "replies": list(replies), **more}

    answers = [node("assistant", "a", rank=0), node("assistant", "b", rank=1)]
    empty = node("assistant", "", node("prompter", "more", *answers), rank=2)
    (ranking,) = read(tmp_path / "a.jsonl", node("prompter", "q", *answers, empty))
    assert [m.content for m in ranking.messages] == ["q"] and ranking.responses == ("a", "b", "")


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


def test_empty_and_repeated_responses_are_left_out_and_the_rest_ranked_anew(tmp_path):
    row = {
        "prompt": "q",
        "responses": ["same", "", "b", " same\n", "c"],
        "orders": [[3, 2, 0, 4, 1], [1, [0, 2], [3, 4]]],
    }
    (found,) = read(tmp_path / "a.jsonl", row)
    ranking, removed = clean(found)
    assert ranking.responses == ("same", "b", "c")
    # The first "same" stays at its own place: third of the first labeler, tied with b at the other.
    assert ranking.ranks == ((2, 1, 3), (1.5, 1.5, 3))
    assert removed == [("empty", 1), ("identical", 1)]
    assert found.responses == ("same", "", "b", " same\n", "c")  # as it was found


def test_responses_and_labelers_without_a_comparison_are_left_out(tmp_path):
    row = {
        "prompt": "q",
        "responses": ["a", "b", "a ", "d", "e"],
        # The second named only a, twice; the third could not judge; nobody named d; e stands alone.
        "orders": [[2, 1], [[0, 2]], None, [4]],
    }
    (found,) = read(tmp_path / "a.jsonl", row)
    assert found.absent == 1
    ranking, removed = clean(found)
    assert (ranking.responses, ranking.ranks) == (("a", "b"), ((1, 2),))
    assert removed == [("identical", 1), ("not ranked", 2)]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "chosen": "x", "rejected": "x "}, "identical"),
        ({"prompt": "q", "chosen": "", "rejected": "x"}, "empty"),
        ({"instruction": "q", "output": ["x", "  "]}, "empty"),
        (
            {
                "chosen": [*QUESTION, message("assistant", "x")],
                "rejected": [*QUESTION, turn("gpt", "")],
            },
            "empty",
        ),
        ({"prompt": "q", "responses": ["x"], "orders": [[0]]}, "one response"),
        ({"prompt": "q", "responses": ["x", "y"], "orders": []}, "not ranked"),
        ({"prompt": "q", "responses": ["x", "y"], "orders": [None, []]}, "not ranked"),
        ({"prompt": "q", "responses": ["x", "y"], "orders": [[0], [1]]}, "not ranked"),
    ],
)
def test_a_ranking_with_nothing_to_compare_is_left_out_for_a_reason(tmp_path, row, reason):
    unusable, usable = read(tmp_path / "a.jsonl", row, PAIRS["strings"])
    assert clean(unusable) == (None, [(reason, len(unusable.responses))])
    assert clean(usable) == (usable, [])


def test_a_file_whose_rankings_are_all_left_out_is_empty(tmp_path):
    with pytest.raises(UserError, match="empty: not one ranking of two different responses"):
        read(tmp_path / "a.jsonl", {"prompt": "q", "chosen": "x", "rejected": "x"})


def scored(order, *scores, name="score"):
    """A ranking of response objects that have scores."""
    responses = [{"text": f"r{i}", name: score} for i, score in enumerate(scores)]
    return {"prompt": "q", "responses": responses, "ranking_best_to_worst": order}


@pytest.mark.parametrize(
    ("row", "ranks"),
    [
        (scored([2, 0, 1], 1.5, 1.5, 2.0), (2.5, 2.5, 1)),
        (scored([2, 0, 1], 2, 2, 1, name="preference"), (2.5, 2.5, 1)),  # low is good here
        (scored([1, 0], 1.0, 1.0, name="pref_vs_gpt4_1106"), (1.5, 1.5)),
        (scored([0, 1, 2], 2.0, 1.0, 2.0), (1, 2, 3)),  # the order does not go by it
        (scored([0, 1, 2], 2.0, None, 2.0), (1, 2, 3)),
        (scored([0, 1, 2], 3.0, 3.0, 2.0, name="length"), (1, 2, 3)),
    ],
)
def test_equal_scores_are_ties_where_the_order_goes_by_them(tmp_path, row, ranks):
    (ranking,) = read(tmp_path / "a.jsonl", row)
    assert ranking.ranks == (ranks,)


def hh(*turns):
    """A dialogue as HH-RLHF writes it; speakers take turns unless a turn names its own."""
    names = itertools.cycle(("Human", "Assistant"))
    told = [t if isinstance(t, tuple) else (next(names), t) for t in turns]
    return "".join(f"\n\n{name}: {text}" for name, text in told)


def test_the_common_prefix_of_two_dialogues_is_the_prompt_over_several_turns(tmp_path):
    row = {
        "chosen": hh("one\n\nand more", "two", "three ", "good: Human: x\n\nyes"),
        "rejected": hh("one\n\nand more", "two", "three", "bad"),
    }
    (ranking,) = read(tmp_path / "a.jsonl", row)
    assert [(m.role, m.content) for m in ranking.messages] == [
        ("user", "one\n\nand more"),
        ("assistant", "two"),
        ("user", "three "),
    ]
    assert ranking.responses == ("good: Human: x\n\nyes", "bad")


def test_a_speaker_who_goes_on_in_a_dialogue_has_one_turn(tmp_path):
    first = [("Human", "q"), ("Assistant", "a"), ("Assistant", "b"), ("Human", "c")]
    row = {
        "chosen": hh(*first, ("Assistant", "good"), ("Assistant", "and more")),
        "rejected": hh(*first, ("Assistant", "bad")),
    }
    (ranking,) = read(tmp_path / "a.jsonl", row)
    assert [m.content for m in ranking.messages] == ["q", "a\n\nb", "c"]
    assert ranking.responses == ("good\n\nand more", "bad")


@pytest.mark.parametrize(
    ("chosen", "rejected"),
    [
        (hh("q", "a", "b", "c"), hh("q", "other", "b", "d")),  # they part earlier
        (hh("q", "a", "b", "c"), hh("q", "d")),
        (hh("q", "a", "b"), hh("q", "a", "c")),  # the last word is the user's
        (hh("q", "", "b", "c"), hh("q", "", "b", "d")),  # an empty turn on the way
        (hh(("Assistant", "a"), ("Human", "b"), ("Assistant", "c")),) * 2,
    ],
)
def test_dialogues_without_a_common_prompt_are_left_out_for_that(tmp_path, chosen, rejected):
    row = {"chosen": chosen, "rejected": rejected}
    unusable, _ = read(tmp_path / "a.jsonl", row, PAIRS["prompt implied by dialogue text"])
    assert clean(unusable) == (None, [("no common prompt", 2)])


@pytest.mark.parametrize(
    ("more", "numbers"),
    [
        ({}, None),
        ({"gap": 2, "weight": 0.5}, PairNumbers(gap=2.0, weight=0.5)),
        ({"margin": 0}, PairNumbers(margin=0.0)),
        ({"agreement": "high", "support": 7}, None),  # somebody else's columns
        (
            {"gap": 1, "weight": None, "margin": 3, "agreement": 1, "support": 0},
            PairNumbers(margin=3.0, agreement=1.0, support=0.0),
        ),
    ],
)
def test_what_a_pair_says_beside_its_texts_is_kept(tmp_path, more, numbers):
    (ranking,) = read(tmp_path / "a.jsonl", PAIRS["strings"] | more)
    assert ranking.numbers == numbers


ERRORS = {
    "repeats": ({"orders": [[0, 1, 2], [0, 1, 1]]}, "field 'orders[1]' repeats response 1"),
    "omits": ({"ranking_best_to_worst": [2, 0]}, "'ranking_best_to_worst' omits response 1"),
    "omits two": ({"ranking_best_to_worst": [2]}, "omits response 0, 1"),
    "too far": ({"orders": [[0, 1, 3]]}, "'orders[0]' has the index 3, but there are 3 responses"),
    "negative": ({"orders": [[0, 1, -1]]}, "has the index -1"),
    "repeats in a tie": ({"orders": [[[0, 1], 1, 2]]}, "repeats response 1"),
    "no index": ({"orders": [["a", 1, 2]]}, "indices of responses, not a string"),
    "a truth value": ({"orders": [[True, 0, 2]]}, "indices of responses, not a boolean"),
    "flat": ({"orders": [0, 1, 2]}, "field 'orders[0]' must be a list"),
    "one for all": ({"orders": {"a": [0, 1, 2]}}, "field 'orders' must be a list, not an object"),
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
        (ranking,) = read_rankings([DataSource(str(tmp_path / name))])
        assert ranking.responses == tuple(responses)
        assert ranking.ranks == ((2.5, 2.5, 1), (1, 3, 2))
        assert ranking.origin == f"{tmp_path / name}{place}"
