"""The backends behind DeepSpeed's interface: same text, self-check, one rank and two."""

import inspect

import pytest
import torch
import torch.distributed as dist
from deepspeed.runtime.rollout import RolloutEngine, RolloutRequest, SamplingConfig

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    SamplingArguments,
    ZeroArguments,
)
from common.errors import UserError
from common.hybrid_engine.engine import HybridRollout, RolloutArguments, resolve_backend
from common.models.loading import load_causal_lm
from common.models.policy import PolicyModel
from common.training.engine import build_engine, build_frozen, optimizer_step, process_group
from tests.models import save_tiny, tiny_causal_lm
from tests.ranks import run_ranks, shard_everything

PROMPTS = [[1, 20, 30, 40, 50], [1, 60], [1, 70, 80], [1, 60], [1, 90, 91, 92, 93, 94, 95], [1, 33]]
KINDS = ["llama", "llama-gqa", "gpt2", "opt", "qwen2", "mistral"]
NEW = 11


def rollouts(model, sampling=None, **settings):
    return HybridRollout(
        model,
        sampling or SamplingArguments(generation_batch_size=4),
        RolloutArguments(**settings),
        eos_id=2,
        pad_id=0,
        max_new_tokens=NEW,
    )


def same_up_to_ties(model, first, second):
    """Whether greedy texts agree until two tokens' logits tie within rounding."""
    for prompt, a, b in zip(PROMPTS, first, second, strict=True):
        if a == b:
            continue
        step = next(i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y)
        with torch.no_grad():
            logits = model(torch.tensor([prompt + a[:step]])).logits[0, -1]
        if abs(float(logits[a[step]] - logits[b[step]])) > 1e-4:
            return False
    return True


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_native_equals_transformers_generate(kind):
    model = tiny_causal_lm(kind)
    native = rollouts(model, rollout="native").respond(PROMPTS, 0, greedy=True, check=True)
    plain = rollouts(model, rollout="generate").respond(PROMPTS, 0, greedy=True, check=True)
    assert same_up_to_ties(model, native.response_ids(), plain.response_ids())
    assert max(map(len, native.response_ids())) == NEW
    assert torch.equal(native.attention_mask, plain.attention_mask)
    torch.testing.assert_close(native.logprobs, plain.logprobs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", ["native", "generate"])
def test_a_models_own_defaults_are_not_used(backend):
    """Chat models bring top_k and temperature along; PPO must not inherit them."""
    model = tiny_causal_lm("llama")
    expected = rollouts(model, rollout=backend).respond(PROMPTS, 3).response_ids()
    model.generation_config.do_sample = True
    model.generation_config.top_k = 1
    model.generation_config.temperature = 0.01
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.eos_token_id = 50
    model.generation_config.min_p = 0.9
    model.generation_config.typical_p = 0.2
    model.generation_config.num_beams = 3
    own = model.generation_config
    assert rollouts(model, rollout=backend).respond(PROMPTS, 3).response_ids() == expected
    assert model.generation_config is own


@pytest.mark.parametrize("backend", ["native", "generate"])
def test_the_callers_random_numbers_are_left_alone(backend):
    model = tiny_causal_lm("llama")
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = rollouts(model, rollout=backend).respond(PROMPTS, 3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(
        rollouts(model, rollout=backend).respond(PROMPTS, 3).input_ids, first.input_ids
    )


def shifted(model, *, prompt: bool):
    """Positions one too large for new tokens, and perhaps for prompts, as a broken cache has it.

    Only in generation: a forward without a cache is what the check believes.
    """
    forward = model.forward

    def broken(*args, **kwargs):
        if kwargs.get("use_cache") and (prompt or kwargs["input_ids"].shape[1] == 1):
            kwargs["position_ids"] = kwargs["position_ids"] + 1
        return forward(*args, **kwargs)

    model.forward = broken
    return model


@pytest.mark.parametrize(
    ("kind", "prompt"), [("llama", False), ("gpt2", False), ("gpt2", True), ("opt", True)]
)
def test_shifted_positions_are_caught(kind, prompt):
    model = shifted(tiny_causal_lm(kind), prompt=prompt)
    message = "the backend 'native' gave token . .id .*row .* differ by .*--rollout generate"
    with pytest.raises(UserError, match=message):
        rollouts(model, rollout="native").respond(PROMPTS, 0, check=True)
    rollouts(model, rollout="native").respond(PROMPTS, 0)  # who doesn't look doesn't see


def scored(model, rollout):
    """The rollout's log-probabilities by bare forwards, padding 0."""
    found = torch.zeros_like(rollout.logprobs)
    for row, (prompt, response) in enumerate(zip(PROMPTS, rollout.response_ids(), strict=True)):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found[row, : len(response)] = logits.log_softmax(-1)[range(len(response)), response]
    return found


def test_stale_weights_are_caught():
    model = tiny_causal_lm("llama")
    engine = rollouts(model, rollout="native")
    rollout = engine.respond(PROMPTS, 0)
    engine.check(rollout, scored(model, rollout))
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.mul_(1.01)
    with pytest.raises(UserError, match="another probability than the training forward"):
        engine.check(rollout, scored(model, rollout))


def test_the_worst_token_is_named():
    model = tiny_causal_lm("llama")
    engine = rollouts(model, rollout="native")
    rollout = engine.respond(PROMPTS, 0)
    logprobs = scored(model, rollout)
    row, token = 2, 5
    logprobs[row, token] -= 0.01
    token_id = rollout.response_ids()[row][token]
    with pytest.raises(UserError, match=f"token 5 .id {token_id}. of row 2 .*0.01 nats"):
        engine.check(rollout, logprobs)
    allowed = rollouts(model, rollout_check_limit=0.02)
    allowed.check(rollout, logprobs)
    with pytest.raises(UserError, match="0.015 in the mean"):  # all of them a little
        allowed.check(rollout, logprobs - 0.015)
    for bad in (float("nan"), -float("inf")):
        logprobs[row, token] = bad
        with pytest.raises(UserError, match="differ by inf"):
            allowed.check(rollout, logprobs)


def test_which_rollouts_are_checked():
    def due(every):
        engine = rollouts(tiny_causal_lm("llama"), rollout_check_every=every)
        return [step for step in range(1, 31) if engine.is_due(step)]

    assert due(10) == [1, 10, 20, 30]
    assert due(0) == [1]


def test_backends_that_do_not_fit_are_refused():
    model = tiny_causal_lm("llama")
    assert resolve_backend("auto", model) == "native"
    model.config._attn_implementation = "eager"
    assert resolve_backend("auto", model) == "generate"
    with pytest.raises(UserError, match="eager attention.*--rollout generate"):
        resolve_backend("native", model)


def test_deepspeeds_injected_layers_are_refused_as_long_as_they_do_not_fit():
    """They answer with tuples, transformers' with hidden states; one day either may change."""
    from deepspeed.inference.config import DeepSpeedInferenceConfig
    from transformers.models.gpt2.modeling_gpt2 import GPT2Block
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer
    from transformers.models.opt.modeling_opt import OPTDecoderLayer

    assert DeepSpeedInferenceConfig().return_tuple
    for layer in (GPT2Block, LlamaDecoderLayer, OPTDecoderLayer):
        assert inspect.signature(layer.forward).return_annotation is torch.Tensor
    with pytest.raises(UserError, match="rollout: deepspeed cannot run.*--rollout native"):
        RolloutArguments(rollout="deepspeed")


@pytest.mark.parametrize("backend", ["native", "generate"])
def test_deepspeeds_interface(backend):
    model = tiny_causal_lm("llama")
    engine = rollouts(model, rollout=backend)
    assert isinstance(engine, RolloutEngine) and engine.name == backend
    request = RolloutRequest(
        torch.tensor([[0, 0, 0, 1, 20, 30], [0, 1, 60, 61, 62, 63]]),
        torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 1, 1, 1, 1]]),
    )
    greedy = SamplingConfig(max_new_tokens=7, temperature=0.0, n_samples_per_prompt=2)
    batch = engine.generate(request, greedy)
    assert batch.batch_size == 4 and batch.response_start_idx.tolist() == [6] * 4
    assert torch.equal(batch.input_ids[:, :6], request.prompt_ids.repeat_interleave(2, dim=0))
    assert torch.equal(
        batch.attention_mask[:, :6], request.prompt_attention_mask.repeat_interleave(2, dim=0)
    )
    expected = engine.respond([[1, 20, 30], [1, 60, 61, 62, 63]], 0, greedy=True).response_ids()
    for row in range(4):
        count = int(batch.attention_mask[row, 6:].sum())
        assert batch.input_ids[row, 6 : 6 + count].tolist() == expected[row // 2][:7][:count]
        assert count == min(7, len(expected[row // 2]))

    sampled = SamplingConfig(max_new_tokens=7, temperature=0.9, n_samples_per_prompt=3)
    engine.sync_weights(1)
    first, second = engine.generate(request, sampled), engine.generate(request, sampled)
    assert not torch.equal(first.input_ids, second.input_ids)
    assert len({tuple(row.tolist()) for row in first.input_ids[:3]}) == 3
    assert first.logprobs.shape == (6, first.seq_len - 6) and first.ended.shape == (6,)
    engine.sync_weights(1)
    assert torch.equal(engine.generate(request, sampled).input_ids, first.input_ids)
    engine.sync_weights(2)
    assert not torch.equal(engine.generate(request, sampled).input_ids, first.input_ids)


def adapted(folder, lora):
    """The model, with adapters that do something if there are any."""
    model = load_causal_lm(folder, ModelArguments(), LoraArguments(lora_rank=4 if lora else 0))
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
    return model


def train(engine):
    """An optimizer step that goes through everything; the rate is 0, and nothing changes."""
    ids = torch.tensor([[1, 20, 30, 2]])
    mask = torch.ones_like(ids).bool()
    optimizer_step(engine, [lambda: -engine(ids, mask, mask).logprobs.sum()], 3.0, "a test")


REQUEST = RolloutRequest(torch.tensor([[1, 60]] * 4), torch.ones(4, 2).long())


def on_ranks(folders):
    """Texts and weights of every kind, ZeRO stage and way of gathering, on this rank."""
    shard_everything()
    found = {}
    with process_group():
        for backend in ("native", "generate"):
            made = rollouts(tiny_causal_lm("llama"), rollout=backend)
            sampled = made.generate(REQUEST, SamplingConfig(max_new_tokens=8))
            found[backend] = sampled.input_ids.tolist()
        rank, world = dist.get_rank(), dist.get_world_size()
        # The second rank has one prompt only: it is done before the first.
        mine = list(range(rank, len(PROMPTS), world)) if rank == 0 else [1]
        if world == 1:
            mine = list(range(len(PROMPTS)))
        for kind, folder in folders.items():
            for zero, lora, gather in (
                ("0", False, "all"),
                ("0", True, "all"),
                ("2", True, "all"),
                ("3", False, "all"),
                ("3", True, "all"),
                ("3", False, "layers"),
                ("3", True, "layers"),
            ):
                engine = build_engine(
                    PolicyModel(adapted(folder, lora)),
                    zero=ZeroArguments(zero),
                    dtype=torch.float32,
                    optimizer=OptimizerArguments(
                        learning_rate=0.0, batch_size=world, micro_batch_size=1, weight_decay=0.0
                    ),
                    total_steps=9,
                )
                engine.train()
                train(engine)  # DeepSpeed has seen a step, and traced the order of its modules
                before = [p.detach().clone() for p in engine.module.parameters()]
                for backend in ("native", "generate"):
                    if (backend, gather) == ("generate", "layers") and lora:
                        continue
                    made = rollouts(engine, rollout=backend, gather=gather)
                    texts = [
                        made.respond(
                            [PROMPTS[i] for i in mine], 4, streams=mine, greedy=greedy, check=greedy
                        ).response_ids()
                        for greedy in (True, False)
                    ]
                    found[kind, zero, lora, gather, backend] = dict(
                        zip(mine, zip(*texts, strict=True), strict=True)
                    )
                train(engine)
                after = list(engine.module.parameters())
                assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
                assert engine.module.training
            for gather in ("all", "layers"):  # as sampling and evaluation have it
                frozen = build_frozen(
                    PolicyModel(adapted(folder, False)),
                    zero=ZeroArguments("3", offload_parameters="cpu"),
                    dtype=torch.float32,
                )
                made = rollouts(frozen, rollout="native", gather=gather)
                texts = [
                    made.respond([PROMPTS[i] for i in mine], 4, streams=mine, greedy=greedy)
                    for greedy in (True, False)
                ]
                texts = [rolled.response_ids() for rolled in texts]
                found[kind, "frozen", False, gather, "native"] = dict(
                    zip(mine, zip(*texts, strict=True), strict=True)
                )
    return found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: str(save_tiny(root / kind, kind)) for kind in ("llama-gqa", "gpt2")}


@pytest.fixture(scope="module")
def expected(folders):
    """From plain models, adapters beside their weights."""
    found = {}
    for kind, folder in folders.items():
        for lora in (False, True):
            model = adapted(folder, lora).eval()
            for greedy in (True, False):
                rolled = rollouts(model, rollout="native").respond(PROMPTS, 4, greedy=greedy)
                found[kind, lora, greedy] = rolled.response_ids()
    return found


def test_generate_leaves_an_adapted_models_defaults_alone(folders):
    model = adapted(folders["gpt2"], lora=True)
    model.get_base_model().generation_config.min_p = 0.9
    own = model.get_base_model().generation_config
    expected = rollouts(model, rollout="generate").respond(PROMPTS, 3).response_ids()
    assert model.get_base_model().generation_config is own
    own.min_p = None
    assert rollouts(model, rollout="generate").respond(PROMPTS, 3).response_ids() == expected


@pytest.mark.parametrize("ranks", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_texts_are_those_of_the_plain_model_on_any_rank(ranks, folders, expected):
    """Any ZeRO stage, with and without adapters, weights gathered at once or by layer."""
    everything = run_ranks(on_ranks, ranks, folders, start_group=False)
    for backend in ("native", "generate"):  # the same prompt four times on each rank
        texts = [tuple(row) for per_rank in everything for row in per_rank.pop(backend)]
        assert len(set(texts)) == 4 * ranks
    for per_rank in everything:
        assert len(per_rank) == len(folders) * 15
        for (kind, _, lora, _, backend), rows in per_rank.items():
            for row, (greedy, sampled) in rows.items():
                assert greedy == expected[kind, lora, True][row]
                if backend == "native":
                    assert sampled == expected[kind, lora, False][row]


def test_adapters_change_the_text(expected):
    for kind, lora, greedy in expected:
        assert expected[kind, not lora, greedy] != expected[kind, lora, greedy]


def test_the_host_waits_for_the_device_once_in_eight_tokens(monkeypatch):
    """However many rows there are; and at the end, for the layout of what was said."""
    asked = []
    for name in ("cpu", "item", "tolist", "__bool__", "__int__", "__float__"):
        original = getattr(torch.Tensor, name)

        def counted(self, *args, name=name, original=original):
            asked.append(name)
            return original(self, *args)

        monkeypatch.setattr(torch.Tensor, name, counted)
    engine = rollouts(tiny_causal_lm("llama"), SamplingArguments(), rollout="native")
    engine.respond(PROMPTS, 0)
    looks = asked.count("cpu")
    assert looks == 2  # after nine tokens, and after the eleventh and last
    assert len(asked) - looks <= 4


def test_a_response_must_have_room_for_its_end():
    with pytest.raises(UserError, match="min_response_tokens is 11.*at most 11"):
        rollouts(tiny_causal_lm("llama"), SamplingArguments(min_response_tokens=NEW))
