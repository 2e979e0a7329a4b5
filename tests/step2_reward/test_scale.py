"""Accuracy against size and data: which cells are trained, on what, and what is drawn of them."""

import json
from dataclasses import asdict

import pytest

import step2_reward.scale as scale_stage
from common.config.arguments import RunArguments
from common.config.parsing import parse_arguments, resolved_settings
from common.data.pairs import write_pairs
from common.data.records import Message, Pair
from common.errors import UserError
from common.reward.charts import scale_chart
from common.training.stage import Stage
from step2_reward.scale import ARGUMENTS, main, parse_fractions
from step2_reward.scale_report import report
from tests.stages import ROOT, finish, launch, start


class Trainings:
    """Stands for the reward stage: notes what it is given, and leaves a result."""

    def __init__(self, monkeypatch):
        self.seen = []
        monkeypatch.setattr(scale_stage.reward_stage, "main", self.train)

    def train(self, stage, run, source, *rest):
        stage.begin([source.model, *source.data])
        print("what the stage prints")
        self.seen.append((source.model, source.train_fraction, source.data, stage.folder))
        rest_by_name = resolved_settings(run, source, *rest)
        share = {"value": 0.5 + source.train_fraction / 4, "ci95": [0.4, 0.9], "count": 8}
        facts = {
            "pairs": round(100 * source.train_fraction),
            "held_out_pairs": 8,
            "learning_rate": rest_by_name["learning_rate"],
            "diagnostics": {"accuracy": share, "length_only": {"accuracy": share}, "ceiling": None},
        }
        stage.finish(facts, "trained")


def run_scale(root, *arguments):
    groups = parse_arguments(
        ARGUMENTS, "reward", ["--run", str(root), "--embedded_prompts", "12", *arguments]
    )
    main(Stage("scale", groups[0], {}), *groups)
    return json.loads((root / "scale" / "result.json").read_text())


SMALL = ("--sizes", "tiny:1x16", '{"path": "tiny:2x16", "learning_rate": 0.25}')


def test_every_size_with_every_share_and_none_twice(tmp_path, monkeypatch, capsys):
    trainings = Trainings(monkeypatch)
    result = run_scale(tmp_path, *SMALL, "--fractions", "1,0.5")
    bases = [str(tmp_path / "scale/bases" / name) for name in ("tiny_1x16", "tiny_2x16")]
    assert [seen[:2] for seen in trainings.seen] == [(b, f) for b in bases for f in (0.5, 1.0)]
    assert {tuple(seen[2]) for seen in trainings.seen} == {
        (str(tmp_path / "scale/embedded.jsonl"),)
    }
    rates = [
        json.loads((s[3] / "result.json").read_text())["learning_rate"] for s in trainings.seen
    ]
    assert rates[2:] == [0.25, 0.25] != rates[:2]
    lines = capsys.readouterr().out.splitlines()
    cells = [line for line in lines if " of 4: " in line]
    assert len(cells) == 4 and "1 of 4: tiny_1x16 (" in cells[0] and "done before" not in cells[0]
    assert not any("what the stage prints" in line for line in lines)
    log = (tmp_path / "scale/cells/tiny_1x16/0.5/log.txt").read_text()
    assert "what the stage prints" in log
    assert [row["accuracy"]["value"] for row in result["cells"]] == [0.625, 0.75] * 2
    assert (tmp_path / "scale/scale.png").read_bytes().startswith(b"\x89PNG")
    # With one more share, the same command trains that one alone.
    run_scale(tmp_path, *SMALL, "--fractions", "1,0.5,0.25")
    assert [seen[1] for seen in trainings.seen[4:]] == [0.25, 0.25]
    lines = [line for line in capsys.readouterr().out.splitlines() if " of 6: " in line]
    assert ["(done before)" in line for line in lines] == [False, True, True] * 2


def test_a_runs_own_pairs_are_what_cells_read(tmp_path, monkeypatch):
    trainings = Trainings(monkeypatch)
    pairs = [Pair((Message("user", f"q {k}"),), "good", "bad", 2.0, f"f:{k}") for k in range(9)]
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", pairs)
    run_scale(tmp_path, "--sizes", "tiny:1x16", "--fractions", "1")
    (_, _, data, folder) = trainings.seen[0]
    assert data == []
    linked = folder.parent / "pairs" / "pairs.jsonl"
    assert linked.read_text() == (tmp_path / "pairs" / "pairs.jsonl").read_text()
    assert not (tmp_path / "scale/embedded.jsonl").exists()


