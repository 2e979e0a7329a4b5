"""Running a function on several gloo ranks of this machine, for tests."""

import faulthandler
import importlib
import multiprocessing
import os
import pickle
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from common.config.arguments import ZeroArguments

TIMEOUT_SECONDS = 300.0

LARGE = ("torch", "transformers", "peft", "datasets", "deepspeed")


def run_ranks(
    fn: Callable[..., Any],
    world_size: int,
    *args: Any,
    timeout: float = TIMEOUT_SECONDS,
    start_group: bool = True,
    fresh: bool = False,
) -> list[Any]:
    """Calls `fn(*args)` on `world_size` new processes that form one gloo process group.

    Each rank has one thread, no GPU, and RANK, LOCAL_RANK, WORLD_SIZE, LOCAL_WORLD_SIZE,
    MASTER_ADDR and MASTER_PORT in its environment, as the `deepspeed` command would set them.

    Args:
        fn: a module-level function (it is pickled by name).
        world_size: number of ranks; 1 also gets a process (and a group) of its own.
        args: picklable; every rank gets its own copy. `fn` tells ranks apart by `dist.get_rank()`.
        timeout: seconds after which the ranks are killed; their stacks go to stderr.
        start_group: False leaves starting the process group to `fn`.
        fresh: no copies, which write where the process that they are copies of does: for tests
            that read what ranks write.

    Returns:
        what `fn` returned on each rank, in rank order.

    Raises:
        torch.multiprocessing.ProcessRaisedException: a rank raised; holds the rank's traceback.
        TimeoutError: some rank did not finish in time.
    """
    with tempfile.TemporaryDirectory() as folder:
        # As bytes, so that a rank imports the caller's module only after its environment is set.
        call = pickle.dumps((fn, args))
        _start_server()
        context = mp.start_processes(
            _run_rank,
            args=(world_size, _free_port(), folder, timeout, start_group, call, dict(os.environ)),
            nprocs=world_size,
            join=False,
            start_method="spawn" if fresh else "forkserver",
        )
        deadline = time.monotonic() + timeout + 1.0  # lets the ranks dump their stacks first
        try:
            while not context.join(timeout=max(0.0, deadline - time.monotonic())):
                if time.monotonic() > deadline:
                    late = [rank for rank, p in enumerate(context.processes) if p.is_alive()]
                    raise TimeoutError(
                        f"{fn.__qualname__}: ranks {late} of {world_size} still ran after "
                        f"{timeout:g} s; their stacks are on stderr"
                    )
        finally:
            for process in context.processes:
                if process.is_alive():
                    process.kill()
                process.join()
        return [pickle.loads(_result_path(folder, r).read_bytes()) for r in range(world_size)]


def _start_server() -> None:
    """Starts what ranks are copies of: a process that has imported the large libraries.

    They would take half of a test's time. DeepSpeed looks at the environment when it is imported.
    """
    multiprocessing.set_forkserver_preload(list(LARGE))
    before = dict(os.environ)
    os.environ.update(DS_ACCELERATOR="cpu", CUDA_VISIBLE_DEVICES="", OMP_NUM_THREADS="1")
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)


def zero_of(name: str) -> ZeroArguments:
    """ "3", or "3 offload": optimizer states, and under ZeRO-3 weights, in the host's memory."""
    stage, _, offload = name.partition(" ")
    if not offload:
        return ZeroArguments(stage)
    return ZeroArguments(stage, "cpu", "cpu" if stage == "3" else "none")


def shard_everything() -> None:
    """Makes ZeRO-3 spread the smallest weight, too: models of tests lie below its threshold.

    For functions that run in a process of their own.
    """
    from common.training import engine

    original = engine.deepspeed_config

    def config(*args: Any, **kwargs: Any) -> dict[str, Any]:
        made = original(*args, **kwargs)
        if made["zero_optimization"]["stage"] == 3:
            made["zero_optimization"]["stage3_param_persistence_threshold"] = 0
        return made

    engine.deepspeed_config = config


def _run_rank(
    rank: int,
    world_size: int,
    port: int,
    folder: str,
    timeout: float,
    start_group: bool,
    call: bytes,
    environment: dict[str, str],
) -> None:
    faulthandler.dump_traceback_later(timeout)
    os.environ.clear()
    os.environ.update(environment)
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    torch.set_num_threads(1)
    if start_group:
        importlib.import_module("torch.distributed.nn.functional")  # see `process_group`

        dist.init_process_group("gloo")
    fn, args = pickle.loads(call)
    _result_path(folder, rank).write_bytes(pickle.dumps(fn(*args)))
    # Not reached after an error: closing the group would make the other ranks fail too, perhaps
    # before this one's error is seen.
    if dist.is_initialized():
        dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # see `common.training.ending.leave`


def _result_path(folder: str, rank: int) -> Path:
    return Path(folder, f"rank_{rank}.pickle")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
