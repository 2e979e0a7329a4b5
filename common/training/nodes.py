"""Which rank of which node this process is, and what the nodes are called."""

import os
import platform
import re
from dataclasses import dataclass
from pathlib import Path

HOST = re.compile(r"\s*([^#\s]\S*)\s+slots=\d")
"""A node's line of a hostfile, as DeepSpeed and multinode.sh read it."""


@dataclass(frozen=True)
class Place:
    """As the `deepspeed` command numbers ranks and nodes."""

    rank: int
    ranks: int
    local_rank: int
    node: int
    nodes: int

    @classmethod
    def from_environment(cls) -> "Place":
        """By itself a process is the only rank of the only node."""
        names = (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0))
        numbers = [int(os.environ.get(name, default)) for name, default in names]
        node, nodes = os.environ.get("CROSS_RANK", 0), os.environ.get("CROSS_SIZE", 1)
        return cls(*numbers, int(node), int(nodes))


def node_name(number: int) -> str:
    """A node's name in the hostfile that multinode.sh was given; "node 3" where there is none."""
    file = Path(os.environ.get("RLHF_HOSTFILE", ""))
    if file.is_file():
        lines = file.read_text(encoding="utf-8").splitlines()
        names = [match[1] for line in lines if (match := HOST.match(line))]
        if number < len(names):
            return names[number]
    return f"node {number}"


def own_name(number: int) -> str:
    """This node's name in the hostfile, or else the machine's."""
    name = node_name(number)
    return platform.node() if name == f"node {number}" else name
