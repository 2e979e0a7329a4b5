"""Stage 1 refuses bad input before any training: with file, line and field, and what to do."""

import csv
import json

import pytest

import step1_sft.main as stage1
from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    RunArguments,
    TextArguments,
    ZeroArguments,
)
from common.errors import UserError
from common.models.tiny import TinyArguments
from common.training.guard import GuardArguments
from common.training.resume.arguments import CheckpointArguments
from common.training.stage import Stage
from step1_sft.main import SFTArguments
from tests import inputs
from tests.inputs import Trains, argument_groups, stop_before_training
from tests.models import save_tiny, tiny_causal_lm

GOOD = [{"prompt": f"question {i}", "completion": f"answer {i}"} for i in range(20)]


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    stop_before_training(monkeypatch, stage1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "base"))


def write(tmp_path, rows, name: str = "train.jsonl") -> str:
    return inputs.write(tmp_path, rows, name)


def run_stage1(tmp_path, model: str, data: list[str], **changes) -> None:
    """`main` with these settings, each given to the dataclass that has it."""
    text = {"max_prompt_tokens": 200, "max_response_tokens": 50, "scrub_pii": False}
    kinds = (
        *(SFTArguments, ModelArguments, TinyArguments, TextArguments),
        *(LoraArguments, ZeroArguments, OptimizerArguments, CheckpointArguments, GuardArguments),
    )
    settings = {"model": model, "data": data, **text, **changes}
    run = RunArguments(run=str(tmp_path / "run"), progress=False)
    stage1.main(Stage("sft", run, {}), run, *argument_groups(kinds, settings))


def refused(tmp_path, model: str, data: list[str], **changes) -> str:
    with pytest.raises(UserError) as caught:
        run_stage1(tmp_path, model, data, **changes)
    assert not (tmp_path / "run" / "models" / "sft").exists()
    return str(caught.value)


def test_good_input_goes_on_to_training(tmp_path, model, capsys):
    with pytest.raises(Trains):
        run_stage1(tmp_path, model, [write(tmp_path, GOOD)])
    said = capsys.readouterr().out
    assert "held out" in said and "skipped" not in said


# Files


def test_broken_json(tmp_path, model):
    file = write(tmp_path, [*GOOD[:4], '{"prompt": "q", "completion": }', *GOOD[4:]])
    assert refused(tmp_path, model, [file]).startswith(f"{file}:5: broken JSON at column 31")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "q", "completion": ""}, "field 'completion' is empty"),
        ({"prompt": " \n", "completion": "a"}, "field 'prompt' is empty"),
        ({"prompt": "q"}, "field 'completion' is missing"),
        ({"prompt": "q", "completion": 3}, "field 'completion' must be a string, not"),
        ({"instruction": "q", "output": None}, "field 'output' is missing"),
        ({"messages": [{"role": "user", "content": "q"}]}, "must end with a message of the assist"),
        ({"messages": [{"role": "bot", "content": "q"}]}, "unknown role 'bot'"),
    ],
)
def test_a_missing_or_empty_field(tmp_path, model, row, message):
    file = write(tmp_path, [*GOOD[:2], row, *GOOD[2:]])
    found = refused(tmp_path, model, [file])
    assert found.startswith(f"{file}:3: ") and message in found


def test_an_empty_cell_of_a_csv_file(tmp_path, model):
    file = tmp_path / "train.csv"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["prompt", "completion"], ["two\nlines", "a"], ["q", ""]])
    found = refused(tmp_path, model, [str(file)])
    assert found.startswith(f"{file}:4: field 'completion' is empty")


def test_problems_of_a_file_are_told_together(tmp_path, model):
    file = write(tmp_path, [GOOD[0], {"prompt": "q", "completion": ""}, GOOD[1], "{", GOOD[2]])
    found = refused(tmp_path, model, [file]).splitlines()
    assert [line.split(": ")[0] for line in found] == [f"{file}:2", f"{file}:4"]


def test_no_file_and_no_data(tmp_path, model):
    assert "gone.jsonl: no such file" in refused(tmp_path, model, [str(tmp_path / "gone.jsonl")])
    assert "no data given" in refused(tmp_path, model, [])
    empty = write(tmp_path, [], "empty.jsonl")
    assert f"{empty}: the data set is empty" in refused(tmp_path, model, [empty])


