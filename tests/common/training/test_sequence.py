"""Rows that ranks share: the loss and its gradient are those of one rank that has them whole."""

import pytest
import torch

from common.config.arguments import LoraArguments, ModelArguments, OptimizerArguments, ZeroArguments
from common.errors import UserError
from common.models.loading import load_causal_lm
from common.models.policy import PolicyModel
from common.training.engine import build_engine, process_group
from common.training.sequence import own_slice, share_sequences
from common.training.sft import SFTObjective
from common.training.supervised import evaluate_supervised, supervised_step
from tests.common.training.plain import sft_examples
from tests.models import save_tiny, tiny_causal_lm
from tests.ranks import run_ranks, shard_everything

OPTIMIZER = OptimizerArguments(
    learning_rate=0.01, batch_size=8, micro_batch_size=2, warmup_ratio=0.0, lr_schedule="constant"
)


def train(folder, sequence_ranks, zero, settings, lora):
    """Metrics of two steps, and the sums of an evaluation after them."""
    shard_everything()
    with process_group():
        torch.manual_seed(3)
        model = PolicyModel(load_causal_lm(folder, settings, lora), 300, sequence_ranks)
        rows = share_sequences(model, sequence_ranks, OPTIMIZER)
        engine = build_engine(
            model,
            zero=ZeroArguments(zero),
            dtype=torch.float32,
            optimizer=OPTIMIZER,
            total_steps=2,
            sequence_ranks=sequence_ranks,
        )
        engine.train()
        objective = SFTObjective(sft_examples(), 0)
        steps = [
            supervised_step(engine, objective, OPTIMIZER, 0, step, sequence_ranks)
            for step in (1, 2)
        ]
        return steps, evaluate_supervised(engine, objective, rows, sequence_ranks)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return str(save_tiny(tmp_path_factory.mktemp("models") / "llama", "llama"))


@pytest.mark.parametrize(
    ("ranks", "sequence_ranks", "zero", "checkpointing", "rank"),
    [
        (2, 2, "3", True, 0),
        pytest.param(2, 2, "0", False, 0, marks=pytest.mark.slow),
        pytest.param(4, 2, "2", False, 4, marks=pytest.mark.slow),
    ],
)
def test_shared_rows_give_the_step_of_whole_ones(
    folder, ranks, sequence_ranks, zero, checkpointing, rank
):
    settings = ModelArguments(gradient_checkpointing=checkpointing)
    lora = LoraArguments(lora_rank=rank)
    alone = run_ranks(train, 1, folder, 1, "0", settings, lora, start_group=False)
    shared = run_ranks(
        train, ranks, folder, sequence_ranks, zero, settings, lora, start_group=False
    )
    (steps, (sums, weight)), *_ = alone
    assert steps[1]["train/loss"] < steps[0]["train/loss"]
    for found, (found_sums, found_weight) in shared:
        for here, there in zip(found, steps, strict=True):
            assert here == pytest.approx(there, rel=2e-4)
        assert found_sums == pytest.approx(sums, rel=2e-4) and found_weight == weight


@pytest.mark.parametrize("ranks", [2, 3, 5])
def test_slices_hold_every_token_once(monkeypatch, ranks):
    ids = torch.arange(1, 15).view(2, 7)
    mask = torch.ones_like(ids, dtype=torch.bool)
    mask[1, 4:] = False
    found = torch.zeros_like(ids)
    for number in range(ranks):
        monkeypatch.setattr("common.training.sequence.rank", lambda n=number: 4 * ranks + n)
        inputs, places = own_slice(ids, mask, ranks)
        assert inputs["input_ids"].shape == (2, -(-7 // ranks)) and inputs["attention_mask"] is None
        for row, column in (places >= 0).nonzero().tolist():
            place = int(places[row, column])
            assert int(inputs["position_ids"].flatten()[place]) == column
            found[row, column] += inputs["input_ids"].flatten()[place]
    assert torch.equal(found, ids * mask)


@pytest.mark.parametrize(
    ("kind", "ranks", "message"),
    [
        ("llama", 3, "sequence_ranks is 3, but 4 ranks do not divide"),
        ("opt", 2, "opt models are not supported by the installed DeepSpeed"),
        ("gpt2", 2, "gpt2 models are not supported"),
        ("mistral", 2, "mistral models do not attend to the whole row"),
    ],
)
def test_what_cannot_be_shared_is_refused(monkeypatch, kind, ranks, message):
    monkeypatch.setattr("common.training.sequence.world_size", lambda: 4)
    model = tiny_causal_lm(kind)
    if kind == "mistral":
        model.config.sliding_window = 4
    with pytest.raises(UserError, match=message):
        share_sequences(model, ranks, OPTIMIZER)


@pytest.mark.parametrize("kind", ["opt", "gpt2"])
def test_what_is_refused_as_unsupported_still_is_so(monkeypatch, kind):
    """When DeepSpeed learns to share these, the refusal must go."""
    from deepspeed.runtime.sequence_parallel import parallel_state_sp, ulysses_sp

    monkeypatch.setattr(parallel_state_sp, "initialize_sequence_parallel", lambda **_: None)
    monkeypatch.setattr(parallel_state_sp, "get_sequence_parallel_group", lambda: None)
    model = tiny_causal_lm(kind)
    with pytest.raises(AttributeError, match="num_key_value_heads"):
        ulysses_sp.UlyssesSPAttentionHF.register_with_transformers(model, "sdpa", 2, 1)
