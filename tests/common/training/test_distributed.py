"""The collectives with one rank (with and without a process group) and with two."""

import os
import time

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import ProcessRaisedException

from common.training.distributed import (
    all_reduce_scalars,
    all_reduce_sum,
    any_rank,
    barrier,
    broadcast_object,
    device,
    free_memory,
    gather_objects,
    is_distributed,
    is_main,
    rank,
    world_size,
)
from tests.ranks import run_ranks


def every_collective() -> dict[str, object]:
    """What each collective answers on this rank, which contributes values made from its number."""
    r = dist.get_rank() if dist.is_initialized() else 0
    matrix = torch.tensor([[1.0 + r, 10.0 * r], [-2.0, 0.5]], dtype=torch.float64)
    untouched = matrix.clone()
    answers = {
        "who": (is_distributed(), rank(), world_size(), is_main()),
        "sum": all_reduce_sum(matrix),
        "integer_sum": all_reduce_sum(torch.tensor([2**40 + r])),
        "scalar_sum": all_reduce_sum(torch.tensor(3.0 - r)),
        # Keys in an order that differs by rank: entries must meet by name, not by position.
        "scalars": all_reduce_scalars(
            {"a": 1.0 + r, "b": torch.tensor(100.0 * (r + 1)), "c": 7}
            if r == 0
            else {"c": 7, "b": torch.tensor(100.0 * (r + 1)), "a": 1.0 + r}
        ),
        "large_scalars": all_reduce_scalars({"tokens": 2**24 + 1}),
        "any": [
            any_rank(flag)
            for flag in (False, True, r == 0, r == 1)  # nobody, everybody, the first, the second
        ],
        "gathered": gather_objects({"rank": r, "texts": ["é" * r]}),
        "broadcast": broadcast_object(("from", r, [r, r + 1])),
    }
    barrier()
    answers["argument_kept"] = torch.equal(matrix, untouched)
    return answers


def check_answers(answers: dict[str, object], index: int, ranks: int, group: bool) -> None:
    """Compares with what one (of one) or rank `index` of two must have got, written out."""
    assert answers["who"] == (group, index, ranks, index == 0)
    if ranks == 1:
        total = [[1.0, 0.0], [-2.0, 0.5]]
        scalars = {"a": 1.0, "b": 100.0, "c": 7.0}
        votes = [False, True, True, False]
        gathered = [{"rank": 0, "texts": [""]}]
        integer, scalar, tokens = 2**40, 3.0, 16_777_217.0
    else:
        total = [[3.0, 10.0], [-4.0, 1.0]]
        scalars = {"a": 3.0, "b": 300.0, "c": 14.0}
        votes = [False, True, True, True]
        gathered = [{"rank": 0, "texts": [""]}, {"rank": 1, "texts": ["é"]}]
        integer, scalar, tokens = 2**41 + 1, 5.0, 33_554_434.0
    assert answers["sum"].tolist() == total and answers["sum"].dtype == torch.float64
    assert answers["integer_sum"].tolist() == [integer]
    assert answers["scalar_sum"].shape == () and answers["scalar_sum"].item() == scalar
    assert answers["scalars"] == scalars
    assert all(type(value) is float for value in answers["scalars"].values())
    assert answers["large_scalars"] == {"tokens": tokens}  # float32 would lose the odd token
    assert answers["any"] == votes and all(type(vote) is bool for vote in answers["any"])
    assert answers["gathered"] == gathered
    assert answers["broadcast"] == ("from", 0, [0, 1])
    assert answers["argument_kept"]


def test_collectives_without_a_process_group():
    assert not dist.is_initialized()
    check_answers(every_collective(), index=0, ranks=1, group=False)


@pytest.mark.parametrize("ranks", [1, 2])
def test_collectives_on_gloo_ranks(ranks):
    per_rank = run_ranks(every_collective, ranks)
    assert len(per_rank) == ranks
    for index, answers in enumerate(per_rank):
        check_answers(answers, index, ranks, group=True)


def barrier_times() -> tuple[float, float]:
    """When this rank came to the barrier and when it got through; rank 1 comes late."""
    time.sleep(0.5 * dist.get_rank())
    arrived = time.time()
    barrier()
    return arrived, time.time()


def test_barrier_waits_for_the_last_rank():
    times = run_ranks(barrier_times, 2)
    last_arrival = max(arrived for arrived, _ in times)
    assert all(left >= last_arrival for _, left in times)


def test_device_follows_local_rank_on_a_gpu_and_is_the_cpu_without(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device() == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert device() == torch.device("cuda:3")
    monkeypatch.delenv("LOCAL_RANK")
    assert device() == torch.device("cuda:0")


# The helper itself, since other tests believe it.


def environment_of_a_rank(greeting: str) -> tuple:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    group = dist.is_initialized()
    return greeting, group, torch.get_num_threads(), [os.environ[name] for name in names]


@pytest.mark.parametrize("start_group", [True, False])
def test_run_ranks_sets_what_the_launcher_would_set(start_group):
    results = run_ranks(environment_of_a_rank, 2, "hello", start_group=start_group)
    ports = {environment[-1] for _, _, _, environment in results}
    assert len(ports) == 1 and int(ports.pop()) > 0
    for index, (greeting, group, threads, environment) in enumerate(results):
        assert (greeting, group, threads) == ("hello", start_group, 1)
        assert environment[:4] == [str(index), str(index), "2", "127.0.0.1"]


def fail_on_rank_one() -> None:
    if dist.get_rank() == 1:
        raise KeyError("the tensor that rank one lost")
    dist.barrier()


def test_run_ranks_raises_a_ranks_error_with_its_traceback():
    with pytest.raises(ProcessRaisedException) as caught:
        run_ranks(fail_on_rank_one, 2)
    assert "the tensor that rank one lost" in str(caught.value)
    assert "in fail_on_rank_one" in str(caught.value)


def hang_on_rank_one() -> None:
    if os.environ["RANK"] == "1":
        time.sleep(60)


def test_run_ranks_kills_ranks_that_hang():
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"hang_on_rank_one: ranks \[.*1\] of 2"):
        run_ranks(hang_on_rank_one, 2, timeout=5, start_group=False)
    assert time.monotonic() - start < 30


def test_free_memory_is_shared_by_the_ranks_of_a_machine(monkeypatch):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    alone = free_memory()
    assert 2**20 < alone < 2**50
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert free_memory() == pytest.approx(alone / 4, rel=0.2)
