"""Plans of batches: everything once an epoch, the same on every rank."""

import numpy as np
import pytest

from common.errors import UserError
from common.training.batching import (
    FILLER,
    BatchShape,
    micro_batches,
    step_indices,
    steps_per_epoch,
    stream_indices,
)


def test_an_epoch_visits_every_example_once_and_fills_up_the_last_step():
    steps = steps_per_epoch(10, 4)
    assert steps == 3
    seen = np.concatenate([step_indices(10, 4, seed=1, step=s) for s in range(steps)])
    assert sorted(i for i in seen.tolist() if i != FILLER) == list(range(10))
    assert (seen == FILLER).sum() == 2


def test_epochs_differ_and_repeat_with_the_seed():
    first = [step_indices(50, 50, seed=1, step=s).tolist() for s in (0, 1)]
    assert first[0] != first[1]
    assert first[0] == step_indices(50, 50, seed=1, step=0).tolist()
    assert first[0] != step_indices(50, 50, seed=2, step=0).tolist()


@pytest.mark.parametrize("world", [1, 2, 4])
def test_ranks_share_a_step_without_overlap(world):
    shape = BatchShape(batch_size=16, micro_batch_size=2, world_size=world)
    indices = step_indices(14, 16, seed=0, step=0)
    lengths = [i * 3 % 7 for i in range(14)]
    dealt = []
    for rank in range(world):
        mine = list(micro_batches(indices, shape, rank, lengths))
        assert len(mine) == shape.accumulation
        assert all(len(m) == 2 for m in mine)
        dealt += [int(i) for m in mine for i in m]
    assert sorted(dealt) == sorted(indices.tolist())


def test_stream_crosses_epochs_without_fillers():
    batches = [stream_indices(5, 4, seed=0, step=s) for s in range(5)]
    stream = np.concatenate(batches).tolist()
    for epoch in range(4):
        assert sorted(stream[5 * epoch : 5 * epoch + 5]) == list(range(5))


def test_a_batch_larger_than_the_data_repeats_epochs():
    assert sorted(stream_indices(3, 6, seed=0, step=0).tolist()) == [0, 0, 1, 1, 2, 2]


def test_shapes_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="not a multiple of micro_batch_size 3 × 2 ranks"):
        BatchShape(16, 3, 2)


def test_a_forward_takes_no_more_than_its_share_of_a_step():
    """The same settings serve one rank and several."""
    assert BatchShape(16, 16, 1).micro_batch_size == 16
    shape = BatchShape(16, 16, 2)
    assert shape.micro_batch_size == 8 and shape.accumulation == 1
    with pytest.raises(UserError, match="not a multiple of micro_batch_size 16 × 3 ranks"):
        BatchShape(16, 16, 3)
