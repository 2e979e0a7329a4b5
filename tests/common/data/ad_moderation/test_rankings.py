"""Rankings of the embedded domain that need no model."""

import json

from common.data.ad_moderation.rankings import ranked_answers
from common.data.layouts import read_rankings
from common.data.sources import DataSource


def test_rows_are_rankings_of_distinct_answers_and_the_same_each_time(tmp_path):
    rows = list(ranked_answers(60, seed=1))
    assert rows == list(ranked_answers(60, seed=1)) != list(ranked_answers(60, seed=2))
    assert list(ranked_answers(20, seed=1)) == rows[: len(list(ranked_answers(20, seed=1)))]
    assert len({row["prompt"] for row in rows}) == len(rows) > 50
    assert {row["facts"]["domain"] for row in rows} == {"ads", "general"}
    for row in rows:
        assert 2 <= len(set(row["responses"])) == len(row["responses"]) <= 5
        assert len(row["orders"]) == 3
    file = tmp_path / "rankings.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = read_rankings([DataSource(str(file))])
    assert len(read) == len(rows)
