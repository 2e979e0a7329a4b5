"""Stage 3 refuses bad prompts, and models that don't fit together, before any engine is built."""

import warnings

import pytest

import common.ppo.build as build
import step3_rlhf.main as stage3
from common.config.arguments import (
    RunArguments,
)
from common.errors import UserError
from common.evaluation.judge import judge
from common.training.stage import Stage
from tests import inputs
from tests.inputs import Trains, argument_groups, stop_before_training
from tests.models import byte_tokenizer, save_reward, save_tiny, tiny_causal_lm

GOOD = [{"prompt": f"question {i}"} for i in range(8)]


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    stop_before_training(monkeypatch, build)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"sft": str(save_tiny(root / "sft")), "reward": save_reward(root / "reward")}


def write(tmp_path, rows, name: str = "prompts.jsonl") -> str:
    return inputs.write(tmp_path, rows, name)


def run_stage3(tmp_path, models: dict[str, str], data: list[str], **changes) -> None:
    """`main` with these settings, each given to the dataclass that has it."""
    settings = {
        "actor": models["sft"],
        "reward": [models["reward"]] if models["reward"] else [],
        "data": data,
        "max_prompt_tokens": 200,
        "max_response_tokens": 20,
        "rollout_batch_size": 8,
        "mini_batch_size": 8,
        **changes,
    }
    run = RunArguments(run=str(tmp_path / "run"), progress=False)
    stage3.main(Stage("rlhf", run, {}), run, *argument_groups(stage3.ARGUMENTS[1:], settings))


def refused(tmp_path, models, data, **changes) -> str:
    with pytest.raises(UserError) as caught:
        run_stage3(tmp_path, models, data, **changes)
    return str(caught.value)


def test_good_input_goes_on_to_training(tmp_path, models, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        with pytest.raises(Trains):
            run_stage3(tmp_path, models, [write(tmp_path, GOOD)])
    assert "8 prompts\n" in capsys.readouterr().out


# Prompts


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "q"', "broken JSON at column"),
        ({"prompt": ""}, "field 'prompt' is empty"),
        ({"prompt": None}, "field 'prompt' is missing"),
        ({"prompt": ["q"]}, "field 'prompt[0]' must be an object"),
        ("7", "a row must be an object"),
    ],
)
def test_a_malformed_prompt_is_refused(tmp_path, models, row, message):
    file = write(tmp_path, [*GOOD[:3], row, *GOOD[3:]])
    found = refused(tmp_path, models, [file])
    assert found.startswith(f"{file}:4: ") and message in found
    good = write(tmp_path, GOOD, "good.jsonl")
    assert refused(tmp_path, models, [good], eval_data=[file]) == found


def test_no_prompts(tmp_path, models):
    assert "no data given" in refused(tmp_path, models, [])
    file = write(tmp_path, [])
    assert f"{file}: the data set is empty" in refused(tmp_path, models, [file])


def test_long_prompts_are_refused_skipped_or_cut_by_choice(tmp_path, models, capsys):
    file = write(tmp_path, [*GOOD, {"prompt": "word " * 100}])
    found = refused(tmp_path, models, [file], long_prompts="error")
    assert found.startswith(f"{file}:9: the prompt has ") and "max_prompt_tokens (200)" in found
    for choice, words in (
        ("skip", "8 prompts, 1 long prompts skipped"),
        ("truncate", "9 prompts, 1 long prompts truncated"),
    ):
        with pytest.raises(Trains):
            run_stage3(tmp_path, models, [file], long_prompts=choice)
        assert words in capsys.readouterr().out


def test_nothing_left_after_filtering(tmp_path, models):
    found = refused(tmp_path, models, [write(tmp_path, GOOD)], max_prompt_tokens=10)
    assert found.startswith("no prompt is left (8 long prompts skipped)")


# Models


def test_an_actor_folder_without_tokenizer(tmp_path, models):
    tiny_causal_lm("llama").save_pretrained(tmp_path / "bare")
    bare = {**models, "sft": str(tmp_path / "bare")}
    found = refused(tmp_path, bare, [write(tmp_path, GOOD)])
    assert found.startswith(f"{tmp_path / 'bare'}: ") and "tokenizer" in found


@pytest.mark.parametrize("name", ["sft", "reward"])
def test_the_stages_before_must_have_run(tmp_path, models, name):
    found = refused(tmp_path, {**models, name: ""}, [write(tmp_path, GOOD)])
    assert found.startswith(f"{tmp_path / 'run/models' / name}: no such model folder; run the")


def test_a_language_model_is_no_reward_model(tmp_path, models):
    found = refused(tmp_path, {**models, "reward": models["sft"]}, [write(tmp_path, GOOD)])
    assert "score.weight" in found and "not in its files" in found


def test_a_critic_from_a_reward_model_with_other_tokens(tmp_path, models):
    other = byte_tokenizer()
    other.eos_token = "<s>"
    other.bos_token = "</s>"
    reward = save_reward(tmp_path / "other", other)
    file = write(tmp_path, GOOD)
    found = refused(tmp_path, {**models, "reward": reward}, [file], critic_from="reward")
    assert "for the actor and" in found and "critic (from the reward model)" in found
    with pytest.raises(Trains):  # a reward model may have its own tokenizer, if it is no critic
        run_stage3(tmp_path, {**models, "reward": reward}, [file])


