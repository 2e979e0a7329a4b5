"""Generation from a model that trains under ZeRO: whole weights inside, nothing changed after."""

import pytest
import torch
import torch.distributed as dist

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    SamplingArguments,
    ZeroArguments,
)
from common.hybrid_engine import phases as phases_module
from common.hybrid_engine.generation import sample_responses
from common.hybrid_engine.phases import HOOK_TABLES, gathers_whole, generation_phase
from common.models.loading import load_causal_lm
from common.training.engine import build_engine, optimizer_step, process_group
from tests.models import save_tiny, tiny_causal_lm
from tests.ranks import run_ranks, shard_everything

# Ranks generate for different prompts, and one much longer than the other.
PROMPTS = [[[1, 20, 30, 40, 50], [1, 60]], [[1, 70, 80], [1, 90, 95, 99]]]
NEW_TOKENS = [3, 12]


def generated(model, rank):
    return sample_responses(
        model,
        PROMPTS[rank],
        eos_id=2,
        pad_id=0,
        max_new_tokens=NEW_TOKENS[rank],
        sampling=SamplingArguments(),
        seed=0,
        greedy=True,
    ).response_ids()


def new_engine(folder, zero):
    return build_engine(
        load_causal_lm(folder, ModelArguments()),
        zero=ZeroArguments(zero),
        dtype=torch.float32,
        optimizer=OptimizerArguments(
            learning_rate=1e-2,
            lr_schedule="constant",
            warmup_ratio=0.0,
            batch_size=4,
            micro_batch_size=1,
        ),
        total_steps=10,
    )


def train(engine, step):
    """One optimizer step of two micro-batches of random tokens; this rank's summed loss."""
    generator = torch.Generator().manual_seed(10 * step + dist.get_rank())
    losses = []

    def micro():
        ids = torch.randint(3, 259, (1, 9), generator=generator)
        logits = engine(input_ids=ids, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="sum")
        losses.append(float(loss.detach()))
        return loss

    optimizer_step(engine, [micro, micro], 32, "the only step")
    return losses


def state(engine):
    """What a phase must leave as it was: mode, hooks (with their order), and what is held here."""
    hooks = {
        (name, table): [(key, id(hook)) for key, hook in getattr(module, table).items()]
        for name, module in engine.module.named_modules()
        for table in HOOK_TABLES
    }
    return engine.module.training, hooks, [p.numel() for p in engine.module.parameters()]


def phases(folder):
    """What this rank sees under ZeRO-3."""
    shard_everything()
    found = {}
    with process_group():
        rank = dist.get_rank()
        never, engine = new_engine(folder, "3"), new_engine(folder, "3")
        engine.train(), never.train()
        before = state(engine)
        with generation_phase(engine) as model:
            found["weights"] = {n: p.detach().clone() for n, p in model.named_parameters()}
            found["inside"] = (
                model.training,
                sum(len(getattr(m, table)) for m in model.modules() for table in HOOK_TABLES),
            )
            found["text"] = generated(model, rank)
        found["held outside"] = sum(before[2])
        found["hooks"] = sum(map(len, before[1].values()))
        found["left as it was"] = [state(engine) == before]
        losses = [(train(engine, 1), train(never, 1))]
        before = state(engine)
        try:
            with generation_phase(engine) as model:
                generated(model, rank)
                raise KeyError("of the body")
        except KeyError as error:
            found["raised"] = str(error)
        found["left as it was"].append(state(engine) == before)
        losses += [(train(engine, step), train(never, step)) for step in (2, 3)]
        with generation_phase(engine) as model, generation_phase(never) as other:
            found["text after training"] = generated(model, rank), generated(other, rank)
            found["weights agree"] = all(
                torch.equal(a, b)
                for a, b in zip(model.parameters(), other.parameters(), strict=True)
            )
            found["trained weights"] = {n: p.detach().clone() for n, p in model.named_parameters()}
        engine.eval()
        with generation_phase(engine):
            pass
        found["still evaluates"] = not engine.module.training
    return {**found, "losses": losses}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("model") / "gpt2", "gpt2"))


