"""Files that are whole, cut off, resumed, or wrong."""

import json

import numpy as np
import pytest

from common.errors import UserError
from common.evaluation.run_files import read_metrics, read_responses, read_result


def metrics_file(tmp_path, text):
    path = tmp_path / "rlhf" / "metrics.jsonl"
    path.parent.mkdir()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_metrics_become_one_series_each(tmp_path):
    path = metrics_file(
        tmp_path, '{"step": 2, "a/x": 0.5, "b/y": 7}\n\n{"step": 1, "a/x": 1.5, "text": "no"}\n'
    )
    metrics = read_metrics(path)
    assert metrics.notes == []
    assert set(metrics.series) == {"a/x", "b/y"}
    assert metrics.series["a/x"].steps.tolist() == [1, 2]
    assert metrics.series["a/x"].values.tolist() == [1.5, 0.5]
    assert metrics.series["b/y"].steps.tolist() == [2]


def test_of_a_repeated_step_the_later_line_wins(tmp_path):
    text = '{"step": 1, "a/x": 1}\n{"step": 2, "a/x": 2}\n{"step": 1, "a/x": 9, "eval/z": 4}\n'
    series = read_metrics(metrics_file(tmp_path, text)).series
    assert series["a/x"].values.tolist() == [9, 2]
    assert series["eval/z"].steps.tolist() == [1]


@pytest.mark.parametrize("tail", [b'{"step": 2, "a/x": 0.', b'{"step": 2, "a/x": "\xc3', b"7"])
def test_half_a_last_line_costs_that_line_only(tmp_path, tail):
    metrics = read_metrics(metrics_file(tmp_path, b'{"step": 1, "a/x": 1}\n' + tail))
    assert metrics.series["a/x"].steps.tolist() == [1]
    assert len(metrics.notes) == 1
    assert "rlhf/metrics.jsonl, line 2" in metrics.notes[0]


def test_a_line_without_a_step_is_left_out_and_noted(tmp_path):
    metrics = read_metrics(metrics_file(tmp_path, '{"a/x": 1}\n{"step": 1.5}\n{"step": true}\n'))
    assert metrics.series == {}
    assert len(metrics.notes) == 3 and "line 1" in metrics.notes[0]


def test_what_is_not_finite_is_a_gap_and_noted(tmp_path):
    text = (
        '{"step": 1, "a/x": NaN, "b/y": null}\n{"step": 2, "a/x": 3}\n{"step": 3, "a/x": -Infinity}'
    )
    metrics = read_metrics(metrics_file(tmp_path, text))
    values = metrics.series["a/x"].values
    assert np.isnan(values).tolist() == [True, False, True] and values[1] == 3
    assert metrics.notes == [
        "rlhf/metrics.jsonl: a/x is not a finite number at step 1, 3",
        "rlhf/metrics.jsonl: b/y is not a finite number at any step",
    ]


def test_no_file_is_no_metrics(tmp_path):
    assert read_metrics(tmp_path / "none.jsonl").series == {}
    assert read_result(tmp_path / "none.json") is None
    assert read_responses(tmp_path / "none.jsonl") == ([], [])


@pytest.mark.parametrize("text", ['{"seconds": 1', "[1]", ""])
def test_a_broken_result_names_its_file(tmp_path, text):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UserError, match="result.json"):
        read_result(path)


def test_responses_come_back_as_written(tmp_path, response_row, write_lines):
    path = tmp_path / "evaluation" / "responses.jsonl"
    row = response_row(prompt="zwölf\u2028|", response="", overall=None, reward=float("nan"))
    write_lines(path, [row, response_row(index=1, criteria=None)])
    # Written as other writers may: the line separator as itself, not as an escape.
    path.write_text(path.read_text().replace("\\u2028", "\u2028"), encoding="utf-8")
    (first, second), notes = read_responses(path)
    assert notes == []
    assert (first.prompt, first.response) == ("zwölf\u2028|", "")
    assert (first.overall, first.reward) == (None, None)
    assert first.criteria["accuracy"] == 1.0
    assert second.criteria is None and second.index == 1


def test_a_response_written_twice_counts_once(tmp_path, response_row, write_lines):
    path = tmp_path / "evaluation" / "responses.jsonl"
    write_lines(path, [response_row(overall=10.0), response_row(overall=20.0)])
    (only,), notes = read_responses(path)
    assert only.overall == 20.0
    assert len(notes) == 1 and "1 responses" in notes[0]


def test_half_a_last_response_is_noted(tmp_path, response_row, write_lines):
    path = tmp_path / "evaluation" / "responses.jsonl"
    write_lines(path, [response_row()])
    path.write_text(path.read_text() + json.dumps(response_row(index=1))[:-20])
    rows, notes = read_responses(path)
    assert len(rows) == 1
    assert len(notes) == 1 and "evaluation/responses.jsonl, line 2" in notes[0]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("split", None),
        ("split", "greedy"),
        ("index", "3"),
        ("index", True),
        ("model", " "),
        ("scores", [1.0]),
        ("decoding", "beam"),
        ("response", None),
        ("ended", 1),
        ("overall", "high"),
        ("criteria", [1]),
        ("criteria", {"accuracy": "good"}),
    ],
)
def test_a_wrong_field_names_file_line_and_field(tmp_path, response_row, write_lines, field, value):
    path = tmp_path / "responses.jsonl"
    write_lines(path, [response_row(), response_row(index=1) | {field: value}])
    with pytest.raises(UserError) as error:
        read_responses(path)
    message = str(error.value)
    assert "responses.jsonl, line 2" in message
    assert field in message or "accuracy" in message


def test_one_number_for_two_prompts_is_an_error(tmp_path, response_row, write_lines):
    path = tmp_path / "responses.jsonl"
    rows = [response_row(prompt="one"), response_row(model="rlhf", prompt="another")]
    write_lines(path, rows)
    with pytest.raises(UserError, match="line 2, field 'prompt'"):
        read_responses(path)
