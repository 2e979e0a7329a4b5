"""What every rank needs and one can make: made once on each node, and handed to the node's others.

Reading and encoding the data takes minutes where there is much of it, and eight ranks that each do
it take eight times the memory while it lasts. Nobody waits for it in a collective, whose time-out
would end the run: the ranks look into the process group's store, every tenth of a second.
"""

import itertools
import os
import pickle
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from common.errors import UserError
from common.training.distributed import is_distributed, rank, world_size
from common.training.watchdog import WATCHDOG

Made = TypeVar("Made")
SECONDS_BETWEEN_LOOKS = 0.1
_calls = itertools.count()


def once_per_node(make: Callable[[], Made]) -> Made:
    """What `make()` returns, called by the first rank of each node only. For all ranks alike.

    Returns when every node has it, so that whoever meets the others in a collective next does not
    wait long there. The value goes through a pickle in a folder that only this user can open,
    with a random name that the ranks learn from the store of their own run: nobody else wrote it.

    Raises:
        UserError: `make` raised it; on all ranks of the node.
    """
    if not is_distributed() or world_size() == 1:
        return make()
    import torch.distributed as dist

    prefix = f"once_per_node/{next(_calls)}"
    store = dist.PrefixStore(prefix, dist.distributed_c10d._get_default_store())
    place = f"node/{rank() - _local_rank()}"  # a node's ranks follow one another
    folder = Path(tempfile.mkdtemp(prefix="rlhf-")) if _local_rank() == 0 else None
    try:
        value = _make(make, folder, store, place) if folder else _take(store, place)
        store.add("through", 1)
        _wait(lambda: store.add("through", 0) == world_size())
    finally:
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    return value


def _make(make: Callable[[], Made], folder: Path, store: Any, place: str) -> Made:  # noqa: ANN401
    try:
        value = make()
        with (folder / "made").open("wb") as file:
            pickle.dump(value, file)
    except Exception as error:
        kind = "refused" if isinstance(error, UserError) else "failed"
        store.set(place, f"{kind} {error}")
        raise
    store.set(place, f"made {folder / 'made'}")
    return value


def _take(store: Any, place: str) -> Any:  # noqa: ANN401
    _wait(lambda: store.check([place]))
    kind, _, text = store.get(place).decode().partition(" ")
    if kind == "refused":
        raise UserError(text)
    if kind == "failed":
        raise RuntimeError(f"the first rank of this node failed: {text}")
    with Path(text).open("rb") as file:
        return pickle.load(file)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", "0"))


def _wait(until: Callable[[], bool]) -> None:
    while not until():
        WATCHDOG.alive()
        time.sleep(SECONDS_BETWEEN_LOOKS)
