"""A run with a damaged file: the report is made of the others, and says which file it was."""

import json
import re

import pytest

from common.errors import UserError
from common.evaluation.report import main, write_report
from tests.pages import Reader

RESULT = {"seconds": 1.0, "seed": 3, "versions": {"torch": "2"}}
TOKENS = {"split": "seen", "index": 0, "model": "rlhf", "decoding": "sample", "sample": 0}
TOKENS |= {"tokens": ["yes", ""], "sft": [-1.0, -2.0], "rlhf": [-0.5, -2.5]}
BENCHMARKS = {"benchmarks": {"mmlu": {"title": "MMLU"}}, "models": {"actor": {"mmlu": {"n": 1}}}}
WHO = {"title": "people", "kind": "people", "decoding": "sample", "prompts": 1, "notes": []}
CRITERIA = {"weights": {"name": "w"}, "judges": [WHO | {"splits": {}}]}


@pytest.fixture
def small(tmp_path, response_row, write_lines):
    """One of each file that the report reads, with hardly anything in it."""
    folder = tmp_path / "small"
    for stage in ("sft", "reward", "rlhf", "evaluation", "benchmarks"):
        path = folder / stage / "result.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(RESULT))
    rows = [
        response_row(index=index, model=model, overall=40.0 + index + 9 * (model == "rlhf"))
        for index in range(2)
        for model in ("sft", "rlhf")
    ]
    write_lines(folder / "evaluation" / "responses.jsonl", rows)
    write_lines(folder / "evaluation" / "tokens.jsonl", [TOKENS, TOKENS | {"index": 1}])
    write_lines(folder / "rlhf" / "metrics.jsonl", [{"step": s, "reward/score": s} for s in (1, 2)])
    write_lines(folder / "rlhf" / "events.jsonl", [{"step": 1, "text": "high", "action": "warns"}])
    (folder / "rlhf" / "config.yaml").write_text("beta: 1\n")
    (folder / "rlhf" / "begun.json").write_text('{"settings": {}, "inputs": {}}')
    (folder / "benchmarks" / "benchmarks.json").write_text(json.dumps(BENCHMARKS))
    (folder / "evaluation" / "criteria.json").write_text(json.dumps(CRITERIA))
    return folder


def report(run, capsys):
    """The page, and what the command said; it must have come to its end."""
    assert main([str(run)]) == 0
    page = Reader((run / "report.html").read_text(encoding="utf-8"))
    return page, capsys.readouterr().out


def test_a_sound_run_has_nothing_odd(small, capsys):
    page, said = report(small, capsys)
    assert "Odd" not in page.text and "Odd" not in said
    assert {"Benchmarks", "Samples", "Held-out scores"} <= set(page.headings)


LINES = ("evaluation/responses.jsonl", "evaluation/tokens.jsonl", "rlhf/metrics.jsonl")
OBJECTS = ("reward/result.json", "benchmarks/benchmarks.json", "evaluation/criteria.json")


@pytest.mark.parametrize("name", [*LINES, "rlhf/events.jsonl"])
def test_a_line_that_is_none_costs_that_line_only(small, capsys, name):
    path = small / name
    lines = path.read_bytes().count(b"\n")
    with path.open("ab") as file:
        file.write(b"[1]\n\xff\xfe\x00\n" + b"[" * 100_000 + b'\n{"half": ')
    page, said = report(small, capsys)
    for number in range(lines + 1, lines + 5):
        assert f"{name}, line {number}" in page.text and f"{name}, line {number}" in said
    assert "+9.0 [+9.0, +9.0]" in page.text


@pytest.mark.parametrize("content", [b'{"half": ', b"\xff\xfe\x00", b"[1]", b""])
def test_an_object_that_is_none_costs_that_file_only(small, capsys, content):
    names = (*OBJECTS, "rlhf/config.yaml", "rlhf/begun.json")
    for name in names:
        (small / name).write_bytes(content)
    page, said = report(small, capsys)
    for name in names:
        assert name in page.text and name in said
    assert "+9.0 [+9.0, +9.0]" in page.text


