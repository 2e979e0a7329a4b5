"""Plans of whole stages from settings: what is in memory when, how many steps, what would help."""

import importlib
from dataclasses import replace

import pytest

from common.config.parsing import parse_arguments, resolved_settings
from common.config.pipeline import MODULES
from common.errors import UserError
from common.zero.plan.advice import advise
from common.zero.plan.arguments import PlanArguments
from common.zero.plan.cards import CARDS, Machines, machines
from common.zero.plan.report import describe
from common.zero.plan.settings import Job
from common.zero.plan.stages import plan_stage
from common.zero.plan.states import CACHE, OPTIMIZER, WEIGHTS, size_of
from common.zero.plan.trace import ACTIVATIONS
from tests.configs import write_config

GIB = 2**30


def job(stage, *options, ranks=1, card="H100-80G", nodes=1):
    types = importlib.import_module(MODULES[stage]).ARGUMENTS
    groups = parse_arguments((*types, PlanArguments), stage, list(options))
    return Job(resolved_settings(*groups), Machines(CARDS[card], nodes, ranks))


def plan(stage, *options, **where):
    return plan_stage(stage, job(stage, *options, **where))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return str(write_config(tmp_path_factory.mktemp("opt"), "facebook/opt-125m"))


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    return str(write_config(tmp_path_factory.mktemp("llama"), "meta-llama/Llama-3.1-8B"))


def test_one_rank_in_bf16_holds_two_bytes_a_weight_and_twelve_of_its_optimizer(small):
    found = plan("sft", "--model", small, "--zero", "0")
    rest = found.phases["forward"]
    assert rest[WEIGHTS] == 2 * 125_239_296 and rest[OPTIMIZER] == 12 * 125_239_296
    assert found.fits and found.peak == max(map(size_of, found.phases.values()))


def test_steps_are_counted_from_the_data_or_as_told(small, tmp_path):
    file = tmp_path / "data.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n' * 100)
    options = ("--model", small, "--batch_size", "32", "--epochs", "3")
    assert plan("sft", *options, "--data", str(file)).units == 3 * 4
    assert plan("sft", *options, "--plan_examples", "64").units == 3 * 2
    unknown = plan("sft", *options, "--data", "somebody/data")
    assert unknown.units is None and unknown.seconds is None
    assert "--plan_examples" in describe(unknown)


def test_flops_and_traffic_of_a_step_by_hand(large):
    options = ("--model", large, "--batch_size", "16", "--micro_batch_size", "1")
    step = plan("sft", *options, "--zero", "3", ranks=8).unit
    assert step.tokens == 16 * 1024
    layers = 32 * (2 * 4096**2 + 2 * 4096 * 1024 + 3 * 4096 * 14336)
    rows = 2  # of each rank
    by_hand = 3 * rows * (2 * layers * 1024 + 2 * 128256 * 4096 * 512)
    attention = 3 * rows * 32 * 4 * 4096 * 1024 * 512
    assert step.flops == pytest.approx(by_hand + attention, rel=0.01)
    # Two micro-batches: weights are gathered twice in each, gradients sent once, 7/8 of 2 bytes.
    assert step.sent_bytes == pytest.approx(2 * (2 + 1) * 8_030_261_248 * 2 * 7 / 8)
    whole = plan("sft", *options, "--zero", "0", ranks=8).unit
    assert whole.sent_bytes == pytest.approx(2 * 8_030_261_248 * 2 * 7 / 8)


def test_cache_of_sampling_by_hand(large):
    options = ("--model", large, "--generation_batch_size", "10", "--responses", "5")
    found = plan("sample", *options, "--max_prompt_tokens", "100", "--max_response_tokens", "28")
    a_token = 2 * 2 * 32 * 8 * 128  # keys and values of 8 heads of 128 in 32 layers, bf16
    # Ten rows of 128 tokens; and two prompts, as they were read.
    assert found.phases["sampling"][CACHE] in (10 * 128 * a_token, (10 * 128 + 2 * 100) * a_token)
    assert found.phases["sampling"][WEIGHTS] == 2 * 8_030_261_248


def test_four_models_lie_beside_each_other_and_one_base_is_there_once(small):
    options = ("--actor", small, "--reward", small, "--lora_rank", "2", "--zero", "0")
    options += ("--micro_batch_size", "1", "--mini_batch_size", "4", "--rollout_batch_size", "4")
    four = plan("rlhf", *options).phases["training the actor"][WEIGHTS]
    one = plan("rlhf", *options, "--one_base", "true").phases["training the actor"][WEIGHTS]
    base = 2 * 125_239_296  # bytes; OPT's head is its embeddings, a scalar model lacks nothing
    assert 4 * base < four < 4.05 * base
    assert base < one < 1.05 * base


@pytest.mark.parametrize("options", [("--critic_from", "reward"), ("--one_base", "true")])
def test_what_needs_a_reward_model_is_refused_without_one(small, options):
    options = (*options, "--lora_rank", "8", "--reward", "python:rules.py:polite")
    with pytest.raises(UserError, match="no source of rewards is a model"):
        plan("rlhf", "--actor", small, *options)


def test_rewards_that_are_no_models_take_no_memory_and_several_models_take_theirs(small):
    options = ("--actor", small, "--zero", "0")
    several = plan("rlhf", *options, "--reward", small, small).models
    assert set(several) == {"actor", "critic", "reference", "reward", "reward 2"}
    none = plan("rlhf", *options, "--reward", "python:file.py:score")
    assert set(none.models) == {"actor", "critic", "reference"} and none.phases["scoring"]


