"""Simulated labelers: whose responses they rank."""

import json

from common.config.arguments import RunArguments
from common.data.ad_moderation.rubric import overall_score, score
from common.data.ad_moderation.splits import split_rows
from common.files import read_json_lines, write_json_lines
from common.training.stage import Stage
from step2_reward.rank import RankArguments, main


def ranked(tmp_path, name, rows, **settings):
    run = tmp_path / name
    (run / "sample").mkdir(parents=True)
    write_json_lines(run / "sample" / "samples.jsonl", rows)
    arguments = RunArguments(run=str(run), progress=False)
    main(Stage("rank", arguments, {}), arguments, RankArguments(**settings))
    return read_json_lines(run / "rank" / "rankings.jsonl"), json.loads(
        (run / "rank" / "result.json").read_text()
    )


def test_another_writer_answers_the_same_prompts_and_none_of_the_models_answers_stay(tmp_path):
    rows = [
        {**row, "responses": ["zzz", "yyy", "xxx"], "ended": [True, True, False], "model": "mine"}
        for row, _ in zip(split_rows(0, "reward_prompts"), range(30), strict=False)
    ]
    own, told = ranked(tmp_path, "own", rows)
    assert [row["responses"] for row in own] == [["zzz", "yyy", "xxx"]] * 30
    assert told["writer"] == "model"
    other, told = ranked(tmp_path, "other", rows, writer="generator", noise=0.0)
    assert told["writer"] == "generator" and told["labelers"] == "simulated"
    assert [row["prompt"] for row in other] == [row["prompt"] for row in rows]
    for row in other:
        assert set(row) == {"prompt", "facts", "responses", "orders", "labelers"}
        assert len(set(row["responses"])) == len(row["responses"]) <= 3
        assert not {"zzz", "yyy", "xxx"} & set(row["responses"])
        # The same labelers: without noise they follow the rubric.
        points = [overall_score(score(r, row["facts"])) for r in row["responses"]]
        for order in row["orders"]:
            assert [points[i] for i in order] == sorted(points, reverse=True)
    assert sum(len(row["responses"]) == 3 for row in other) > 20
