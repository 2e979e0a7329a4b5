"""DeepSpeed's engines in and out of checkpoints: bit for bit, and on other numbers of ranks."""

import functools
import shutil

import pytest
import torch

from common.config.arguments import LoraArguments, ModelArguments, OptimizerArguments
from common.errors import UserError
from common.models.loading import load_causal_lm
from common.models.policy import PolicyModel
from common.training.distributed import all_reduce_sum, rank, world_size
from common.training.engine import build_engine, gathered_parameters, optimizer_step
from common.training.resume.arguments import CheckpointArguments
from common.training.resume.checkpoints import Checkpoints
from common.training.resume.folders import damage, size_of
from tests.disks import small_disk
from tests.models import save_tiny
from tests.ranks import run_ranks, shard_everything, zero_of

BATCH, LENGTH, STEPS = 4, 6, 6
SETTINGS = OptimizerArguments(
    learning_rate=0.02, weight_decay=0.5, batch_size=BATCH, micro_batch_size=1, warmup_ratio=0.3
)
"""Matrices decay, biases and norms do not: two groups of parameters."""
QUIET = {"checkpoint_minutes": 0, "checkpoint_epochs": False}
KINDS = [("0", "all weights"), ("2", "all weights"), ("3", "LoRA"), ("3 whole", "all weights")]
SLOW_KINDS = [("0", "LoRA"), ("3", "all weights"), ("3 offload", "LoRA"), ("1", "all weights")]
ALL_KINDS = [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in SLOW_KINDS)]


def train(folder, root, zero, lora, until):
    """Goes on to step `until`; returns losses by step, all weights, and how far they moved."""
    torch.manual_seed(5)
    whole, zero = zero.endswith("whole"), zero.removesuffix(" whole")
    adapters = LoraArguments(lora_rank=2) if lora == "LoRA" else None
    engine = build_engine(
        PolicyModel(load_causal_lm(folder, ModelArguments(), adapters)),
        zero=zero_of(zero),
        dtype=torch.float32,
        optimizer=SETTINGS,
        total_steps=STEPS,
        whole=whole,
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


def train_all(folder, kinds, parts):
    """Some kinds, one after another in the same processes: `parts` is [(run, until), …].

    Run directories have names that DeepSpeed would take for patterns.

    Returns:
        what the last part found, by kind.
    """
    shard_everything()
    found = {}
    for kind in kinds:
        for root, until in parts:
            found[kind] = train(folder, root / f"[{kind[0]}] ({kind[1]}+)", *kind, until)
    return found


class Runs:
    """Runs of some kinds, each made when it is first asked for.

    Each is a list, of each rank, of what `train` returned, by kind.
    """

    def __init__(self, root, kinds) -> None:
        self.root, self.kinds = root, kinds
        self.folder = str(save_tiny(root / "llama"))

    def run(self, ranks, *parts):
        named = [(self.root / name, until) for name, until in parts]
        return run_ranks(train_all, ranks, self.folder, self.kinds, named, timeout=240.0)

    @functools.cache  # noqa: B019 - as long as the tests
    def through(self, ranks):
        """Undisturbed; a run that ends after two steps is left beside it."""
        return self.run(ranks, (f"parts_{ranks}", 2), (f"through_{ranks}", STEPS))

    @functools.cache  # noqa: B019
    def elastic(self):
        """Two ranks, then one, then two: the losses of the latter two parts."""
        self.through(2)
        shutil.copytree(self.root / "parts_2", self.root / "elastic")
        return self.run(1, ("elastic", 4)), self.run(2, ("elastic", STEPS))

    @functools.cache  # noqa: B019
    def resumed(self, ranks):
        """What goes on where the first two steps ended."""
        self.through(ranks)
        if ranks == 2:
            self.elastic()  # takes a copy of these two steps
        return self.run(ranks, (f"parts_{ranks}", STEPS))


@pytest.fixture(scope="module")
def runs_with(tmp_path_factory):
    """The runs among which a kind is."""
    usual, slow = (Runs(tmp_path_factory.mktemp("engines"), k) for k in (KINDS, SLOW_KINDS))
    return lambda kind: usual if kind in KINDS else slow


@pytest.mark.parametrize("ranks", [2, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ALL_KINDS, ids=", ".join)
def test_a_resumed_engine_ends_bit_for_bit_as_one_that_went_through(runs_with, ranks, kind):
    runs = runs_with(kind)
    for through, parts in zip(runs.through(ranks), runs.resumed(ranks), strict=True):
        (losses, weights, _), (again, resumed, moved) = through[kind], parts[kind]
        assert again == {step: losses[step] for step in (3, 4, 5, 6)}
        assert resumed.equal(weights)
        assert moved > 0.001


@pytest.mark.parametrize("kind", ALL_KINDS, ids=", ".join)
def test_two_ranks_then_one_then_two_train_as_two_throughout(runs_with, kind):
    runs = runs_with(kind)
    through = runs.through(2)[0][kind]
    on_one, on_two = runs.elastic()
    one, two = on_one[0][kind], on_two[0][kind]
    assert (list(one[0]), list(two[0])) == ([3, 4], [5, 6])
    for step, loss in {**one[0], **two[0]}.items():
        assert loss == pytest.approx(through[0][step], abs=2e-6), step
    for rank_found in on_two:
        torch.testing.assert_close(rank_found[kind][1], through[1], atol=2e-5, rtol=0)


def test_what_a_conversion_needed_is_gone(runs_with):
    runs = runs_with(KINDS[0])
    runs.elastic()
    assert not list(runs.root.glob("*/*/.*"))


def saved_weights(folder, root):
    """Names of the weights in a checkpoint of adapters, beside which is one of all weights."""
    train(folder, root / "all", "0", "all weights", 1)
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


def fill(folder, disk):
    """Steps on a disk with room for one checkpoint whose free space nobody looks at."""
    Checkpoints._check_room = lambda self: None  # a quota, say, which it does not show
    for until in (1, 2):
        try:
            train(folder, disk / "run", "0", "all weights", until)
        except UserError as error:
            return until, str(error)
    return 3, ""


def test_deepspeeds_writer_on_a_full_disk(tmp_path):
    folder = str(save_tiny(tmp_path / "llama"))
    [_] = run_ranks(saved_weights, 1, folder, tmp_path / "run")
    size = size_of(tmp_path / "run" / "all" / "step_00000001") // 1024
    with small_disk(tmp_path / "disk", size * 3 // 2 + 64) as disk:
        [(step, message)] = run_ranks(fill, 1, folder, disk)
        assert step == 2 and "step 2 could not be written" in message, message
        assert "step 1 is whole" in message
        assert damage(disk / "run" / "step_00000001") is None
