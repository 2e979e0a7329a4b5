"""DPO refuses bad pairs and settings before any engine is built, as reward training does."""

import pytest

import step3_rlhf.dpo as dpo
from common.config.arguments import RunArguments
from common.errors import UserError
from common.training.stage import Stage
from tests.inputs import Trains, argument_groups, stop_before_training, write
from tests.models import save_tiny

GOOD = [{"prompt": f"question {i}", "chosen": "yes", "rejected": "no"} for i in range(12)]


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    stop_before_training(monkeypatch, dpo)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "sft"))


def run_dpo(tmp_path, model, data, **changes):
    text = {"max_prompt_tokens": 200, "max_response_tokens": 20, "eval_fraction": 0.25}
    run = RunArguments(run=str(tmp_path / "run"), progress=False)
    groups = argument_groups(dpo.ARGUMENTS[1:], {"model": model, "data": data, **text, **changes})
    dpo.main(Stage("dpo", run, {}), run, *groups)


def test_good_pairs_go_on_to_training_and_long_ones_are_counted(tmp_path, model, capsys):
    rows = [*GOOD, {"prompt": "question", "chosen": "y" * 50, "rejected": "no"}]
    with pytest.raises(Trains):
        run_dpo(tmp_path, model, [write(tmp_path, rows, "pairs.jsonl")])
    said = capsys.readouterr().out
    assert "dpo: 13 pairs from 13 rankings\n" in said and "1 long responses truncated" in said


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "chosen": "a"}, "field 'rejected' is missing"),
        ('{"prompt": "q"', "broken JSON at column"),
        ({"prompt": "q", "responses": ["a", "b"], "orders": [[0, 0]]}, "repeats response 0"),
    ],
)
def test_a_malformed_row_is_refused(tmp_path, model, row, message):
    file = write(tmp_path, [*GOOD[:2], row, *GOOD[2:]], "pairs.jsonl")
    with pytest.raises(UserError) as caught:
        run_dpo(tmp_path, model, [file])
    assert str(caught.value).startswith(f"{file}:3: ") and message in str(caught.value)


def test_without_pairs_or_a_model_it_names_what_is_missing(tmp_path, model):
    with pytest.raises(UserError, match=r"run/pairs/pairs\.jsonl: no such file"):
        run_dpo(tmp_path, model, [])
    with pytest.raises(UserError, match=r"run/models/sft: no such model folder; run the stage"):
        run_dpo(tmp_path, "", [write(tmp_path, GOOD, "pairs.jsonl")])