def test_a_tokenizer_with_more_tokens_than_its_model(tmp_path, models):
    folder = save_tiny(tmp_path / "short")
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["alpha", "beta"])
    tokenizer.save_pretrained(folder)
    found = refused(tmp_path, {**models, "sft": str(folder)}, [write(tmp_path, GOOD)])
    assert found == f"{folder}: the tokenizer has 261 tokens, the model only 259"


def test_adapters_on_layers_that_are_not_there(tmp_path, models):
    found = refused(tmp_path, models, [write(tmp_path, GOOD)], lora_rank=2, lora_targets=["c_attn"])
    assert "no layer of Llama" in found and "'c_attn'" in found


def test_adapters_on_layers_that_can_have_none(tmp_path, models):
    settings = {"lora_rank": 2, "lora_targets": ["input_layernorm"]}
    found = refused(tmp_path, models, [write(tmp_path, GOOD)], **settings)
    assert found.startswith("lora_targets: input_layernorm: ")


def test_prompts_with_facts_of_their_own_are_judged_by_no_rubric(tmp_path, models):
    rows = [{"prompt": f"question {i}", "facts": {"source": "wiki"}} for i in range(8)]
    with pytest.raises(Trains):
        run_stage3(tmp_path, models, [write(tmp_path, rows)])
    assert judge("an answer", rows[0]["facts"]) is None


# Rewards


def sources(tmp_path, models, *more, **changes):
    """What is said with these sources of rewards; None where the stage goes on."""
    file = tmp_path / "rules.py"
    file.write_text("def rule(prompts, responses):\n    return [0.0] * len(responses)\n")
    given = [str(x).replace("RULES", str(file)) for x in more]
    try:
        run_stage3(tmp_path, models, [write(tmp_path, GOOD)], reward=given, **changes)
    except Trains:
        return None
    except UserError as error:
        return str(error)


def test_rewards_from_elsewhere(tmp_path, models):
    rule = "python:RULES:rule"
    assert sources(tmp_path, models, rule) is None
    assert sources(tmp_path, models, models["reward"], rule, "http://localhost:1/x") is None
    assert sources(tmp_path, models, rule, models["reward"], critic_from="reward") is None
    found = sources(tmp_path, models, rule, critic_from="reward")
    assert "no source of rewards is a model: use --critic_from sft" in found
    assert "has no function 'rul'" in sources(tmp_path, models, "python:RULES:rul")
    assert "no such file: /nowhere.py" in sources(tmp_path, models, "python:/nowhere.py:rule")
    assert "no such model folder" in sources(tmp_path, models, rule, str(tmp_path / "none"))
    shared = {"one_base": True, "lora_rank": 2}
    found = sources(tmp_path, models, models["reward"], models["reward"], **shared)
    assert found.startswith("one_base: 2 sources of rewards are models, but exactly one must be")
    assert sources(tmp_path, models, rule, **shared).startswith("one_base: 0 sources")


def test_data_beside_ppo_is_read_as_conversations(tmp_path, models, capsys):
    prompts = write(tmp_path, GOOD)
    ptx = {"ptx_coefficient": 0.5}
    found = refused(tmp_path, models, [prompts], ptx_data=[prompts], **ptx)
    assert found.startswith(f"{prompts}:1: ") and "completion" in found
    rows = [{"prompt": "q", "completion": "a"}, {"prompt": "word " * 100, "completion": "a"}]
    file = write(tmp_path, rows, "ptx.jsonl")
    with pytest.raises(Trains):
        run_stage3(tmp_path, models, [prompts], ptx_data=[file], **ptx)
    assert "8 prompts, 1 long prompts skipped" in capsys.readouterr().out


# Settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mini_batch_size": 3}, "rollout_batch_size 8 is not a multiple of mini_batch_size 3"),
        ({"micro_batch_size": 3}, "batch_size 8 is not a multiple of micro_batch_size 3"),
        ({"temperature": 0.0}, "temperature is 0.0, but must be above 0"),
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"mini_batch_size": 0}, "mini_batch_size is 0, but must be at least 1"),
        ({"generation_batch_size": 0}, "generation_batch_size is 0, but must be at least 1"),
        ({"clip_range": -1.0}, "clip_range is -1.0, but must be above 0"),
        ({"kl_target": 0.0}, "kl_target is 0.0, but must be above 0"),
        ({"kl_coefficient": -0.1}, "kl_coefficient is -0.1, but must be at least 0"),
        ({"steps": 3, "critic_warmup_steps": 3}, "the actor would never be trained"),
        ({"actor_learning_rate": -1.0}, "learning_rate is -1.0, but must be at least 0"),
    ],
)
def test_settings_that_cannot_be_combined(tmp_path, models, changes, message):
    assert message in refused(tmp_path, models, [write(tmp_path, GOOD)], **changes)


@pytest.mark.parametrize("changes", [{"top_k": 20}, {"top_p": 0.9}, {"repetition_penalty": 1.2}])
def test_a_filter_on_the_samples_draws_a_warning(tmp_path, models, changes):
    with pytest.warns(UserWarning, match="changed distribution"), pytest.raises(Trains):
        run_stage3(tmp_path, models, [write(tmp_path, GOOD)], **changes)
