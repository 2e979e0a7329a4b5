"""Answers on the disk: there as a whole and from the same settings, or not at all."""

import json
from types import SimpleNamespace

import pytest

from common.errors import UserError
from common.evaluation.benchmarks.storage import Answers, names_of

ROWS = [{"index": 0, "answer": "A"}, {"index": 1, "answer": None}]


def part(**changes):
    settings = {
        **{"benchmark": "mmlu", "subtask": "anatomy", "mode": "fathom", "origin": "ours"},
        **{"shots": 5, "source": "local files", "metric": "exact_match"},
    }
    return SimpleNamespace(**{**settings, **changes})


@pytest.fixture
def answers(tmp_path):
    kept = Answers(tmp_path / "sft", {"model": "hash", "limit": 20})
    kept.write(part(), ROWS)
    return kept


def test_rows_come_back(answers, tmp_path):
    assert answers.read(part()) == ROWS
    assert (tmp_path / "sft/mmlu/anatomy.jsonl").is_file()
    assert answers.read(part(subtask="astronomy")) is None


@pytest.mark.parametrize("change", [{"mode": "harness"}, {"source": "others"}, {"shots": 4}])
def test_rows_of_another_task_are_not_taken(answers, change):
    assert answers.read(part(**change)) is None


def test_rows_of_another_model_or_limit_are_not_taken(answers):
    assert Answers(answers.folder, {"model": "other", "limit": 20}).read(part()) is None
    assert Answers(answers.folder, {"model": "hash", "limit": 0}).read(part()) is None


def test_half_of_a_part_is_none(answers):
    answers.file(part()).with_suffix(".json").unlink()
    assert answers.read(part()) is None
    answers.write(part(), ROWS)
    answers.file(part()).write_text(json.dumps(ROWS[0])[:-3])
    assert answers.read(part()) is None


def test_models_are_named_by_their_folder_unless_two_are_alike():
    assert names_of(["runs/a/models/sft", "meta-llama/Llama-2-7b"]) == {
        "sft": "runs/a/models/sft",
        "Llama-2-7b": "meta-llama/Llama-2-7b",
    }
    assert list(names_of(["a/sft", "b/sft/"])) == ["a_sft", "b_sft"]
    several = ["/r/a/models/sft", "/r/b/models/sft", "/r/b/models/actor"]
    assert list(names_of(several)) == ["a_models_sft", "b_models_sft", "actor"]
    with pytest.raises(UserError, match="a/sft is given twice"):
        names_of(["a/sft", "a/sft"])
