"""Rows of users' files, each with the place it stands at, so that every error can name it.

JSON and CSV are read here, and not through `datasets`, because its rows have lost their line
numbers. Parquet and hub data sets, which have none, go through `datasets`.
"""

import contextlib
import csv
import io
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from common.data.sources import OPTIONAL_COLUMNS, DataSource
from common.errors import UserError

Row = dict[str, Any]
OnError = Callable[[UserError], None]

FILE_TYPES = (".jsonl", ".json", ".csv", ".parquet")
_STRUCTURED = (
    *("messages", "conversations", "history", "instances", "turns"),
    *("responses", "orders", "ranking_best_to_worst", "facts"),
)
"""Columns that are never plain text; in CSV their cells hold JSON."""
_PERHAPS_STRUCTURED = (
    *("labelers", "cannot_judge"),
    *("gap", "weight", "margin", "agreement", "support"),
)
"""Those that may be a text, too, or belong to somebody else; in CSV what is no JSON stays text."""
_BOM = "\ufeff"
_LONGEST_CELL = 2**31 - 1


def read_rows(source: DataSource, on_error: OnError | None = None) -> Iterator[tuple[str, Row]]:
    """Rows of a source in their order, under our column names.

    Args:
        source: a JSON-lines, JSON, CSV or Parquet file, or a hub data set.
        on_error: takes errors that concern a single row, and reading goes on behind it; without
            it the first one is raised.

    Yields:
        (origin, row): "path:line" where the row begins, or "path[row]" (from 0) for Parquet and
        hub data sets. A row that is a bare string becomes `{"text": string}`.

    Raises:
        UserError: no such file, not UTF-8, broken JSON or CSV, a field given twice, a row that is
            not an object, a column of the source's `columns` that the row lacks.
    """

    def refuse(error: UserError) -> None:
        if on_error is None:
            raise error
        on_error(error)

    in_csv = Path(source.path).suffix.lower() == ".csv"
    limit = None if source.limit is None else min(source.limit, sys.maxsize)
    for origin, row in itertools.islice(_rows_or_errors(source), limit):
        if isinstance(row, UserError):
            refuse(row)
            continue
        if isinstance(row, str):
            row = {"text": row}
        if not isinstance(row, dict):
            refuse(UserError(f"{origin}: a row must be an object, not {kind_of(row)}"))
            continue
        try:
            row = _rename(row, source.columns, origin)
            if in_csv:
                row = _decode_cells(row, origin)
        except UserError as error:
            refuse(error)
            continue
        yield origin, row


def _rows_or_errors(source: DataSource) -> Iterator[tuple[str, Any]]:
    """(origin, parsed row), or an error in a row's place; what ends the file early comes last."""
    try:
        yield from _open(source)
    except UserError as error:
        yield source.path, error
    except OSError as error:
        yield source.path, UserError(f"{source.path}: cannot be read: {error.strerror}")


def _open(source: DataSource) -> Iterator[tuple[str, Any]]:
    path = Path(os.path.expanduser(source.path))  # unlike Path's, takes users that are not there
    suffix = path.suffix.lower()
    if path.is_dir():
        raise UserError(f"{source.path}: is a folder; name one file in it")
    if not path.is_file():
        if suffix in FILE_TYPES or source.path.startswith(("/", ".", "~")):
            raise UserError(f"{source.path}: no such file")
        return _hub_rows(source)
    if suffix == ".csv":
        return _csv_rows(path, source.path)
    if suffix == ".parquet":
        return _parquet_rows(path, source.path)
    if suffix in (".jsonl", ".json"):
        return (_array_rows if _starts_an_array(path) else _json_line_rows)(path, source.path)
    raise UserError(f"{source.path}: unknown type of file; known: {', '.join(FILE_TYPES)}")


def _starts_an_array(path: Path) -> bool:
    """Whether the first character that is not white space is `[`, whatever the file's name."""
    with path.open("rb") as file:
        for line in file:
            text = line.removeprefix(_BOM.encode()).strip()
            if text:
                return text.startswith(b"[")
    return False


def _json_line_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """One JSON value a line; empty lines are passed over."""
    with path.open("rb") as file:  # binary: only \n ends a line, not U+2028 inside a text
        for number, raw in enumerate(file, 1):
            origin = f"{name}:{number}"
            try:
                line = raw.decode("utf-8").removeprefix(_BOM if number == 1 else "")
                if line.strip():
                    yield origin, _JSON.decode(line)
            except UnicodeDecodeError as error:
                yield origin, _not_utf8(origin, error)
            except json.JSONDecodeError as error:
                message = f"{origin}: broken JSON at column {error.colno}: {_reason(error)}"
                if number == 1 and line.strip() == "{":
                    message += " (a row must stand on one line, or rows in an array: [{…}, {…}])"
                yield origin, UserError(message)
            except (ValueError, RecursionError) as error:
                yield origin, UserError(f"{origin}: {_told(error)}")


def _array_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """The objects of a JSON array, found one by one, so that each one's line is known."""
    text = _decode(path.read_bytes(), name)
    position, line, counted = text.index("[") + 1, 1, 0

    def skip_space() -> None:
        nonlocal position, line, counted
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        line += text.count("\n", counted, position)
        counted = position

    def broken(message: str) -> UserError:
        column = position - text.rfind("\n", 0, position)
        return UserError(f"{name}:{line}: broken JSON at column {column}: {message}")

    skip_space()
    ended = text[position : position + 1] == "]"
    while not ended:
        try:
            row, end = _JSON.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{name}:{error.lineno}: broken JSON at column {error.colno}: {_reason(error)}"
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}:{line}: {_told(error)}") from None
        yield f"{name}:{line}", row
        position = end
        skip_space()
        if text[position : position + 1] not in (",", "]"):
            raise broken("expected ',' or ']' after a row")
        ended = text[position] == "]"
        position += not ended
        skip_space()
    position += 1
    skip_space()
    if position < len(text):
        raise broken("text after the end of the array")


