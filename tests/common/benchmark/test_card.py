"""The benchmark of real models' shapes, with shapes that a CPU can do."""

import importlib
import json
from dataclasses import replace

import pytest

from common.benchmark import card
from common.benchmark.card import CASES, CardBenchmark
from common.benchmark.shapes import Shape
from common.config.parsing import parse_arguments
from common.config.pipeline import MODULES
from common.errors import UserError

SMALL = Shape("small", 64, 2, 2, 2000, 128)


@pytest.mark.parametrize("name", list(CASES))
def test_every_option_is_one_of_its_stage(name):
    case = CASES[name]
    words = [word for pair in case.options.items() for word in (f"--{pair[0]}", pair[1])]
    groups = parse_arguments(
        importlib.import_module(MODULES[case.stage]).ARGUMENTS, case.stage, words
    )
    values = {n: value for group in groups for n, value in vars(group).items()}
    assert values["gradient_checkpointing"] == (case.options["gradient_checkpointing"] == "true")


def test_names_say_what_a_case_is():
    case = CASES["sft-1.3b-2-1-0"]
    assert case.name == "sft 1.3B, ZeRO-2, LoRA on, checkpointing off"
    with pytest.raises(UserError, match="there is no ppo-70b"):
        CardBenchmark(cases=["ppo-70b"])


def test_tables_have_errors_failures_and_phases():
    done = {"case": "a", "planned": 1024.0, "measured": 2048.0, "reserved": 3072.0, "worst": "x"}
    step = {f"time/{name}": seconds for seconds, name in enumerate(card.PHASES, start=1)}
    step |= {f"memory/{name}_allocated": 1024.0 for name in card.PHASES}
    step |= {f"memory/{name}_reserved": 2048.0 for name in card.PHASES}
    planned = {"rollout": 512.0, "training the critic": 4096.0, "training the actor": 1024.0}
    ppo = {**done, "case": "b", "steps": [{}, step], "planned_phases": planned}
    text = card.tables([done, ppo, {"case": "c", "failed": "first\nout of memory\n"}], "A card")
    assert text.startswith("On one A card:")
    assert "| a | 1.00 | 2.00 | -50.0% | 3.00 | x |" in text
    assert "| c | failed: out of memory |" in text
    assert "b, step 2:" in text
    assert "| generate | 1.0 | 0.5 | 1.0 | 2.0 |" in text
    assert "| train | 3.0 | 4.0 | 1.0 | 2.0 |" in text


@pytest.mark.slow
def test_stages_run_on_drawn_weights(tmp_path, monkeypatch):
    for name in ("ppo-13b", "ppo-7b"):
        case = CASES[name]
        small = {"max_prompt_tokens": "32", "max_response_tokens": "8", "rollout_batch_size": "8"}
        small |= {"mini_batch_size": "8", "generation_batch_size": "8"}
        shape = replace(SMALL, name=name)
        case = replace(case, shape=shape, reward=case.reward and SMALL)
        case = replace(case, options={**case.options, **small})
        card.write_inputs(tmp_path, case)
        row = card.measure(tmp_path, case)
        assert "failed" not in row, row["failed"]
        assert row["planned"] > 0 and row["measured"] > 0 and len(row["steps"]) == 3
        assert (tmp_path / "reward" / "adapter_config.json").is_file() == (name == "ppo-13b")
        config = json.loads((tmp_path / "model" / "config.json").read_text())
        assert config["hidden_size"] == SMALL.width
