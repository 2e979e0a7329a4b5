"""ZeRO's arithmetic by hand (Rajbhandari et al. 2020, §3: 2 + 2 + 12 bytes a weight)."""

from dataclasses import replace

import pytest

from common.config.arguments import ZeroArguments
from common.zero.plan.shapes import Counts
from common.zero.plan.states import (
    BUFFERS,
    OPTIMIZER,
    WEIGHTS,
    Spread,
    added,
    copied,
    engine_memory,
    frozen_memory,
    gathered,
    size_of,
)
from common.zero.plan.trace import GRADIENTS, Trace

P = 8_000_000_000
COUNTS = Counts(P, P, 0, 0)
NOTHING = Trace({}, {}, {}, {})


def spread(zero, ranks, **more):
    settings = {k: more.pop(k) for k in ("offload_optimizer", "offload_parameters") if k in more}
    return Spread(ZeroArguments(zero, **settings), ranks, 2, **more)


@pytest.mark.parametrize("ranks", [2, 8, 64])
def test_states_of_bf16_training_by_stage(ranks):
    rest = {z: engine_memory(COUNTS, spread(z, ranks), NOTHING).rest for z in ("1", "2", "3")}
    assert rest["1"][WEIGHTS] == rest["2"][WEIGHTS] == 2 * P
    assert rest["3"][WEIGHTS] == 2 * P // ranks
    # An fp32 weight and two moments, 12 bytes, on one of N ranks.
    assert all(r[OPTIMIZER] == 12 * P // ranks for r in rest.values())
    assert rest["3"][GRADIENTS] == 2 * P // ranks
    moments = {z: engine_memory(COUNTS, spread(z, ranks), NOTHING).moments for z in rest}
    assert moments["1"]["reduction"][GRADIENTS] == 2 * P + 2 * P // ranks  # whole until then
    assert moments["2"]["optimizer step"][GRADIENTS] == (2 + 4) * P // ranks


def test_without_zero_everything_is_whole():
    """In bf16 with an fp32 copy of the weights, and for a step one of the gradients."""
    memory = engine_memory(COUNTS, spread("0", 8), NOTHING)
    assert memory.rest == {WEIGHTS: 2 * P, OPTIMIZER: (4 + 8) * P}
    assert memory.moments["optimizer step"][GRADIENTS] == (2 + 4) * P


@pytest.mark.parametrize("zero", ["0", "1", "2", "3"])
def test_more_ranks_never_take_more_each(zero):
    peaks = []
    for ranks in (1, 2, 3, 4, 8, 64):
        memory = engine_memory(COUNTS, spread(zero, ranks), NOTHING)
        peaks.append(max(size_of(added(memory.rest, m)) for m in memory.moments.values()))
    assert peaks == sorted(peaks, reverse=True)
    assert (peaks[-1] < peaks[0]) == (zero != "0")


def test_a_higher_stage_never_rests_on_more():
    rest = [size_of(engine_memory(COUNTS, spread(z, 8), NOTHING).rest) for z in "123"]
    assert rest == sorted(rest, reverse=True)


def test_offload_moves_states_to_the_host_and_on_a_cpu_there_is_only_the_host():
    memory = engine_memory(COUNTS, spread("2", 8, offload_optimizer="cpu"), NOTHING)
    assert OPTIMIZER not in memory.rest and memory.host[OPTIMIZER] == 12 * P // 8
    both = {"offload_optimizer": "cpu", "offload_parameters": "cpu"}
    memory = engine_memory(COUNTS, spread("3", 8, **both), NOTHING)
    assert WEIGHTS not in memory.rest and memory.host[WEIGHTS] == 2 * P // 8
    on_cpu = engine_memory(COUNTS, spread("3", 8, is_gpu=False, **both), NOTHING)
    assert not on_cpu.host and on_cpu.rest[WEIGHTS] == 2 * P // 8


def test_frozen_weights_are_whole_below_stage_3_and_shared_out_in_it():
    assert frozen_memory(COUNTS, spread("2", 8)) == {WEIGHTS: 2 * P}
    assert frozen_memory(COUNTS, spread("3", 8)) == {WEIGHTS: 2 * P // 8}
    assert frozen_memory(COUNTS, spread("3", 8, whole=True)) == {WEIGHTS: 2 * P}


def test_adapters_have_states_for_what_is_trained_alone():
    few = COUNTS._replace(trained=P // 100)
    memory = engine_memory(few, spread("2", 4), NOTHING)
    assert memory.rest == {WEIGHTS: 2 * P, OPTIMIZER: 12 * (P // 100) // 4}


def test_gathering_holds_a_billion_weights_and_a_bucket_at_most():
    assert gathered(P, spread("3", 8)) == {BUFFERS: 2 * (1_000_000_000 + 50_000_000)}
    assert gathered(1000, spread("3", 8)) == {BUFFERS: 2 * 2 * 1000}
    assert gathered(P, spread("2", 8)) == {} == gathered(P, spread("3", 8, whole=True))


def test_one_rank_gathers_only_what_lies_elsewhere():
    """partition_parameters.py, NoGatherHandle: without other ranks a weight is its own shard."""
    alone = spread("3", 1)
    assert gathered(P, alone) == {} == gathered(P, replace(alone, whole=True))
    offloaded = replace(alone, zero=ZeroArguments("3", offload_parameters="cpu"))
    assert gathered(1000, offloaded) == {BUFFERS: 2 * 2 * 1000}


def test_offloaded_states_have_gradients_of_all_groups_in_fp32_beside_them():
    """stage3.py, initialize_optimizer_states: a buffer for each group; 18 bytes a weight in all."""
    offloaded = replace(spread("3", 1), zero=ZeroArguments("3", offload_optimizer="cpu"))
    host = engine_memory(COUNTS, offloaded, NOTHING).host
    assert host == {OPTIMIZER: 12 * P, GRADIENTS: (2 + 4) * P}


@pytest.mark.parametrize(("zero", "ranks", "bytes_held"), [("0", 8, 4 * P), ("3", 8, P // 2)])
def test_a_copy_of_the_weights_is_fp32_and_shared_out_where_they_are(zero, ranks, bytes_held):
    assert copied(COUNTS, spread(zero, ranks)) == bytes_held
