"""The table at the end of a run."""

import pytest

from common.evaluation.summary import build_summary
from common.evaluation.terminal import terminal_table


def test_a_line_a_split_with_its_numbers(tmp_path, response_row, write_lines):
    rows = []
    for index in range(2):
        rows += [response_row(index=index, overall=40.0 + 20 * index)]
        rows += [response_row(index=index, model="rlhf", overall=80.0)]
        rows += [response_row(index=index, decoding="greedy", overall=61.25)]
        rows += [response_row(index=index, model="rlhf", decoding="greedy", overall=99.5)]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    table = terminal_table(build_summary(tmp_path))
    # SFT's two prompts, 40 and 60: interval 40 to 60, half of it 10.
    row = " ".join(table.splitlines()[2].split())
    assert row == "seen 2 50.0 ±10.0 80.0 ±0.0 +30.0 ±10.0 61.2 -> 99.5 2/0/0"


def test_it_is_a_table_and_narrow(run):
    lines = terminal_table(build_summary(run)).splitlines()
    assert max(map(len, lines)) <= 90
    assert [line.split()[0] for line in lines[2:5]] == ["seen", "unseen", "general"]
    assert len({len(line) for line in lines[:5]}) == 1


def test_the_widest_numbers_and_hostile_names_fit(tmp_path, response_row, write_lines):
    rows = []
    for split in ("a very long split name", "\x1b[31mred\nline"):
        for index in range(1200):
            for decoding in ("sample", "greedy"):
                rows += [response_row(split, index, decoding=decoding, overall=0.0, criteria=None)]
                rows += [response_row(split, index, "rlhf", decoding, overall=100.0)]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    table = terminal_table(build_summary(tmp_path))
    assert max(map(len, table.splitlines())) <= 90
    assert "\x1b" not in table and len(table.splitlines()) == 5
    assert "1200/0/0" in table


def test_a_reward_models_verdict_is_marked(tmp_path, response_row, write_lines):
    rows = [
        response_row("mine", model=m, overall=None, criteria=None, reward=r)
        for m, r in (("sft", -0.25), ("rlhf", 1.5))
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    table = terminal_table(build_summary(tmp_path))
    row = " ".join(table.splitlines()[2].split())
    assert row == "mine* 1 -0.25 ±0.00 1.50 ±0.00 +1.75 ±0.00 – 1/0/0"
    assert "no independent evidence" in table


@pytest.mark.parametrize("decoding", ["sample", "greedy"])
def test_what_is_missing_is_a_dash(tmp_path, response_row, write_lines, decoding):
    write_lines(
        tmp_path / "evaluation" / "responses.jsonl", [response_row(decoding=decoding, overall=7.0)]
    )
    row = " ".join(terminal_table(build_summary(tmp_path)).splitlines()[2].split())
    expected = {"sample": "seen 1 7.0 ±0.0 – – – –", "greedy": "seen 1 – – – 7.0 -> – –"}
    assert row == expected[decoding]


def test_without_an_evaluation_it_says_so(tmp_path, write_result):
    write_result(tmp_path, "sft", {"seconds": 1.0})
    assert "not compared" in terminal_table(build_summary(tmp_path))


def test_further_contenders_stand_below_against_sft(four):
    lines = terminal_table(build_summary(four)).splitlines()
    rows = [" ".join(line.split()) for line in lines]
    assert rows[2] == "seen 2 50.0 ±10.0 80.0 ±0.0 +30.0 ±10.0 – -> – 2/0/0"
    assert rows[4] == "split mean against SFT greedy win/tie/loss"
    assert rows[6] == "seen best of 3 65.0 ±25.0 +15.0 ±35.0 – 1/0/1"
    assert rows[7] == "seen dpo 70.0 ±20.0 +20.0 ±10.0 61.2 2/0/0"
    assert max(map(len, lines)) <= 90
