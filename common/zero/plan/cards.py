"""What a plan is made for: cards and their rates, or the machine at hand."""

import os
import time
from dataclasses import dataclass

import torch

from common.errors import UserError, nearest
from common.training.distributed import ranks_per_node as ranks_of_this_node

GB, GIB = 10**9, 2**30


@dataclass(frozen=True)
class Card:
    """What one rank has. Rates are the makers' figures, none of which is reached."""

    name: str
    memory: int
    """Bytes that a process can have."""
    flops: float
    """Multiplications and additions a second: bf16 without sparsity; fp32 on a CPU."""
    memory_rate: float
    """Bytes a second between the card's memory and its processors."""
    link: float
    """Bytes a second to the other cards of a node, one way."""
    network: float
    """Bytes a second to other nodes, this card's share of its node's."""
    is_gpu: bool = True


# Memory: what a driver reports of a card of that size is some per cent less than its name says.
# Links: NVLink's figures are of both ways together. Network: a port of 400 Gbit/s (200) for each
# card, as in DGX H100 (DGX A100); a cloud may give less.
CARDS = {
    # https://www.nvidia.com/en-us/data-center/h100/ ; https://docs.nvidia.com/dgx/dgxh100-user-guide/
    "H100-80G": Card("H100-80G", int(79.1 * GIB), 989e12, 3350 * GB, 450 * GB, 50 * GB),
    # https://www.nvidia.com/en-us/data-center/h200/
    "H200-141G": Card("H200-141G", int(139.7 * GIB), 989e12, 4800 * GB, 450 * GB, 50 * GB),
    # https://www.nvidia.com/en-us/data-center/a100/ ; https://docs.nvidia.com/dgx/dgxa100-user-guide/
    "A100-80G": Card("A100-80G", int(79.2 * GIB), 312e12, 2039 * GB, 300 * GB, 25 * GB),
    "A100-40G": Card("A100-40G", int(39.4 * GIB), 312e12, 1555 * GB, 300 * GB, 25 * GB),
    # https://www.nvidia.com/en-us/data-center/l40s/ (links are PCIe 4.0 x16)
    "L40S-48G": Card("L40S-48G", int(44.5 * GIB), 362e12, 864 * GB, 32 * GB, 12.5 * GB),
    # https://www.nvidia.com/en-us/data-center/a10/products/a10-gpu/ (PCIe 4.0 x16)
    "A10-24G": Card("A10-24G", int(22.1 * GIB), 125e12, 600 * GB, 32 * GB, 12.5 * GB),
    # https://images.nvidia.com/aem-dam/Solutions/geforce/ada/nvidia-ada-gpu-architecture.pdf
    "RTX4090-24G": Card("RTX4090-24G", int(23.6 * GIB), 165e12, 1008 * GB, 32 * GB, 1.25 * GB),
}


@dataclass(frozen=True)
class Machines:
    """The ranks that a plan is made for."""

    card: Card
    nodes: int
    ranks_per_node: int

    @property
    def ranks(self) -> int:
        """All of them."""
        return self.nodes * self.ranks_per_node

    @property
    def link(self) -> float:
        """Bytes a second in a collective of all ranks, of which the slowest link decides."""
        return self.card.network if self.nodes > 1 else self.card.link

    def __str__(self) -> str:
        nodes = f"{self.nodes} nodes of " if self.nodes > 1 else ""
        count = f"{nodes}{self.ranks_per_node}"
        return f"{count} × {self.card.name} ({self.card.memory / GIB:.1f} GiB each)"


def machines(gpu: str, nodes: int, ranks_per_node: int) -> Machines:
    """Those asked for; what is not asked for, of the launch at hand.

    Args:
        gpu: a name in `CARDS`; empty for this machine's card, or where it has none for its memory.
        nodes, ranks_per_node: 0 for those of the launch.

    Raises:
        UserError: a card of which nothing is known.
    """
    world = int(os.environ.get("WORLD_SIZE", "1"))
    local = ranks_of_this_node()
    ranks_per_node = ranks_per_node or local
    nodes = nodes or max(world // local, 1)
    if gpu and gpu not in CARDS:
        raise UserError(
            f"plan_gpu: nothing is known of '{gpu}'{nearest(gpu, list(CARDS))}; there are "
            f"{', '.join(CARDS)}"
        )
    if gpu:
        return Machines(CARDS[gpu], nodes, ranks_per_node)
    if torch.cuda.is_available():
        return Machines(this_card(), nodes, ranks_per_node)
    return Machines(this_cpu(ranks_per_node), nodes, ranks_per_node)


def this_card() -> Card:
    """The CUDA card at hand, with the rates of the known one that its name fits."""
    found = torch.cuda.get_device_properties(0)
    for card in CARDS.values():
        kind = card.name.split("-")[0]
        if kind in found.name.replace(" ", "") and abs(found.total_memory / card.memory - 1) < 0.1:
            return Card(**{**vars(card), "memory": found.total_memory})
    known = CARDS["A10-24G"]  # modest rates, where none are known
    return Card(**{**vars(known), "name": found.name, "memory": found.total_memory})


def this_cpu(ranks: int) -> Card:
    """A rank's share of this machine, with a matrix product's rate as measured now."""
    import psutil

    side = 512
    one = torch.ones(side, side)
    seconds = min(_seconds(lambda: one @ one) for _ in range(3))
    copied = torch.ones(2**22)
    copying = min(_seconds(copied.clone) for _ in range(3))
    rate = 2 * 2**24 / copying
    memory = psutil.virtual_memory().available // ranks
    return Card("CPU", memory, 2 * side**3 / seconds, rate, rate / 4, GB, is_gpu=False)


def _seconds(work: object) -> float:
    started = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - started
