"""Pairs against an enumeration of the convention, and the file they are kept in."""

import json
import random
import subprocess
import sys
from collections import Counter
from fractions import Fraction

import pytest

from common.data.pairs import aggregate, all_pairs, read_pairs, top_bottom_pairs, write_pairs
from common.data.records import Message, Pair, Ranking
from common.errors import UserError

PROMPT = (Message("user", "q"),)


def ranking(ranks, responses=None, prompt="q"):
    responses = responses or [f"response {i}" for i in range(len(ranks[0]))]
    return Ranking(
        (Message("user", prompt),),
        tuple(responses),
        tuple(map(tuple, ranks)),
        "file:7",
        {"k": 1},
    )


def indices(ranking, pairs):
    return [(ranking.responses.index(p.chosen), ranking.responses.index(p.rejected)) for p in pairs]


def test_aggregate_is_the_mean_over_labelers():
    assert aggregate([(1, 2, 3), (1, 3, 2), (2.5, 2.5, 1)]) == [1.5, 2.5, 2]


@pytest.mark.parametrize("seed", range(40))
def test_without_ties_pairs_are_those_of_the_convention(seed):
    draw = random.Random(seed)
    count, top, bottom = draw.randint(2, 7), draw.randint(1, 3), draw.randint(1, 3)
    ranks = list(range(1, count + 1))
    draw.shuffle(ranks)
    example = ranking([ranks])
    # i among the `top` best, j among the `bottom` worst, i strictly better: by rank alone.
    expected = {
        (i, j)
        for i in range(count)
        for j in range(count)
        if ranks[i] <= top and ranks[j] > count - bottom and ranks[i] < ranks[j]
    }
    pairs, dropped = top_bottom_pairs(example, top=top, bottom=bottom, seed=0)
    found = indices(example, pairs)
    assert set(found) == expected and len(found) == len(expected)
    assert not dropped
    for (i, j), pair in zip(found, pairs, strict=True):
        assert pair.gap == ranks[j] - ranks[i]
        assert (pair.origin, pair.facts, pair.messages) == ("file:7", {"k": 1}, PROMPT)


@pytest.mark.parametrize("seed", range(60))
def test_with_ties_any_draw_keeps_to_the_convention(seed):
    draw = random.Random(seed)
    count = draw.randint(2, 6)
    labelers = [[draw.randint(1, 3) for _ in range(count)] for _ in range(3)]
    example = ranking(labelers)
    means = [Fraction(sum(column), 3) for column in zip(*labelers, strict=True)]
    pairs, dropped = top_bottom_pairs(example, seed=seed)
    found = indices(example, pairs)
    assert len(set(found)) == len(found)
    second, last_but_one = sorted(means)[1], sorted(means)[-2]
    for i, j in found:
        assert means[i] < means[j]
        assert means[i] <= second and means[j] >= last_but_one
    # How many candidates there are depends on the number of responses only.
    assert len(found) + dropped.total() == {2: 1, 3: 3}.get(count, 4)
    assert set(dropped) <= {"pairs of equal rank"}
    if min(means) == max(means):
        assert not found


def test_three_responses_give_three_pairs_and_two_give_one():
    example = ranking([(2, 3, 1)])
    assert indices(example, top_bottom_pairs(example, seed=0)[0]) == [(2, 0), (2, 1), (0, 1)]
    example = ranking([(2, 1)])
    assert indices(example, top_bottom_pairs(example, seed=0)[0]) == [(1, 0)]


def test_ties_at_the_border_are_drawn_by_seed_and_prompt_evenly():
    # One best, four equal: which of them is second, and which two are last, is drawn.
    def second(seed, prompt):
        example = ranking([(1, 3.5, 3.5, 3.5, 3.5)], prompt=prompt)
        pairs, dropped = top_bottom_pairs(example, seed=seed)
        assert dropped == {"pairs of equal rank": 2}
        return frozenset(j for _, j in indices(example, pairs))

    by_seed = Counter(second(seed, "q") for seed in range(600))
    by_prompt = Counter(second(0, f"q{i}") for i in range(600))
    for counts in (by_seed, by_prompt):
        assert len(counts) == 6  # every two of the four
        assert min(counts.values()) > 60  # 100 expected, deviation 9
    assert second(5, "q") == second(5, "q")


def test_the_draw_does_not_depend_on_the_order_in_the_file():
    texts = ["a", "b", "c", "d", "e"]
    pairs, _ = top_bottom_pairs(ranking([(3, 3, 3, 5, 1)], texts), seed=3)
    turned, _ = top_bottom_pairs(ranking([(1, 5, 3, 3, 3)], texts[::-1]), seed=3)
    assert {(p.chosen, p.rejected) for p in pairs} == {(p.chosen, p.rejected) for p in turned}