def _csv_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Rows of a CSV file with a header; a row's line is that of its first cell."""
    csv.field_size_limit(_LONGEST_CELL)  # a response may exceed the default of 131,072 letters
    reader = csv.reader(io.StringIO(_decode(path.read_bytes(), name), newline=""), strict=True)
    header: list[str] | None = None
    while True:
        origin = f"{name}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise UserError(f"{origin}: broken CSV: {error}") from None
        if cells is None:
            return
        if not cells:
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) < len(header) or "" in header:
                raise UserError(f"{origin}: the header needs distinct, non-empty column names")
        elif len(cells) != len(header):
            yield (
                origin,
                UserError(f"{origin}: {len(cells)} cells, but the header has {len(header)}"),
            )
        else:
            yield origin, dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path, name: str) -> Iterator[tuple[str, Any]]:
    """Rows of a Parquet file, streamed: `datasets` then copies nothing into a cache."""
    with _quiet_datasets() as datasets, tempfile.TemporaryDirectory() as locks:
        try:
            rows = datasets.load_dataset(
                "parquet", data_files=str(path), split="train", streaming=True, cache_dir=locks
            )
            for i, row in enumerate(rows):
                yield f"{name}[{i}]", _without_padding(row)
        except Exception as error:  # both libraries raise many types, NotImplementedError too
            raise UserError(f"{name}: not a valid Parquet file: {_first_line(error)}") from None


def _hub_rows(source: DataSource) -> Iterator[tuple[str, Any]]:
    """Rows of a hub data set, kept in the user's own Hugging Face cache."""
    with _quiet_datasets() as datasets:
        try:
            rows = datasets.load_dataset(source.path, split=source.split)
        except Exception as error:  # network, name, split, configuration: the hub raises many types
            raise UserError(
                f"{source.path}: no such file, and the hub gives no data set of this name with "
                f"split '{source.split}': {_first_line(error)}"
            ) from None
        for i, row in enumerate(rows):
            yield f"{source.path}[{i}]", _without_padding(row)


def _without_padding(row: Row) -> Row:
    """Without the nulls that stand where only other rows of the table have something."""
    return {name: value for name, value in row.items() if value is not None}


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[Any]:
    """The `datasets` library (slow to import, so only where needed) without progress bars."""
    import datasets

    had_bars = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield datasets
    finally:
        if had_bars:
            datasets.enable_progress_bars()


def _rename(row: Row, columns: dict[str, str], origin: str) -> Row:
    """The row under our names; a mapped column replaces one of ours that stood there."""
    missing = [
        (ours, theirs)
        for ours, theirs in columns.items()
        if theirs not in row and ours not in OPTIONAL_COLUMNS
    ]
    if missing:
        ours, theirs = missing[0]
        raise UserError(
            f"{origin}: field '{theirs}' is missing, which `columns` names for '{ours}'; "
            f"the row has: {', '.join(map(str, row)) or 'nothing'}"
        )
    renamed = {k: v for k, v in row.items() if k not in (*columns, *columns.values())}
    return renamed | {ours: row[theirs] for ours, theirs in columns.items() if theirs in row}


def _decode_cells(row: Row, origin: str) -> Row:
    """Parses the JSON in the cells of columns that are not plain text; empty ones are absent."""
    row = {k: v for k, v in row.items() if v or k not in (*_STRUCTURED, *_PERHAPS_STRUCTURED)}
    for name in _STRUCTURED:
        if name in row:
            try:
                row[name] = json.loads(row[name])
            except (ValueError, RecursionError):
                raise UserError(
                    f"{origin}: field '{name}' must hold JSON in a CSV file, not {row[name][:40]!r}"
                ) from None
    for name in _PERHAPS_STRUCTURED:
        if name in row:
            with contextlib.suppress(ValueError, RecursionError):
                row[name] = json.loads(row[name])
    return row


def _decode(raw: bytes, name: str) -> str:
    try:
        return raw.decode("utf-8").removeprefix(_BOM)
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise _not_utf8(f"{name}:{line}", error) from None


class _Doubled(ValueError):
    """An object has this field twice."""


def _unique(pairs: list[tuple[str, Any]]) -> Row:
    """A JSON object; `json` itself would keep the last of two fields with one name."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Doubled(next(name for name in names if names.count(name) > 1))
    return row


_JSON = json.JSONDecoder(object_pairs_hook=_unique)


def _told(error: ValueError | RecursionError) -> str:
    """Why `json` refused what is no broken JSON."""
    if isinstance(error, _Doubled):
        return f"field '{error}' is given twice"
    if isinstance(error, RecursionError):
        return "the JSON is nested too deeply"
    return "the JSON holds a number of too many digits"  # Python converts no more than 4,300


def _reason(error: json.JSONDecodeError) -> str:
    """Some of the library's messages go on with the place, which is given already."""
    return error.msg.removesuffix(" at")


def _not_utf8(origin: str, error: UnicodeDecodeError) -> UserError:
    byte = error.object[error.start]
    return UserError(f"{origin}: not UTF-8 (byte 0x{byte:02x}); save the file as UTF-8")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def kind_of(value: Any) -> str:
    """A JSON value's type as its users call it."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    return {str: "a string", list: "a list", dict: "an object"}.get(type(value), str(type(value)))