def test_a_column_mapping_that_the_file_does_not_have(tmp_path, model):
    file = write(tmp_path, GOOD)
    source = json.dumps({"path": file, "columns": {"completion": "reply"}})
    assert f"{file}:1: " in refused(tmp_path, model, [source])
    assert "'reply'" in refused(tmp_path, model, [source])


def test_a_single_prompt_cannot_be_split(tmp_path, model):
    file = write(tmp_path, [GOOD[0]] * 5)
    assert "at least two different prompts" in refused(tmp_path, model, [file])


def test_held_out_data_that_covers_all_training_prompts(tmp_path, model):
    file = write(tmp_path, GOOD)
    assert "leaves no example" in refused(tmp_path, model, [file], eval_data=[file])


def test_text_that_is_scrubbed_is_scrubbed_on_both_sides(tmp_path):
    rows = [
        {"prompt": f"Mail {name}@example.com about {i}", "completion": f"Write to {name}@mail.com."}
        for i, name in enumerate(("jane", "joe", "kim", "lee"))
    ]
    train, held_out = write(tmp_path, rows), write(tmp_path, rows[:1], "eval.jsonl")
    settings = SFTArguments(data=[train], eval_data=[held_out])
    kept, held, replaced = stage1.prepare_data(settings, seed=0)
    assert len(kept) == 3 and len(held) == 1 and sum(replaced.values()) == 10
    assert not {c.prompt_key for c in kept} & {c.prompt_key for c in held}
    assert not any("@" in m.content for c in [*kept, *held] for m in c.messages)


# Lengths


LONG = {"prompt": "word " * 100, "completion": "answer"}


def test_a_long_prompt_is_an_error_by_choice(tmp_path, model):
    file = write(tmp_path, [*GOOD, LONG])
    found = refused(tmp_path, model, [file], long_prompts="error", eval_data=[write_eval(tmp_path)])
    assert found.startswith(f"{file}:21: the prompt has ")
    assert "over max_prompt_tokens (200)" in found and "skip or truncate" in found


def write_eval(tmp_path) -> str:
    row = {"prompt": "held out", "completion": "answer"}
    return write(tmp_path, [row], "eval.jsonl")


@pytest.mark.parametrize(
    ("choice", "examples", "words"),
    [("skip", 20, "2 long prompts skipped"), ("truncate", 22, "2 long prompts truncated")],
)
def test_long_prompts_are_counted_and_reported(tmp_path, model, capsys, choice, examples, words):
    file = write(tmp_path, [LONG, *GOOD, {**LONG, "completion": "another"}])
    with pytest.raises(Trains):
        run_stage1(tmp_path, model, [file], long_prompts=choice, eval_data=[write_eval(tmp_path)])
    said = capsys.readouterr().out
    assert f"{examples} examples, 1 held out" in said and words in said


def test_nothing_left_after_filtering(tmp_path, model):
    file = write(tmp_path, GOOD)
    found = refused(tmp_path, model, [file], max_prompt_tokens=10)
    assert found.startswith("no example is left (")
    assert "long prompts skipped" in found and "max_prompt_tokens is 10" in found


def test_nothing_left_to_evaluate_on(tmp_path, model):
    file, held_out = write(tmp_path, GOOD), write(tmp_path, [LONG], "eval.jsonl")
    found = refused(tmp_path, model, [file], eval_data=[held_out])
    assert found.startswith("no held-out example is left (1 long prompts skipped)")


# Models


def test_a_model_folder_without_tokenizer(tmp_path):
    folder = tmp_path / "bare"
    tiny_causal_lm("llama").save_pretrained(folder)
    found = refused(tmp_path, str(folder), [write(tmp_path, GOOD)])
    assert found.startswith(f"{folder}: ") and "tokenizer" in found


def test_no_model_folder(tmp_path):
    file = write(tmp_path, GOOD)
    assert "no such model folder" in refused(tmp_path, str(tmp_path / "nowhere"), [file])
    assert "neither config.json nor adapters" in refused(tmp_path, str(tmp_path), [file])


def test_a_chat_template_that_the_tokenizer_lacks(tmp_path, model):
    found = refused(tmp_path, model, [write(tmp_path, GOOD)], template="chat")
    assert "has no chat template" in found and "--template ice" in found


def test_adapters_on_layers_that_are_not_there(tmp_path, model):
    found = refused(
        tmp_path, model, [write(tmp_path, GOOD)], lora_rank=2, lora_targets=["query_key_value"]
    )
    assert "no layer of LlamaForCausalLM is named 'query_key_value'" in found
    assert "q_proj" in found
