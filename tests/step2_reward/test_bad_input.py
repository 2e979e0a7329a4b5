"""Stage 2 refuses bad rankings, pairs and models before any training, or drops and counts."""

import json

import pytest

import step2_reward.main as stage2
from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
)
from common.errors import UserError
from common.hybrid_engine.engine import RolloutArguments
from common.reward.training import RewardArguments
from common.training.guard import GuardArguments
from common.training.resume.arguments import CheckpointArguments
from common.training.stage import Stage
from step2_reward import pairs, rank, sample
from step2_reward.main import RewardStageArguments
from step2_reward.pairs import PairsArguments
from step2_reward.rank import RankArguments
from step2_reward.sample import SampleArguments
from tests import inputs
from tests.inputs import Trains, stop_before_training
from tests.models import save_tiny, tiny_causal_lm

FIVE = ["best", "good", "fair", "poor", "worst"]
GOOD = [
    {"prompt": f"question {i}", "responses": FIVE, "orders": [[0, 1, 2, 3, 4]]} for i in range(12)
]
TEXT = TextArguments(max_prompt_tokens=200, max_response_tokens=50)


@pytest.fixture(autouse=True)
def no_training(monkeypatch):
    stop_before_training(monkeypatch, stage2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "sft"))


def write(tmp_path, rows, name: str = "rankings.jsonl") -> str:
    return inputs.write(tmp_path, rows, name)


def stage_of(tmp_path, name: str) -> tuple[Stage, RunArguments]:
    run = RunArguments(run=str(tmp_path / "run"), progress=False)
    (tmp_path / "run" / name).mkdir(parents=True, exist_ok=True)
    return Stage(name, run, {}), run


def run_reward(
    tmp_path, model: str, data: list[str], text=TEXT, lora=None, probe: str = ""
) -> None:
    stage, run = stage_of(tmp_path, "reward")
    stage2.main(
        stage,
        run,
        RewardStageArguments(model=model, data=data, eval_fraction=0.25, probe=probe),
        RewardArguments(),
        ModelArguments(),
        text,
        lora or LoraArguments(),
        ZeroArguments(),
        OptimizerArguments(),
        CheckpointArguments(),
        GuardArguments(),
    )


def run_pairs(tmp_path, rankings: list[str]) -> dict:
    """The result of `pairs.py`, which needs no engine and runs to its end."""
    stage, run = stage_of(tmp_path, "pairs")
    pairs.main(stage, run, PairsArguments(rankings=rankings))
    return json.loads((stage.folder / "result.json").read_text())


