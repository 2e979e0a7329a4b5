"""DeepSpeed's engines in and out of checkpoints: bit for bit, and on other numbers of ranks."""

import shutil

import pytest
import torch

from common.config.arguments import LoraArguments, ModelArguments, OptimizerArguments
from common.models.loading import load_causal_lm
from common.models.policy import PolicyModel
from common.training.distributed import all_reduce_sum, rank, world_size
from common.training.engine import build_engine, gathered_parameters, optimizer_step
from common.training.resume.checkpoints import CheckpointArguments, Checkpoints
from tests.models import save_tiny
from tests.ranks import run_ranks, shard_everything

BATCH, LENGTH, STEPS = 4, 6, 6
SETTINGS = OptimizerArguments(
    learning_rate=0.02, weight_decay=0.5, batch_size=BATCH, micro_batch_size=1, warmup_ratio=0.3
)
"""Matrices decay, biases and norms do not: two groups of parameters."""
QUIET = {"checkpoint_minutes": 0, "checkpoint_epochs": False}
KINDS = [
    *(("0", "all weights"), ("0", "LoRA"), ("2", "all weights")),
    *(("3", "all weights"), ("3", "LoRA"), ("3 whole", "all weights"), ("3_offload", "LoRA")),
]


def train(folder, root, zero, lora, until):
    """Goes on to step `until`; returns losses by step, all weights, and how far they moved."""
    torch.manual_seed(5)
    zero, _, whole = zero.partition(" ")
    adapters = LoraArguments(lora_rank=2) if lora == "LoRA" else None
    engine = build_engine(
        PolicyModel(load_causal_lm(folder, ModelArguments(), adapters)),
        zero=zero,
        dtype=torch.float32,
        optimizer=SETTINGS,
        total_steps=STEPS,
        whole=bool(whole),
    )
    made = Checkpoints(root, CheckpointArguments(**QUIET), engines={"model": engine}, shared={})
    done, losses = made.restore(), {}
    start = weights_of(engine)
    mask = torch.ones(1, LENGTH, dtype=torch.bool)
    for step in range(done + 1, until + 1):
        ids = torch.randint(0, 40, (BATCH, LENGTH), generator=torch.Generator().manual_seed(step))
        mine = ids[rank() :: world_size()]
        sums = []

        def loss(row, sums=sums):
            value = -engine(row[None], mask, mask).logprobs.sum()
            sums.append(value.detach())
            return value

        optimizer_step(engine, [lambda r=r: loss(r) for r in mine], BATCH * LENGTH, "here")
        losses[step] = float(all_reduce_sum(torch.stack(sums).sum())) / BATCH / LENGTH
        made.after(step, {}, last=step == until)
    made.wait()
    weights = weights_of(engine)
    return losses, weights, float((weights - start).abs().max())


def weights_of(engine):
    with gathered_parameters(engine.module):
        return torch.cat([p.detach().flatten().clone() for p in engine.module.parameters()])


def train_all(folder, parts):
    """All kinds, one after another in the same processes: `parts` is [(run, until), …].

    Returns:
        what the last part found, by kind.
    """
    shard_everything()
    found = {}
    for kind in KINDS:
        for root, until in parts:
            found[kind] = train(folder, root / "_".join(kind).replace(" ", "_"), *kind, until)
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By name, what each rank found (see `train`), of each kind."""
    root = tmp_path_factory.mktemp("engines")
    folder = str(save_tiny(root / "llama"))

    def run(ranks, *parts):
        named = [(root / name, until) for name, until in parts]
        return run_ranks(train_all, ranks, folder, named, timeout=240.0)

    found = {}
    for n in (1, 2):
        found[f"through {n}"] = run(n, (f"parts_{n}", 2), (f"through_{n}", STEPS))
    shutil.copytree(root / "parts_2", root / "elastic")
    found |= {f"parts {n}": run(n, (f"parts_{n}", STEPS)) for n in (1, 2)}
    found["one rank"] = run(1, ("elastic", 4))
    found["two again"] = run(2, ("elastic", STEPS))
    found["left over"] = [str(p) for p in root.glob("*/*/.*")]
    return found


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("kind", KINDS, ids=", ".join)
def test_a_resumed_engine_ends_bit_for_bit_as_one_that_went_through(runs, ranks, kind):
    for through, parts in zip(runs[f"through {ranks}"], runs[f"parts {ranks}"], strict=True):
        (losses, weights, _), (again, resumed, moved) = through[kind], parts[kind]
        assert again == {step: losses[step] for step in (3, 4, 5, 6)}
        assert resumed.equal(weights)
        assert moved > 0.001


@pytest.mark.parametrize("kind", KINDS, ids=", ".join)
def test_two_ranks_then_one_then_two_train_as_two_throughout(runs, kind):
    through = runs["through 2"][0][kind]
    one, two = runs["one rank"][0][kind], runs["two again"][0][kind]
    assert (list(one[0]), list(two[0])) == ([3, 4], [5, 6])
    for step, loss in {**one[0], **two[0]}.items():
        assert loss == pytest.approx(through[0][step], abs=2e-6), step
    for rank_found in runs["two again"]:
        torch.testing.assert_close(rank_found[kind][1], through[1], atol=2e-5, rtol=0)


def test_what_a_conversion_needed_is_gone(runs):
    assert runs["left over"] == []


def saved_weights(folder, root):
    """Names of the weights in a checkpoint of adapters."""
    train(folder, root, "0", "LoRA", 1)
    file = root / "step_00000001" / "model" / "state" / "mp_rank_00_model_states.pt"
    return sorted(torch.load(file, weights_only=False)["module"])


def test_frozen_weights_are_not_in_the_checkpoint(tmp_path):
    """They come from the folder that the run started from; adapters alone are small."""
    folder = str(save_tiny(tmp_path / "llama"))
    [names] = run_ranks(saved_weights, 1, folder, tmp_path / "run")
    # The head is the frozen embeddings by another name, which DeepSpeed does not notice.
    assert [n for n in names if "lora_" not in n] == ["model.base_model.model.lm_head.weight"]
    assert len(names) > 2
