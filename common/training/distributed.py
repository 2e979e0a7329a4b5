"""Ranks and the few collectives that the loops use.

Everything here also works in a process without a process group, as one rank.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor

from common.errors import UserError


def is_distributed() -> bool:
    """Whether a process group is up."""
    return dist.is_available() and dist.is_initialized()


def rank() -> int:
    """This process's number among all ranks, 0 without a process group."""
    return dist.get_rank() if is_distributed() else 0


def world_size() -> int:
    """Number of ranks, 1 without a process group."""
    return dist.get_world_size() if is_distributed() else 1


def is_main() -> bool:
    """Whether this rank writes files and draws the progress bar."""
    return rank() == 0


def device() -> torch.device:
    """This rank's device: its CUDA card, or the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    return torch.device("cpu")


def ranks_per_node() -> int:
    """Ranks that the launcher started on this node."""
    return int(os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or 1)


def free_memory() -> int:
    """Bytes that this rank may take: of its card, or its share of the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.mem_get_info()[0]
    import psutil

    return psutil.virtual_memory().available // ranks_per_node()


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over ranks of a tensor of any shape, as a new tensor. A collective."""
    result = tensor.clone()
    if is_distributed():
        dist.all_reduce(result)
    return result


def all_reduce_scalars(values: dict[str, float | Tensor]) -> dict[str, float]:
    """Sums every entry over ranks in one collective; all ranks must pass the same keys.

    Also the one place where a step's metrics leave the device.
    """
    keys = sorted(values)
    packed = torch.stack(
        [torch.as_tensor(values[k], dtype=torch.float64).to(device()) for k in keys]
    )
    return dict(zip(keys, all_reduce_sum(packed).tolist(), strict=True))


def any_rank(flag: bool) -> bool:
    """Whether `flag` is true on any rank; all decisions to stop go through here. A collective."""
    if not is_distributed():
        return flag
    votes = torch.tensor([float(flag)], device=device())
    return bool(all_reduce_sum(votes).item() > 0)


def barrier() -> None:
    """Waits for all ranks."""
    if is_distributed():
        dist.barrier()


def gather_objects(value: object) -> list[object]:
    """Every rank's picklable `value`, in rank order, on every rank. A collective."""
    if not is_distributed():
        return [value]
    gathered: list[object] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def broadcast_object(value: object) -> object:
    """Rank 0's picklable `value` on every rank. A collective."""
    if not is_distributed():
        return value
    holder = [value]
    dist.broadcast_object_list(holder, src=0)
    return holder[0]


def fail_together(fault: str, kind: type[UserError] = UserError) -> None:
    """Raises on every rank where one has a fault: the others must not wait for it. A collective.

    Args:
        fault: what went wrong on this rank; "" where nothing did.

    Raises:
        kind: with the text of the first rank that has one.
    """
    if any_rank(bool(fault)):
        raise kind(next(str(text) for text in gather_objects(fault) if text))
