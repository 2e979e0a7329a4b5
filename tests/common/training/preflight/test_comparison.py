"""Which node is named, for made-up facts of three nodes, and of two."""

from dataclasses import replace

import pytest

from common.training.preflight.comparison import (
    Limits,
    compare,
    compare_clocks,
    shown_cards,
    table,
    usual,
)
from common.training.preflight.facts import MISSING, Card, NodeFacts

LIMITS = Limits(memory=2.0, disk=5.0, card_share=0.9)
CARD = Card("NVIDIA H100", 80000, 81000)
FINE = NodeFacts(
    "a",
    code={"common/files.py": "11", "launch/env.sh": "22"},
    versions={"torch": "2.13.0", "python": "3.11.7"},
    data={"/data/sft.jsonl": "aa", "Anthropic/hh-rlhf": MISSING},
    cards=(CARD, CARD),
    memory=64.0,
    disks={"/run": 100.0, "/dev/shm": 32.0},
)


def problems_with(number, **other):
    nodes = {i: replace(FINE, name=name) for i, name in enumerate("abc")}
    nodes[number] = replace(nodes[number], **other)
    return [str(problem) for problem in compare(nodes, LIMITS)]


def test_nodes_that_are_alike_have_no_problem():
    assert problems_with(0) == []


@pytest.mark.parametrize("number", [0, 1, 2])  # the first may be the odd one out, too
@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"code": {**FINE.code, "launch/env.sh": "33"}}, "not the others': launch/env.sh differ"),
        ({"code": {"launch/env.sh": "22"}}, "not the others': common/files.py differ"),
        ({"code": {**FINE.code, "common/own.py": "1"}}, "not the others': common/own.py differ"),
        (
            {"versions": {**FINE.versions, "torch": "2.12.1"}},
            "torch is 2.12.1, the others have 2.13.0: bash launch/setup.sh there",
        ),
        ({"versions": {"torch": "2.13.0"}}, "python is missing, the others have 3.11.7"),
        ({"data": {**FINE.data, "/data/sft.jsonl": "ab"}}, "content of /data/sft.jsonl is not"),
        ({"data": {**FINE.data, "/data/sft.jsonl": MISSING}}, "/data/sft.jsonl is not there"),
        ({"cards": (CARD,)}, "its cards are: 1 × NVIDIA H100; the others have: 2 × NVIDIA H100"),
        ({"elsewhere": "/run"}, "/run is not the same folder as on the first node: the run dir"),
        ({"memory": 1.5}, "1.5 GiB of memory are free, 2 are needed"),
        ({"disks": {"/run": 4.0}}, "4.0 GiB are free in /run, 5 are needed"),
        ({"disks": {"/dev/shm": 0.06}}, "0.1 GiB are free in /dev/shm, 1 are needed: enlarge it"),
        ({"cards": (CARD, Card("NVIDIA H100", 40000, 81000))}, "of card 1's 81000 MiB only 40000"),
    ],
)
def test_the_node_that_differs_is_named_and_no_other(number, other, words):
    (problem,) = problems_with(number, **other)
    assert problem.startswith(f"{'abc'[number]}: ") and words in problem


def test_of_two_nodes_the_first_is_taken_as_right():
    other = replace(FINE, name="b", versions={**FINE.versions, "torch": "2.12.1"})
    (problem,) = compare({0: FINE, 1: other}, LIMITS)
    assert problem.node == "b" and "the first node has 2.13.0" in problem.text


def test_a_node_without_the_data_is_named_even_where_most_have_none():
    gone = replace(FINE, data={**FINE.data, "/data/sft.jsonl": MISSING})
    nodes = {0: gone, 1: replace(FINE, name="b"), 2: replace(gone, name="c")}
    assert [problem.node for problem in compare(nodes, LIMITS)] == ["a", "c"]


def test_many_files_that_differ_are_counted():
    other = replace(FINE, name="b", code={f"common/{i}.py": "1" for i in range(7)})
    (problem,) = compare({0: replace(FINE, code={}), 1: other}, LIMITS)
    assert "common/4.py and 2 more differ" in problem.text


@pytest.mark.parametrize(
    ("ahead", "named"),
    [
        ({1: 0.4, 2: -0.5}, []),
        ({1: 7.0, 2: 0.2}, ["b: its clock is 7.0 s ahead of"]),
        ({1: -7.0, 2: 0.2}, ["b: its clock is 7.0 s behind"]),
        ({1: 7.0, 2: 7.2}, ["a: its clock is 7.0 s behind"]),  # the first is the odd one out
        ({1: 7.0, 2: -7.0}, ["b: ", "c: "]),
    ],
)
def test_the_clock_that_is_away_from_most_is_named(ahead, named):
    found = compare_clocks({0: "a", 1: "b", 2: "c"}, ahead, limit=5.0)
    assert len(found) == len(named)
    assert all(str(p).startswith(words) for p, words in zip(found, named, strict=True))


def test_what_is_usual():
    assert usual({0: "x", 1: "y", 2: "y"}) == ("y", True)
    assert usual({0: "x", 1: "y"}) == ("x", False)
    assert usual({1: "x", 2: "y", 3: "y", 4: "z"}) == ("x", False)


def test_a_table_in_line():
    assert table([["node", "name"], ["10", "a"]]) == "node  name\n10    a"
    assert shown_cards((CARD, CARD, Card("L4", 1, 1))) == "2 × NVIDIA H100, 1 × L4"
    assert shown_cards(()) == "none"
