"""The file that pairs are kept in: written, read back, and anybody else's."""

import json

import pytest

from common.data.pairs import read_pairs, write_pairs
from common.data.records import Message, Pair
from common.errors import UserError

PROMPT = (Message("user", "q"),)
TALK = (Message("system", "s"), Message("user", "1"), Message("assistant", "2"))
KEPT = [
    Pair(
        PROMPT,
        "good\u2028 \n",
        "bad",
        2 / 3,
        "a.jsonl:3",
        {"label": None},
        weight=0.25,
        margin=0.0,
        agreement=1 / 3,
        support=1.0,
    ),
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
        "weight": 0.25,
        "margin": 0.0,
        "agreement": 1 / 3,
        "support": 1.0,
        "origin": "a.jsonl:3",
        "facts": {"label": None},
    }
    assert [m["role"] for m in second["prompt"]] == ["system", "user", "assistant", "user"]
    assert second["chosen"] == [{"role": "assistant", "content": "yes"}]
    assert second["rejected"] == [{"role": "assistant", "content": "no"}]
    assert set(second) == {"prompt", "chosen", "rejected", "gap", "weight", "origin"}


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
        ({"weight": 0}, ":1: field 'weight' must be a number above 0, not 0"),
        ({"weight": "1"}, ":1: field 'weight' must be a number above 0, not a string"),
        ({"margin": -1}, ":1: field 'margin' must be a number of at least 0, not -1"),
        ({"gap": 1, "support": 1.1}, ":1: field 'support' must be a number from 0 to 1, not 1.1"),
        ({"gap": 1, "agreement": True}, ":1: field 'agreement' must be a number from 0 to 1"),
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
