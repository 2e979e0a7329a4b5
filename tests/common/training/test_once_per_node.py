"""Four ranks as two nodes of two: who makes a thing, and who waits for it."""

import os
import tempfile
import time
from pathlib import Path

from common.errors import UserError
from common.training.distributed import barrier, rank
from common.training.once_per_node import once_per_node
from tests.ranks import run_ranks


def test_without_other_ranks_it_is_made_here():
    assert once_per_node(lambda: [1]) == [1]


def rank_that_asks(folder):
    """Four ranks on two nodes of two."""
    os.environ["LOCAL_RANK"] = str(rank() % 2)
    tempfile.tempdir = str(folder)

    def make():
        (folder / f"made by {rank()}").touch()
        time.sleep(1.0 if rank() else 0.0)
        return {"by": rank()}

    first = once_per_node(make)
    # Whoever is through early waits for the slower node here, not in the next collective.
    both_made = len(list(folder.glob("made by *")))

    def refuse():
        raise UserError(f"line 3 of {rank() // 2}")

    barrier()
    left = [p.name for p in folder.glob("rlhf-*")]
    barrier()
    try:
        once_per_node(refuse)
        said = ""
    except UserError as error:
        said = str(error)
    barrier()
    return first, both_made, left, said


def test_the_first_rank_of_each_node_makes_it_and_all_ranks_have_it_or_its_error(tmp_path):
    results = run_ranks(rank_that_asks, 4, tmp_path)
    assert [first for first, *_ in results] == [{"by": 0}, {"by": 0}, {"by": 2}, {"by": 2}]
    assert {p.name for p in Path(tmp_path).glob("made by *")} == {"made by 0", "made by 2"}
    assert [made for _, made, *_ in results] == [2] * 4
    assert all(left == [] for *_, left, _ in results)
    assert [said for *_, said in results] == ["line 3 of 0"] * 2 + ["line 3 of 1"] * 2