def test_averaged_weights_are_fp32_on_the_host_and_frozen_layers_take_half_a_byte(small):
    options = ("--actor", small, "--reward", small, "--zero", "0")
    averaged = plan("rlhf", *options, "--ema_decay", "0.99")
    assert averaged.host == {"average": 4 * 125_239_296}
    lora = ("--model", small, "--lora_rank", "1", "--zero", "0")
    whole = plan("sft", *lora).phases["forward"][WEIGHTS]
    few = plan("sft", *lora, "--base_4bit", "true").phases["forward"][WEIGHTS]
    layers = 12 * (4 * 768 * 768 + 2 * 768 * 3072)
    assert whole - few == pytest.approx(layers * (2 - 4.127 / 8), rel=0.02)


def test_the_best_weights_of_an_early_stop_are_an_fp32_copy_on_the_host(small, monkeypatch):
    def both(**where):
        options = ("--model", small, "--zero", "0")
        return (plan("reward", *options, *more, **where) for more in ((), ("--patience", "3")))

    without, stopping = both()
    assert stopping.host == {"best weights": 4 * stopping.models["model"].trained}
    assert stopping.phases == without.phases and not without.host
    monkeypatch.setitem(CARDS, "CPU", replace(CARDS["H100-80G"], name="CPU", is_gpu=False))
    without, stopping = both(card="CPU")
    more = {n: stopping.totals[n] - size for n, size in without.totals.items()}
    assert more.pop("loading") == 0 and set(more.values()) == {4 * stopping.models["model"].trained}


def test_more_ranks_and_checkpointing_never_take_more(small):
    def peak(*options, **where):
        batch = ("--batch_size", "64", "--micro_batch_size", "4")
        return plan("sft", "--model", small, *batch, *options, **where)

    for zero in "123":
        peaks = [peak("--zero", zero, ranks=n).peak for n in (1, 2, 4, 8)]
        assert peaks == sorted(peaks, reverse=True)
    plain, saving = (
        peak("--gradient_checkpointing", on, "--zero", "2").phases["backward"]
        for on in ("false", "true")
    )
    assert saving[ACTIVATIONS] < 0.5 * plain[ACTIVATIONS]


def test_advice_names_settings_that_do_make_it_fit(large):
    options = ("--model", large, "--batch_size", "8", "--micro_batch_size", "1")
    options += ("--max_prompt_tokens", "256", "--max_response_tokens", "256", "--zero", "2")
    found = plan("sft", *options)
    assert not found.fits
    helpful = [lever for lever in advise(found) if lever.fits]
    assert "--lora_rank 64" in [lever.option for lever in helpful]
    for lever in helpful:
        again = plan("sft", *options, *lever.option.split())
        assert again.fits and again.peak == lever.peak
    text = describe(found)
    assert "does not fit" in text and "--lora_rank 64" in text


def test_batches_that_do_not_come_out_even_are_refused_before_anything_begins(small):
    with pytest.raises(UserError, match="batch_size 10"):
        plan("sft", "--model", small, "--batch_size", "10", "--micro_batch_size", "4", ranks=4)


def test_models_that_do_not_exist_yet_have_the_shape_that_is_passed_on(small, tmp_path):
    run = ("--run", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="--plan_model"):
        plan("rlhf", *run)
    for stage in ("sample", "reward", "rlhf", "dpo", "evaluation"):
        found = plan(stage, *run, "--plan_model", small)
        assert all(c.weights > 80e6 for c in found.models.values())
    assert not (tmp_path / "nothing").exists()


def test_machines_are_the_ones_asked_for_or_at_hand(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "16")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    here = machines("", 0, 0)
    assert (here.nodes, here.ranks_per_node, here.ranks) == (4, 4, 16)
    wished = machines("A100-80G", 2, 8)
    assert wished.ranks == 16 and wished.card.memory < 80 * GIB
    assert wished.link == wished.card.network < replace(wished, nodes=1).link
    with pytest.raises(UserError, match="H100-80G"):
        machines("H100", 0, 0)


@pytest.mark.parametrize("stage", ["sft", "sample", "reward", "rlhf", "dpo", "evaluation"])
def test_every_plan_is_told_in_words(stage, small):
    text = describe(
        plan(
            stage,
            "--run",
            "/nowhere",
            "--plan_model",
            small,
            "--plan_examples",
            "9",
            *(["--model", small] if stage == "sft" else []),
        )
    )
    for word in ("H100-80G", "weights", "It fits", "tokens", "Assumed: 40%"):
        assert word in text


def test_sampling_that_does_not_fit_has_its_levers_and_zero_3_spreads_its_weights(large):
    options = ("--model", large, "--generation_batch_size", "512", "--gather", "layers")
    whole = plan("sample", *options, "--zero", "0", ranks=8, card="A100-40G")
    assert not whole.fits
    helpful = [lever.option for lever in advise(whole)]
    assert "--generation_batch_size 256" in helpful and "--zero 3" in helpful
    spread = plan("sample", *options, "--zero", "3", ranks=8, card="A100-40G")
    assert spread.phases["sampling"][WEIGHTS] == -(-8_030_261_248 // 8) * 2