def message_of(call, *args, **kwargs) -> str:
    with pytest.raises(UserError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# Rankings


BAD_ORDERS = [
    ([[0, 1, 2, 3, 3]], "field 'orders[0]' repeats response 3"),
    ([[0, 1, 2, 3, 4], [4, 0, 0, 1, 2]], "field 'orders[1]' repeats response 0"),
    ([[1, 2, 3, 4, 5]], "field 'orders[0]' has the index 5, but there are 5 responses (0 to 4)"),
    ([["a", 1, 2, 3, 4]], "field 'orders[0]' must hold indices of responses"),
    ({"a": [0]}, "field 'orders' must be a list, not an object"),
    (None, "field 'orders' is missing"),
]


@pytest.mark.parametrize(("orders", "message"), BAD_ORDERS)
def test_an_order_that_is_none_is_refused(tmp_path, model, orders, message):
    file = write(tmp_path, [*GOOD[:3], {**GOOD[3], "orders": orders}, *GOOD[4:]])
    for found in (
        message_of(run_reward, tmp_path, model, [file]),
        message_of(run_pairs, tmp_path, [file]),
    ):
        assert found.startswith(f"{file}:4: ") and message in found
    assert not (tmp_path / "run" / "pairs" / "result.json").exists()


def test_empty_and_repeated_responses_are_dropped_and_counted(tmp_path, model, capsys):
    odd = [
        {**GOOD[0], "responses": ["best", "", "fair", "poor", "worst"]},
        {**GOOD[1], "responses": ["best", "best", "fair", " best ", "worst"]},
        {**GOOD[2], "responses": ["same", "same", " ", "", "same"]},
    ]
    file = write(tmp_path, [*odd, *GOOD[3:]])
    result = run_pairs(tmp_path, [file])
    # Left: 9 whole rankings with 2·2 pairs, one of four with 4, one of three with 3.
    assert (result["pairs"], result["rankings"]) == (9 * 4 + 4 + 3, 12)
    nothing = {"rankings": 0, "responses": 0, "pairs": 0}
    assert result["read"] == {"rankings": 12, "responses": 60, "pairs": 48}
    # The third loses its two empty ones (and no pair: the other three give three), and then the
    # rest, which are identical.
    assert result["dropped"] == {
        "empty": nothing | {"seen_in": 2, "responses": 1 + 2, "pairs": 0 + 1},
        "identical": {"seen_in": 2, "rankings": 1, "responses": 2 + 3, "pairs": 1 + 3},
    }
    assert result["kept"] == {"rankings": 11, "responses": 45 + 4 + 3, "pairs": 43}
    account = json.loads((tmp_path / "run/pairs/account.json").read_text())
    assert account == {name: result[name] for name in account}
    assert "= kept" in capsys.readouterr().out
    with pytest.raises(Trains):
        run_reward(tmp_path, model, [file])
    assert "43 pairs from 12 rankings" in capsys.readouterr().out
    assert json.loads((tmp_path / "run/reward/account.json").read_text()) == account


def test_labelers_who_could_not_judge_are_absent_and_unranked_prompts_counted(tmp_path):
    rows = [
        {**GOOD[0], "orders": [None, [0, 1, 2, 3, 4], []], "labelers": ["ann", "bob", "eve"]},
        {**GOOD[1], "orders": [[[3, 4], 0], [2]], "labelers": ["bob", "ann"]},
        {**GOOD[2], "orders": [], "labelers": [], "cannot_judge": [{"labeler": "flo"}]},
        {**GOOD[3], "orders": [None, None, None]},
    ]
    result = run_pairs(tmp_path, [write(tmp_path, rows)])
    # The second: 3 and 4 before 0, the rest in no comparison: two pairs, one is level.
    assert result["pairs"] == 4 + 2
    assert result["labelers"] == {
        "orders": 1 + 2,
        "could_not_judge": 2 + 1 + 3,
        "names": 4,
        "rankings_by_orders": {"0": 2, "1": 1, "2": 1},
        # Ann ordered a single response once, and could not judge the other time.
        "of_pairs": {"people": ["bob"], "simulated": [], "ai": [], "unnamed": 0},
    }
    assert result["dropped"]["not ranked"] == {
        **{"seen_in": 3, "rankings": 2},
        **{"responses": 2 + 5 + 5, "pairs": 1 + 4 + 4},
    }
    assert result["dropped"]["tied"] == {"seen_in": 1, "rankings": 0, "responses": 0, "pairs": 1}
    assert result["prompts"] == {"read": 4, "kept": 2, "merged": 0}


def test_only_equal_responses_leave_no_pair(tmp_path):
    tied = [{**row, "orders": [[[0, 1, 2, 3, 4]]]} for row in GOOD]
    found = message_of(run_pairs, tmp_path, [write(tmp_path, tied)])
    assert found.startswith("no pair is left of 12 rankings\n") and "- tied" in found
    same = [{**row, "responses": ["a"] * 5} for row in GOOD]
    found = message_of(run_pairs, tmp_path, [write(tmp_path, same)])
    assert "not one ranking of two different responses in it" in found


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "q", ', "broken JSON at column"),
        ({"prompt": "", "chosen": "a", "rejected": "b"}, "field 'prompt' is empty"),
        ({"prompt": "q", "chosen": "a"}, "field 'rejected' is missing"),
        ({"prompt": "q", "responses": [], "orders": [[]]}, "field 'responses' is empty"),
        ({"question": "q", "answers": ["a"]}, "question"),
    ],
)
def test_a_malformed_row_is_refused(tmp_path, model, row, message):
    file = write(tmp_path, [*GOOD[:2], row, *GOOD[2:]])
    found = message_of(run_reward, tmp_path, model, [file])
    assert found.startswith(f"{file}:3: ") and message in found


def test_without_data_the_pairs_stage_must_have_run(tmp_path, model):
    found = message_of(run_reward, tmp_path, model, [])
    assert str(tmp_path / "run/pairs/pairs.jsonl") in found and "no such file" in found


def test_one_prompt_cannot_be_split(tmp_path, model):
    file = write(tmp_path, [GOOD[0]] * 3)
    assert "at least two different prompts" in message_of(run_reward, tmp_path, model, [file])


# Lengths


def test_long_prompts_are_refused_skipped_or_cut_by_choice(tmp_path, model, capsys):
    file = write(tmp_path, [{**GOOD[0], "prompt": "word " * 100}, *GOOD[1:]])
    limits = {"max_prompt_tokens": 200, "max_response_tokens": 50}
    found = message_of(
        run_reward, tmp_path, model, [file], TextArguments(long_prompts="error", **limits)
    )
    assert found.startswith(f"{file}:1: the prompt has ") and "max_prompt_tokens (200)" in found
    for choice, words in (
        ("skip", "1 long prompts skipped"),
        ("truncate", "1 long prompts truncated"),
    ):
        with pytest.raises(Trains):
            run_reward(tmp_path, model, [file], TextArguments(long_prompts=choice, **limits))
        assert words in capsys.readouterr().out


def test_nothing_left_after_filtering(tmp_path, model):
    found = message_of(
        run_reward,
        tmp_path,
        model,
        [write(tmp_path, GOOD)],
        TextArguments(max_prompt_tokens=10, max_response_tokens=50),
    )
    assert found.startswith("no pair is left (") and "long prompts skipped" in found


# Models


def test_a_model_folder_without_tokenizer(tmp_path):
    tiny_causal_lm("llama").save_pretrained(tmp_path / "bare")
    found = message_of(run_reward, tmp_path, str(tmp_path / "bare"), [write(tmp_path, GOOD)])
    assert found.startswith(f"{tmp_path / 'bare'}: ") and "tokenizer" in found


