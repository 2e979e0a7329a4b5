"""Where data comes from: a file or a hub data set, and how it is to be read."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from common.errors import UserError, nearest

COLUMNS = (
    "messages",
    "prompt",
    "completion",
    "instruction",
    "input",
    "output",
    "system",
    "history",
    "instances",
    "conversations",
    "question",
    "text",
    "turns",
    "chosen",
    "rejected",
    "responses",
    "orders",
    "ranking_best_to_worst",
    "labelers",
    "gap",
    "weight",
    "margin",
    "replies",
    "role",
    "facts",
)
"""Every column that a reader looks for; `columns:` maps other names to these."""

OPTIONAL_COLUMNS = ("input", "system", "history", "labelers", "gap", "weight", "margin", "facts")
"""Columns that a row may lack even when `columns:` names them."""


@dataclass(frozen=True)
class DataSource:
    """One data set of a config's `data:` list."""

    path: str
    """File (.jsonl, .json, .csv, .parquet), or the name of a data set on the hub."""
    weight: float = 1.0
    """How often each example comes up per epoch (see `common.data.blending.blend`)."""
    columns: dict[str, str] = field(default_factory=dict, hash=False)
    """Our column name -> theirs, for example `{prompt: question, completion: answer}`."""
    split: str = "train"
    """Split of a hub data set; files have none."""
    limit: int | None = None
    """Read only the first rows."""
    name: str = ""
    """What an evaluation calls this data set; by default its file's name without ending."""


def parse_sources(values: Sequence[str | dict[str, Any]]) -> list[DataSource]:
    """Data sources from a command line or a YAML list.

    Args:
        values: each a path, a JSON object in a string, or a mapping with `path` and, if wanted,
            the other fields of `DataSource`.

    Raises:
        UserError: nothing given, an unknown key (names the nearest known one), a wrong type.
    """
    if not values:
        raise UserError("no data given: name at least one file or hub data set under `data`")
    return [_parse_source(value, f"data[{i}]") for i, value in enumerate(values)]


def paths_of(*lists: Sequence[str | dict[str, Any]]) -> list[str]:
    """Files and hub names of several lists of sources, of which some may be empty."""
    return [s.path for values in lists if values for s in parse_sources(values)]


def mapping_of(value: str | dict[str, Any], place: str) -> dict[str, Any]:
    """A list's entry as a mapping; a path, which may stand alone, becomes its `path`.

    Args:
        value: a path, a JSON object in a string, or a mapping.
        place: where it stands, for errors.

    Raises:
        UserError: neither of these.
    """
    if isinstance(value, str) and value.lstrip().startswith("{"):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{place}: not a valid JSON object ({error}): {value}") from None
    if isinstance(value, str):
        value = {"path": value}
    if not isinstance(value, dict):
        raise UserError(f"{place}: give a path or a mapping with `path`, not {value!r}")
    return value


def _parse_source(value: str | dict[str, Any], place: str) -> DataSource:
    value = mapping_of(value, place)
    known = [f.name for f in fields(DataSource)]
    for key in value:
        if key not in known:
            raise UserError(f"{place}: unknown key '{key}'{nearest(str(key), known)}")
    given = {"name": Path(str(value.get("path", ""))).stem}
    given |= {k: v for k, v in value.items() if v is not None}
    source = DataSource(**{"path": "", **given})
    _check(source, place)
    return source


def _check(source: DataSource, place: str) -> None:
    """Checks types and ranges of the fields, which come from users."""
    if not isinstance(source.path, str) or not source.path.strip():
        raise UserError(f"{place}: `path` must name a file or a hub data set")
    weight = source.weight
    numeric = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not numeric or not 0 < weight <= sys.float_info.max:
        raise UserError(f"{place}: `weight` must be a number above 0, not {weight!r}")
    if not isinstance(source.split, str) or not source.split:
        raise UserError(f"{place}: `split` must be a name, not {source.split!r}")
    if not isinstance(source.name, str):
        raise UserError(f"{place}: `name` must be a string, not {source.name!r}")
    limit = source.limit
    if limit is not None and (type(limit) is not int or limit < 1):
        raise UserError(f"{place}: `limit` must be a whole number above 0, not {limit!r}")
    columns = source.columns
    if not isinstance(columns, dict) or not all(isinstance(v, str) for v in columns.values()):
        raise UserError(
            f"{place}: `columns` must map our names to the file's, for example "
            "{prompt: question, completion: answer}"
        )
    for name in columns:
        if name not in COLUMNS:
            hint = ""
            if columns[name] in COLUMNS:
                hint = f" (ours comes first: did you mean {{{columns[name]}: {name}}}?)"
            raise UserError(
                f"{place}: `columns` maps '{name}', which no reader looks for"
                f"{hint or nearest(str(name), COLUMNS)}"
            )