@pytest.fixture(scope="module")
def seen(folder):
    return run_ranks(phases, 2, folder, start_group=False)


def test_weights_are_whole_inside_and_sharded_outside(seen, folder):
    original = dict(load_causal_lm(folder, ModelArguments()).named_parameters())
    for per_rank in seen:
        assert per_rank["held outside"] == 0
        assert per_rank["weights"].keys() == original.keys()
        assert all(torch.equal(per_rank["weights"][n], p) for n, p in original.items())


def test_text_is_that_of_the_plain_model_though_ranks_stop_at_different_lengths(seen, folder):
    model = load_causal_lm(folder, ModelArguments()).eval()
    for rank, per_rank in enumerate(seen):
        assert per_rank["text"] == generated(model, rank)
        assert max(map(len, per_rank["text"])) == NEW_TOKENS[rank]
        assert len({token for row in per_rank["text"] for token in row}) >= 3


def test_inside_there_are_no_hooks_and_no_training_mode(seen):
    for per_rank in seen:
        assert per_rank["hooks"] > 0
        assert per_rank["inside"] == (False, 0)


def test_everything_is_put_back_also_when_the_body_raises(seen):
    for per_rank in seen:
        assert per_rank["left as it was"] == [True, True]
        assert "of the body" in per_rank["raised"]
        assert per_rank["still evaluates"]


def test_training_goes_on_as_if_nothing_had_been_generated(seen):
    for per_rank in seen:
        for with_phases, without in per_rank["losses"]:
            assert with_phases == without
        first, last = per_rank["losses"][0][0], per_rank["losses"][-1][0]
        assert first != last
        assert per_rank["weights agree"]


def test_generation_uses_the_weights_of_the_moment(seen):
    """The text after training is that of a plain model with the trained weights."""
    for rank, per_rank in enumerate(seen):
        model = tiny_causal_lm("gpt2")
        model.load_state_dict(per_rank["trained weights"], strict=False)
        after, without_phases = per_rank["text after training"]
        assert after == without_phases == generated(model, rank) != per_rank["text"]


def test_a_plain_model_only_changes_its_mode():
    model = tiny_causal_lm("gpt2").train()
    calls = []
    handle = model.register_forward_pre_hook(lambda *_: calls.append(1))
    with generation_phase(model) as inside:
        assert inside is model and not model.training
        generated(model, 0)
    assert model.training and calls  # its own hooks stay: they are not ZeRO's
    handle.remove()


def test_adapters_are_merged_or_stay_beside_their_weights(tmp_path):
    lora = LoraArguments(lora_rank=2)
    model = load_causal_lm(str(save_tiny(tmp_path, "llama")), ModelArguments(), lora).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    layer = model.get_base_model().model.layers[0].mlp.up_proj
    weight, texts = layer.get_base_layer().weight.clone(), []
    for merge in (True, False):
        with generation_phase(model, merge=merge) as inside:
            assert torch.equal(layer.get_base_layer().weight, weight) != merge
            texts.append(generated(inside, 0))
    assert texts[0] == texts[1]


def test_weights_are_gathered_at_once_where_they_fit(monkeypatch):
    model = tiny_causal_lm("gpt2")
    assert gathers_whole(model, "auto")  # not sharded
    parameter = next(model.parameters())
    parameter.ds_id, parameter.ds_numel = 0, 10**6
    others = sum(p.numel() for p in model.parameters() if p is not parameter)
    needed = 4 * (10**6 + others)
    for free, fits in ((needed / phases_module.FREE_SHARE * 1.01, True), (needed, False)):
        monkeypatch.setattr(phases_module, "free_memory", lambda free=free: free)
        assert gathers_whole(model, "auto") == fits
        assert gathers_whole(model, "all") and not gathers_whole(model, "layers")
