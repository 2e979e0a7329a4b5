"""Rankings of several files: the same prompt and responses, in whatever order, become one."""

import pytest

from common.data.joining import join_rankings
from common.data.layouts import read_rankings
from common.data.pairs import PairArguments, make_pairs
from common.data.sources import parse_sources
from common.errors import UserError
from step2_reward.pairs import default_rankings
from tests.inputs import write

PEOPLE = {
    "prompt": "q",
    "responses": ["a", "b", "c"],
    "orders": [[0, 1, 2], None, [0, [1, 2]]],
    "labelers": ["ann", "ben", "cleo"],
    "cannot_judge": [{"labeler": "dan"}],
}
JUDGE = {"prompt": "q", "responses": ["c", "b", "a"], "orders": [[0, 1, 2]], "labelers": ["ai:x"]}


def read(tmp_path, **files):
    paths = [write(tmp_path, rows, f"{name}.jsonl") for name, rows in files.items()]
    return read_rankings(parse_sources(paths))


def test_labelers_of_two_files_become_one_ranking(tmp_path):
    other = {**JUDGE, "responses": ["c", "b", "d"]}
    rankings = read(tmp_path, people=[PEOPLE], ai=[JUDGE, other])
    (joined, apart), count = join_rankings(rankings)
    assert count == 1 and apart == rankings[2]
    assert joined.responses == ("a", "b", "c") and joined.origin.endswith("people.jsonl:1")
    assert joined.ranks == ((1, 2, 3), (1, 2.5, 2.5), (3, 2, 1))
    assert joined.judges == ("ann", "cleo", "ai:x") and joined.absent == 2
    assert set(joined.labelers) == {"ann", "ben", "cleo", "dan", "ai:x"}


def test_pairs_of_both_files_do_not_contradict_one_another(tmp_path):
    rankings = read(tmp_path, people=[PEOPLE], ai=[JUDGE])
    pairs, account = make_pairs(rankings, PairArguments(choice="all"), seed=0)
    # Mean ranks: a 5/3, b 6.5/3, c 6.5/3.
    assert [(p.chosen, p.rejected) for p in pairs] == [("a", "b"), ("a", "c")]
    assert account.as_dict()["prompts"] == {"read": 1, "kept": 1, "merged": 1}
    assert "1 prompts ranked in several files, merged" in account.table()


def test_whoever_comes_twice_counts_once_by_the_last_file(tmp_path):
    again = {**PEOPLE, "orders": [[2, 1, 0], [0, 1, 2], None], "cannot_judge": []}
    (joined,), _ = join_rankings(read(tmp_path, first=[PEOPLE], again=[again, JUDGE]))
    found = dict(zip(joined.judges, joined.ranks, strict=True))
    assert found == {"ann": (3, 2, 1), "cleo": (1, 2.5, 2.5), "ben": (1, 2, 3), "ai:x": (3, 2, 1)}
    assert joined.absent == 1  # dan; ben and cleo judged in one of the files


def test_an_order_saved_earlier_does_not_replace_a_later_one(tmp_path):
    row = {"prompt": "q", "responses": ["a", "b"], "labelers": ["ann"]}
    new = {**row, "orders": [[0, 1]], "saved": ["2024-05-02T00:00:00Z"]}
    old = {**row, "orders": [[1, 0]], "saved": ["2024-05-01T00:00:00Z"]}
    for files in ({"new": [new], "old": [old]}, {"old": [old], "new": [new]}):
        (joined,), _ = join_rankings(read(tmp_path, **files))
        assert joined.ranks == ((1, 2),) and joined.saved == ("2024-05-02T00:00:00Z",)
    (joined,), _ = join_rankings(read(tmp_path, new=[new], old=[{**old, "saved": [None]}]))
    assert joined.ranks == ((2, 1),)


def test_unnamed_labelers_are_all_counted_and_short_orders_name_nobody(tmp_path):
    short = {**PEOPLE, "orders": [[0], [1, 0]], "labelers": ["eve", "ann"], "cannot_judge": []}
    unnamed = {**PEOPLE, "orders": [[2, 1, 0]], "labelers": None, "cannot_judge": []}
    (joined,), _ = join_rankings(read(tmp_path, a=[short], b=[unnamed]))
    assert joined.ranks == ((2, 1, None), (1, None, None), (3, 2, 1))
    assert joined.judges == ("ann",) and joined.absent == 0


def test_rows_of_one_file_and_pairs_with_numbers_stay_as_they_are(tmp_path):
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "gap": 2}
    rankings = read(tmp_path, one=[PEOPLE, PEOPLE], two=[pair], three=[pair])
    assert join_rankings(rankings) == (rankings, 0)


def test_where_rankings_lie_is_told_when_there_are_none(tmp_path):
    with pytest.raises(UserError, match=r"--rankings: people's, .*annotate/.*imported .*import/"):
        default_rankings(tmp_path)
    (tmp_path / "annotate").mkdir()
    (tmp_path / "annotate/rankings.jsonl").touch()
    with pytest.raises(UserError, match=r"--rankings \S*annotate/rankings.jsonl$"):
        default_rankings(tmp_path)
