"""Files of rankings made elsewhere, in whichever layout, as orders with their labelers' names."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common.data.argilla import argilla_orders, is_argilla
from common.data.fields import Problems, UnknownLayout
from common.data.label_studio import Tags, is_label_studio, label_studio_orders
from common.data.labeled import Hints, Labeled, labeled_of
from common.data.prompt_layouts import unknown_layout
from common.data.readers import OnError, Row, read_rows
from common.data.sources import DataSource
from common.errors import UserError

LAYOUTS = (
    "prompt + responses + orders (+ labelers)",
    "Label Studio's JSON export of a Ranker (data + annotations)",
    "Argilla's records with a RankingQuestion (fields + responses, or flattened)",
)


@dataclass
class Imported:
    """What files held."""

    items: list[Labeled]
    """In the files' order."""
    left_out: Counter[str]
    remarks: Counter[str]
    """Counts of what was read, but is worth a doubt."""


def read_labeled(sources: Sequence[DataSource], hints: Hints | None = None) -> Imported:
    """Orders from rankings files of ours, of Label Studio and of Argilla, told by their columns.

    Raises:
        UserError: all that `read_rows` raises; a row that is malformed or fits no layout; nothing
            in a file; a question or bucket in the hints that does not occur. Up to five problems
            are told at once, each with file, row and field.
    """
    problems = Problems()
    found = Imported([], Counter(), Counter())
    buckets: set[str] = set()
    for source, name in zip(sources, _names_of(sources), strict=True):
        known = replace(hints or Hints(), labeler=(hints and hints.labeler) or name)
        before = len(problems.errors)
        rows = 0
        tags = Tags()
        for origin, row in _records(source, problems.add):
            rows += 1
            try:
                found.items += _orders_of(row, source.columns, origin, known, found, tags)
            except UnknownLayout as error:
                problems.add(error)
                break  # every other row of the file would say the same
            except UserError as error:
                problems.add(error)
        if not rows and len(problems.errors) == before:
            problems.add(UserError(f"{source.path}: the file is empty: not one row in it"))
        try:
            tags.check_question(source.path, known.question)
        except UserError as error:
            problems.add(error)
        buckets |= tags.buckets
    problems.raise_if_any()
    Tags(buckets=buckets).check_buckets(hints.buckets if hints else ())
    return found


def _orders_of(
    row: Row, columns: dict[str, str], origin: str, hints: Hints, found: Imported, tags: Tags
) -> list[Labeled]:
    """The orders of one row; what it holds besides is counted in `found`."""
    if is_label_studio(row):
        return label_studio_orders(row, columns, origin, hints, found.left_out, tags)
    if "responses" in row and ("orders" in row or "ranking_best_to_worst" in row):
        return labeled_of(_renamed(row, columns), origin, hints.labeler, found.left_out)
    if is_argilla(row):
        return argilla_orders(row, columns, origin, hints, found.left_out, found.remarks)
    if columns and set(columns.values()) <= set(row):
        return _orders_of(_renamed(row, columns), {}, origin, hints, found, tags)
    raise unknown_layout(
        row, origin, "labelers' rankings", LAYOUTS, "{prompt: question, orders: rankings}"
    )


def _renamed(row: Row, columns: dict[str, str]) -> Row:
    """The row under our names, where it has the others."""
    found = {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}
    return {k: v for k, v in row.items() if k not in columns.values()} | found


def _names_of(sources: Sequence[DataSource]) -> list[str]:
    """The files' names, for labelers without one; with folders and endings where files share it,
    so that one file's first labeler is not taken for another's."""
    names = []
    for source in sources:
        alike = {s.path for s in sources if s.name == source.name}
        if len(alike) > 1 and source.name == Path(source.path).stem:
            shared = os.path.commonpath([os.path.abspath(os.path.dirname(path)) for path in alike])
            names.append(Path(os.path.relpath(source.path, shared)).as_posix())
        else:
            names.append(source.name)
    return names


def _records(source: DataSource, on_error: OnError) -> Iterator[tuple[str, Row]]:
    """Rows of a file under their own names; Argilla's `to_dict`, one object, is taken apart."""
    whole = _whole_object(source)
    if whole is None:
        yield from read_rows(replace(source, columns={}), on_error)
        return
    for name, record in list(whole)[: source.limit]:
        yield f"{source.path}[{name}]", record


def _whole_object(source: DataSource) -> list[tuple[str, Row]] | None:
    """The records of a file that is a single JSON object, by id or by column; None for others."""
    path = Path(os.path.expanduser(source.path))
    if path.suffix.lower() != ".json" or not path.is_file():
        return None
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return None  # JSON lines, or broken: `read_rows` says where
    if not isinstance(content, dict) or not content:
        return None
    values = list(content.values())
    if all(isinstance(v, dict) and is_argilla(v) for v in values):  # orient="index"
        return [(str(name), record) for name, record in content.items()]
    if all(isinstance(v, list) and len(v) == len(values[0]) for v in values):  # orient="names"
        rows = [dict(zip(content, row, strict=True)) for row in zip(*values, strict=True)]
        if all(map(is_argilla, rows)):
            return [(str(i), row) for i, row in enumerate(rows)]
    return [("0", content)]