def test_a_cell_that_fails_is_named(tmp_path, monkeypatch):
    def fail(stage, *groups):
        raise UserError("no room")

    monkeypatch.setattr(scale_stage.reward_stage, "main", fail)
    with pytest.raises(UserError, match="^tiny_1x16, 50% of the prompts: no room"):
        run_scale(tmp_path, "--sizes", "tiny:1x16", "--fractions", "0.5")


@pytest.mark.parametrize("text", ["", "0,1", "0.5,1.5", "half", "nan"])
def test_shares_that_cannot_be(text):
    with pytest.raises(UserError, match="fractions is"):
        parse_fractions(text)


def test_shares_are_sorted_and_taken_once():
    assert parse_fractions("1, 0.5 0.25,0.5") == [0.25, 0.5, 1.0]


def rows_of(held_out):
    share = {"value": 0.7, "ci95": [0.6, 0.8], "count": 40}
    return [
        {
            "size": size,
            "parameters": 1000 * (k + 1),
            "fraction": fraction,
            "pairs": 100,
            "held_out_pairs": count,
            "accuracy": {**share, "value": 0.6 + 0.1 * k + 0.05 * fraction},
            "length_only": {**share, "value": 0.55},
            "ceiling": {**share, "value": 0.9},
            "labelers": "2 simulated labelers",
        }
        for (k, size), count in zip(enumerate(("one", "two")), held_out, strict=True)
        for fraction in (0.5, 1.0)
    ]


def test_the_report_has_a_row_a_size_and_says_when_the_test_was_not_the_same():
    text = report(rows_of((8, 8)))
    assert "| one | 1,000 | 0.625 [0.600, 0.800] | 0.650 [0.600, 0.800] |" in text
    assert "| two | 2,000 | 0.725" in text and "By length alone: 0.550." in text
    assert "One labeler against the others: 0.900." in text and "Not all cells" not in text
    assert "Who ranked: 2 simulated labelers." in text
    assert "Not all cells have the same held-out pairs" in report(rows_of((8, 7)))


def test_names_are_shown_as_they_are():
    rows = rows_of((8, 8))
    for row in rows[:2]:
        row["size"] = r"a|b $\frac{$ <b>"
    assert "| a&#124;b &#36;&#92;frac&#123;&#36; &lt;b&gt; | 1,000 |" in report(rows)
    assert scale_chart(rows).startswith(b"\x89PNG")


def test_the_shipped_settings_are_taken():
    file = ROOT / "step2_reward" / "scale.yaml"
    groups = parse_arguments(ARGUMENTS, "reward", ["--config", str(file)])
    found = {k: v for group in groups for k, v in asdict(group).items()}
    assert found["run"] == "runs/scale" and len(found["sizes"]) == 3
    assert isinstance(groups[0], RunArguments) and found["learning_rate"] == 1e-3


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_and_two_ranks_find_the_same(tmp_path):
    """For real: one cell alone, then all on one rank; and all on two ranks."""
    given = ("--config", str(ROOT / "step2_reward/scale.yaml"), "--sizes", "tiny:1x16", "tiny:1x32")
    given += ("--embedded_prompts", "80", "--epochs", "1", "--fractions")
    one = ("step2_reward/scale.py", *given, "0.5,1", "--run", str(tmp_path / "one"))
    first = ("step2_reward/scale.py", *given, "0.5", "--run", str(tmp_path / "one"))
    two = ("step2_reward/scale.py", *given, "0.5,1", "--run", str(tmp_path / "two"))
    finish(start(*first), seconds=300)
    printed = finish(start(*one), seconds=300)
    assert printed.count("(done before)") == 2 and printed.count(" of 4: ") == 4
    finish(launch(2, *two), seconds=500)
    rows = [
        json.loads((tmp_path / name / "scale/result.json").read_text())["cells"]
        for name in ("one", "two")
    ]
    for row, other in zip(*rows, strict=True):
        assert row["held_out_pairs"] == other["held_out_pairs"] == rows[0][0]["held_out_pairs"]
        assert row["accuracy"]["value"] == pytest.approx(other["accuracy"]["value"], abs=0.1)
    assert rows[0][0]["pairs"] < 0.6 * rows[0][1]["pairs"]