def test_a_field_that_is_none_costs_its_line(small, capsys, response_row, write_lines):
    bad = {
        "responses": [{"overall": "high"}, {"model": "\ud800"}, {"ended": None}]
        + [{"overall": 10**400}, {"scores": [1]}, {"split": "greedy"}],
        "tokens": [{"rlhf": [float("nan"), 0.0]}, {"rlhf": [1.0]}, {"sft": "xy"}]
        + [{"tokens": [1, 2]}, {"tokens": 7}, {"index": [1]}],
    }
    sound = {"responses": response_row(index=9), "tokens": TOKENS | {"sample": 9}}
    for name, changes in bad.items():
        path = small / "evaluation" / f"{name}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_lines(path, [*(sound[name] | change for change in changes), *rows])
    page, said = report(small, capsys)
    for name, changes in bad.items():
        for number in range(1, len(changes) + 1):
            for told in (page.text, said):
                assert re.search(rf"evaluation/{name}.jsonl, line {number}\b", told)
    assert "+9.0 [+9.0, +9.0]" in page.text and "Samples" in page.headings


@pytest.mark.parametrize(
    ("reward", "benchmarks", "criteria"),
    [
        (
            {"seconds": "long", "seed": -1.5, "versions": ["torch"], "planned": [1]},
            {"models": {"actor": [1]}},
            {"judges": [1]},
        ),
        (
            {"planned": {"phases": {"loading": "much"}, "megabytes": {}}, "diagnostics": 3},
            {"benchmarks": {"mmlu": 1}},
            {"judges": [{"kind": "people"}]},
        ),
        (
            {"accuracy": 0.9, "diagnostics": {"accuracy": 1, "length": 2}},
            {"models": {"actor": {"mmlu": {"score": 1.0, "low": "a", "high": []}}}},
            {"judges": {"a": 1}},
        ),
        (
            {"diagnostics": {"calibration": {"error": None}}},
            {"models": {"actor": 1}},
            {"judges": [WHO | {"splits": {"seen": 1}}]},
        ),
    ],
)
def test_a_value_of_another_kind_is_left_out_and_its_file_is_named(
    small, capsys, reward, benchmarks, criteria
):
    for name, content in zip(
        OBJECTS, (RESULT | reward, BENCHMARKS | benchmarks, CRITERIA | criteria), strict=True
    ):
        (small / name).write_text(json.dumps(content))
    page, said = report(small, capsys)
    for name in OBJECTS:
        assert name in page.text and name in said
    assert "+9.0 [+9.0, +9.0]" in page.text


def test_metrics_that_no_chart_can_hold_are_gaps(small, capsys, write_lines):
    rows = [{"step": 10**30, "reward/score": 1}, {"step": 1, "reward/score": 10**400}]
    rows += [{"step": step, "reward/score": 1.0, "eval/score": float("nan")} for step in (2, 3)]
    write_lines(small / "rlhf" / "metrics.jsonl", rows)
    page, said = report(small, capsys)
    assert "rlhf/metrics.jsonl, line 1: no whole-numbered `step`" in page.text
    assert "eval/score is not a finite number" in said


def test_very_many_odd_lines_do_not_fill_the_page(small, capsys):
    with (small / "evaluation" / "tokens.jsonl").open("a") as file:
        file.write("odd\n" * 500)
    page, said = report(small, capsys)
    assert said.count("tokens.jsonl") < 12
    assert "and 492 more" in said and "and 492 more" in page.text


def test_answers_to_other_prompts_are_not_compared(small, capsys, response_row, write_lines):
    rows = [response_row(prompt="one"), response_row(model="rlhf", prompt="another")]
    write_lines(small / "evaluation" / "responses.jsonl", rows)
    page, said = report(small, capsys)
    assert "evaluation/responses.jsonl, line 2, field 'prompt'" in said
    assert "Held-out scores" in page.headings and "RLHF − SFT" not in page.text


def test_an_emptied_file_of_answers_is_named(small, capsys):
    (small / "evaluation" / "responses.jsonl").write_text("")
    assert "evaluation/responses.jsonl: is empty" in report(small, capsys)[1]


def test_where_nothing_can_be_read_there_is_no_report(tmp_path):
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "result.json").write_text("{")
    with pytest.raises(UserError, match="sft/result.json: not valid JSON"):
        write_report(tmp_path)