def test_stage_1_must_have_run(tmp_path):
    found = message_of(run_reward, tmp_path, "", [write(tmp_path, GOOD)])
    assert found.startswith(f"{tmp_path / 'run/models/sft'}: no such model folder; run the")


def test_adapters_on_layers_that_are_not_there(tmp_path, model):
    lora = LoraArguments(lora_rank=2, lora_targets=["c_attn"])
    found = message_of(run_reward, tmp_path, model, [write(tmp_path, GOOD)], lora=lora)
    assert "no layer of LlamaForSequenceClassification is named 'c_attn'" in found


# Sampling and simulated labelers


def run_sample(tmp_path, model: str, data: list[str], text=TEXT) -> None:
    stage, run = stage_of(tmp_path, "sample")
    settings = SampleArguments(model=model, data=data)
    defaults = ModelArguments(), text, SamplingArguments(), RolloutArguments()
    sample.main(stage, run, settings, *defaults, ZeroArguments(), CheckpointArguments())


def test_prompts_to_sample_from_are_checked(tmp_path, model):
    file = write(tmp_path, [{"prompt": "q"}, {"prompt": " "}, "["], "prompts.jsonl")
    found = message_of(run_sample, tmp_path, model, [file])
    assert f"{file}:2: field 'prompt' is empty" in found and f"{file}:3: broken JSON" in found
    file = write(tmp_path, [{"prompt": "q"}], "prompts.jsonl")
    found = message_of(run_sample, tmp_path, model, [file], TextArguments(max_prompt_tokens=5))
    assert found.startswith("no prompt is left (1 long prompts skipped)")
    assert not (tmp_path / "run/sample/samples.jsonl").exists()


@pytest.mark.parametrize("facts", [None, {}, {"source": "wiki"}, ["ads"]])
def test_simulated_labelers_know_the_embedded_domain_only(tmp_path, facts):
    stage, run = stage_of(tmp_path, "rank")
    file = write(tmp_path, [{"prompt": "q", "responses": FIVE, "facts": facts}], "samples.jsonl")
    found = message_of(rank.main, stage, run, RankArguments(samples=file))
    assert found.startswith(f"{file}:1: field 'facts' is missing, or not the embedded domain's")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"responses": None}, "field 'responses' is missing, or not a list of texts"),
        ({"responses": ["a", 3]}, "field 'responses' is missing, or not a list of texts"),
        ({"responses": FIVE}, "field 'facts' is not as the embedded domain writes it"),
    ],
)
def test_damaged_samples_of_the_embedded_domain(tmp_path, changes, said):
    stage, run = stage_of(tmp_path, "rank")
    row = {"prompt": "q", "facts": {"domain": "ads"}, **changes}
    file = write(tmp_path, [row], "samples.jsonl")
    found = message_of(rank.main, stage, run, RankArguments(samples=file))
    assert found.startswith(f"{file}:1: {said}")


# What is said of few distinct responses

EVER_SAME = SamplingArguments(top_k=1)


def test_a_prompt_without_two_distinct_responses_is_left_out_or_refused(tmp_path, model):
    stage, run = stage_of(tmp_path, "sample")
    file = write(tmp_path, [{"prompt": "q"}, {"prompt": "another"}], "prompts.jsonl")
    settings = SampleArguments(model=model, data=[file], responses=3, redraws=1)
    others = ModelArguments(), TEXT, EVER_SAME, RolloutArguments(), ZeroArguments()
    found = message_of(sample.main, stage, run, settings, *others, CheckpointArguments())
    assert found.startswith(f"{model}: it has no two distinct responses to any of 2 prompts")
    assert not (tmp_path / "run/sample/samples.jsonl").exists()


# The probe


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"prompt": "q"', "broken JSON"),
        ({"prompt": "q", "right": "yes"}, "field 'wrong' is missing"),
        ({"prompt": "q", "right": "", "wrong": "no"}, "field 'right' is empty"),
        ({"prompt": 3, "right": "yes", "wrong": "no"}, "field 'prompt' must be a string"),
    ],
)
def test_a_malformed_probe_is_refused_before_training(tmp_path, model, row, message):
    good = {"prompt": "q", "right": "yes", "wrong": "no"}
    probe = write(tmp_path, [good, row], "probe.jsonl")
    data = [write(tmp_path, GOOD)]
    found = message_of(run_reward, tmp_path, model, data, probe=probe)
    assert found.startswith(f"{probe}:2: ") and message in found
    assert "no such file" in message_of(run_reward, tmp_path, model, data, probe="gone.jsonl")
    with pytest.raises(Trains):
        run_reward(tmp_path, model, data, probe=write(tmp_path, [good], "good.jsonl"))


def test_samples_that_nobody_drew(tmp_path):
    stage, run = stage_of(tmp_path, "rank")
    found = message_of(rank.main, stage, run, RankArguments())
    assert "sample/samples.jsonl: no such file; run the stage that writes it first" in found
