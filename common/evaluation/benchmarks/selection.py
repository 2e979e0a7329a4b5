"""Which benchmarks are meant, and where their files may be."""

from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError, nearest
from common.evaluation.benchmarks.catalogue import CATALOGUE
from common.evaluation.benchmarks.files import benchmark_folder


def chosen_benchmarks(suite: str, names: Sequence[str]) -> list[str]:
    """Keys of the catalogue, in the order of a table's columns.

    Args:
        suite: "table1", "ablation" or "all".
        names: these alone, where there are any.

    Raises:
        UserError: an unknown name.
    """
    check_known(names)
    if names:
        return [name for name in CATALOGUE if name in names]
    return [name for name, found in CATALOGUE.items() if suite in ("all", found.group)]


def check_known(names: Sequence[str]) -> None:
    """Raises UserError for a name that is no benchmark's."""
    for name in names:
        if name not in CATALOGUE:
            raise UserError(f"benchmarks: unknown '{name}'{nearest(name, list(CATALOGUE))}")


def folders_of(data: Path | None, chosen: Sequence[str]) -> list[str]:
    """The folders of a data folder that some benchmarks' files are read from."""
    if data is None or not data.is_dir():
        return []
    found = (benchmark_folder(data, CATALOGUE[name].folders) for name in chosen)
    return sorted({str(folder) for folder in found if folder is not None})
