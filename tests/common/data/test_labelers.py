"""Kinds of labelers: none is called what it is not."""

import json

import pytest

from common.data.labelers import in_words, limits_of, who_ranked
from common.data.layouts import read_rankings
from common.data.sources import DataSource

NOBODY = {"people": [], "simulated": [], "ai": [], "unnamed": 0}


@pytest.mark.parametrize(
    ("comparisons", "who", "words", "limits"),
    [
        ([("ben", "ann"), ("ann",)], {"people": ["ann", "ben"]}, "2 people", []),
        (
            [("simulated:1",), ("simulated",)],
            {"simulated": ["simulated", "simulated:1"]},
            "2 simulated labelers",
            ["Its labelers were simulated: a rubric with noise, not people."],
        ),
        (
            [("ai:judge",)],
            {"ai": ["ai:judge"]},
            "AI feedback by ai:judge",
            ["Its labelers were language models (ai:judge): AI feedback."],
        ),
        (
            [("simulated:1", "simulatedly"), ("ai:j",), ()],
            {"people": ["simulatedly"], "simulated": ["simulated:1"], "ai": ["ai:j"], "unnamed": 1},
            "1 person, 1 simulated labeler, AI feedback by ai:j; of 1 comparisons the data does "
            "not say",
            [
                "Some of its labelers were simulated: a rubric with noise, not people.",
                "Some of its labelers were language models (ai:j): AI feedback.",
                "Nobody is named for 1 of its pairs: who ranked is not known.",
            ],
        ),
        (
            [(), ()],
            {"unnamed": 2},
            "the data does not say",
            ["Nobody is named for 2 of its pairs: who ranked is not known."],
        ),
    ],
)
def test_labelers_are_called_what_they_are(comparisons, who, words, limits):
    found = who_ranked(comparisons)
    assert found == NOBODY | who
    assert (in_words(found), limits_of(found)) == (words, limits)


def test_only_those_who_gave_an_order_stand_behind_a_ranking(tmp_path):
    row = {
        **{"prompt": "q", "responses": ["a", "b"], "orders": [[0, 1], None, [], [1, 0]]},
        "labelers": ["ann", "ben", "ai:judge", "eve"],
        "cannot_judge": [{"labeler": "zoe"}],
    }
    file = tmp_path / "rankings.jsonl"
    file.write_text(json.dumps(row) + "\n")
    (ranking,) = read_rankings([DataSource(str(file))])
    assert ranking.judges == ("ann", "eve") and len(ranking.ranks) == 2
    assert ranking.labelers == ("ann", "ben", "ai:judge", "eve", "zoe") and ranking.absent == 3