def test_the_draw_is_the_same_in_a_process_with_another_hash_seed():
    code = (
        "from common.data.pairs import *; from common.data.records import *;"
        "r = Ranking((Message('user', 'q'),), tuple('abcdef'), ((3.5,) * 5 + (6,),), 'o');"
        "print([p.chosen for p in top_bottom_pairs(r, seed=1)[0]])"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": str(h), "PYTHONPATH": "."},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for h in (1, 2)
    }
    assert len(outputs) == 1 and "['" in outputs.pop()


def test_empty_and_identical_responses_make_no_pair_and_are_counted():
    example = ranking([(1, 2, 3, 4)], ["x", "y", " ", "x\n"])
    pairs, dropped = top_bottom_pairs(example, seed=0)
    assert [(p.chosen, p.rejected) for p in pairs] == [("y", "x\n")]
    assert dropped == {"pairs with an empty response": 2, "pairs of identical responses": 1}


def test_all_pairs_sums_and_refuses_to_find_nothing():
    tied = ranking([(1.5, 1.5)])
    pairs, dropped = all_pairs([ranking([(1, 2)]), tied, ranking([(2, 1)])], seed=0)
    assert [p.chosen for p in pairs] == ["response 0", "response 1"]
    assert dropped == {"pairs of equal rank": 1}
    with pytest.raises(UserError, match="no pair is left of 1 rankings"):
        all_pairs([tied], seed=0)


TALK = (Message("system", "s"), Message("user", "1"), Message("assistant", "2"))
KEPT = [
    Pair(PROMPT, "good\u2028 \n", "bad", 2 / 3, "a.jsonl:3", {"label": None}),
    Pair((*TALK, Message("user", "3")), "yes", "no", 3.0, "b[0]"),
]


def test_written_pairs_are_read_back_as_they_were(tmp_path):
    path = tmp_path / "new" / "pairs.jsonl"
    write_pairs(path, KEPT)
    assert read_pairs(path) == KEPT
    assert [p.name for p in path.parent.iterdir()] == ["pairs.jsonl"]


def test_the_file_has_the_columns_of_trl(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, KEPT)
    first, second = map(json.loads, path.read_text(encoding="utf-8").split("\n")[:2])
    assert first == {
        "prompt": "q",
        "chosen": "good\u2028 \n",
        "rejected": "bad",
        "gap": 2 / 3,
        "origin": "a.jsonl:3",
        "facts": {"label": None},
    }
    assert [m["role"] for m in second["prompt"]] == ["system", "user", "assistant", "user"]
    assert second["chosen"] == [{"role": "assistant", "content": "yes"}]
    assert second["rejected"] == [{"role": "assistant", "content": "no"}]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, KEPT)
    unwritable = Pair(PROMPT, "a", "b", 1.0, "o", {"not json": {1, 2}})
    with pytest.raises(TypeError):
        write_pairs(path, [KEPT[0], unwritable])
    assert read_pairs(path) == KEPT
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.jsonl"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rejected": ""}, ":1: field 'rejected' is empty"),
        ({"gap": 0}, ":1: field 'gap' must be a number above 0, not 0"),
        ({"gap": "2"}, ":1: field 'gap' must be a number above 0, not a string"),
        ({"gap": 10**400}, ":1: field 'gap' must be a number above 0"),
        ({"gap": float("inf")}, ":1: field 'gap' must be a number above 0, not inf"),
        ({"chosen": 5}, ":1: field 'chosen'"),
        ({"chosen": " \n"}, ":1: field 'chosen' is empty"),
        (
            {"rejected": [{"role": "assistant", "content": ""}]},
            ":1: field 'rejected' is empty",
        ),
        ({"chosen": "b "}, ":1: fields 'chosen' and 'rejected' hold the same text"),
        ({"origin": {"line": 3}}, ":1: field 'origin' must be a string, not an object"),
        (
            {"prompt": {"role": "prompter", "text": "q", "replies": []}},
            ":1: field 'replies' is a tree's",
        ),
    ],
)
def test_a_mistake_in_a_file_of_pairs_is_named(tmp_path, change, words):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"prompt": "q", "chosen": "a", "rejected": "b", **change}))
    with pytest.raises(UserError) as caught:
        read_pairs(path)
    assert words in str(caught.value)


def test_a_foreign_file_of_pairs_has_gap_one_and_its_own_lines(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "q", "chosen": "a", "rejected": "b"}\n')
    assert read_pairs(path) == [Pair(PROMPT, "a", "b", 1.0, f"{path}:1")]
    path.write_text("")
    with pytest.raises(UserError, match="not one pair"):
        read_pairs(path)
