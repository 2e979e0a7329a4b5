"""Any local file of a benchmark as rows, by its content; and which part it is, by its name.

What a file is (Parquet, a JSON document, JSON lines, a table, plain text) is seen in its bytes:
RACE's home repository calls JSON documents ".txt", others call JSON lines ".json".
"""

import ast
import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError

SUFFIXES = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".txt", ".lst")
"""A file of such a name must be the benchmark's; one of another name may be (Parquet, JSON)."""
_NO_DATA = (
    *(".md", ".rst", ".html", ".pdf", ".bib", ".png", ".jpg", ".py", ".sh", ".ipynb", ".yaml"),
    *(".yml", ".toml", ".cfg", ".lock", ".gz", ".zip", ".tar", ".arrow", ".pkl"),
)
_ABOUT = re.compile(
    r"(?:readme|licen[cs]e|citation|changelog|requirements|dataset_infos?|dataset_dict|state"
    r"|possibly_contaminated_urls|example_model_solutions)(?:[._-].*)?",
    re.IGNORECASE,
)
"""Files about a data set, and what home repositories ship beside it."""

PARTS = {
    **dict.fromkeys(("test", "tst", "samples"), "test"),
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("dev", "development"), "dev"),
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    **dict.fromkeys(("fewshot", "shot", "shots", "demonstrations"), "fewshot"),
}
"""A word in a file's or folder's name, or in a column `split` -> the part that it names."""

Row = dict[str, Any]


@dataclass
class RawFile:
    """One file as it was read.

    Attributes:
        path: where it is; `inside` are the names from the benchmark's folder down to it.
        rows: its objects; a table without a header has rows of `{"cells": [...]}`, a plain text
            one row of `{"lines": [...]}`.
        layout: "json", "json lines", "table", "table without header", "parquet", "text".
    """

    path: Path
    inside: tuple[str, ...]
    rows: list[Row]
    layout: str

    def part(self) -> str:
        """ "test", "train", "dev", "validation", "fewshot", or "" where no name says it.

        The file's own name counts before its folder's, which counts before that one's folder; in
        a folder `auxiliary_train` (MMLU's) all is for training.
        """
        if any("auxiliary" in words_of(name) for name in self.inside):
            return "train"
        for name in reversed(self.inside):
            for word in words_of(name):
                if word in PARTS:
                    return PARTS[word]
        return ""

    def names(self) -> list[str]:
        """The file's name and its folders', innermost first, as `plain` has them."""
        return [plain(name) for name in (Path(self.inside[-1]).stem, *reversed(self.inside[:-1]))]

    def columns(self) -> set[str]:
        """Columns of its first row."""
        return set(self.rows[0]) if self.rows else set()


def words_of(name: str) -> list[str]:
    """A name's words in lower case: "NQ-open.dev.jsonl" is nq, open, dev, jsonl."""
    return [word for word in re.split(r"[^a-z]+", name.lower()) if word]


def benchmark_folder(data: Path, names: Iterable[str]) -> Path | None:
    """The first of the names that is a folder below `data`; case, "-" and "_" don't matter."""
    there = {plain(path.name): path for path in sorted(data.iterdir()) if path.is_dir()}
    return next((there[plain(name)] for name in names if plain(name) in there), None)


def plain(text: str) -> str:
    """A name in lower case with "_" between its words: "Counting & Probability", "ARC-Easy"."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower().replace("&", " and ")).strip("_")


def find_files(folder: Path) -> list[Path]:
    """Files at any depth below a folder that may hold data, by path.

    Hidden files, code, archives and files about the data are left out.
    """
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and path.suffix.lower() not in _NO_DATA
        and not any(name.startswith(".") for name in path.relative_to(folder).parts)
        and not _ABOUT.fullmatch(path.name)
    ]


def read_file(path: Path, folder: Path) -> RawFile | None:
    """Reads a file in whatever layout it has.

    Returns:
        None for a file without one of the usual suffixes that is neither Parquet nor JSON.

    Raises:
        UserError: it cannot be read, or is neither Parquet nor UTF-8 text.
    """
    usual = path.suffix.lower() in SUFFIXES
    inside = path.relative_to(folder).parts
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    if content[:4] == b"PAR1":
        return RawFile(path, inside, _parquet(path), "parquet")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if not usual:
            return None
        raise UserError(
            f"{path}: neither Parquet nor UTF-8 text (byte {error.start}); expected JSON, JSON "
            "lines, CSV, TSV, Parquet or plain text"
        ) from None
    rows, layout = _rows_of(text, path)
    if layout == "text" and not usual:
        return None
    return RawFile(path, inside, rows, layout)


def _rows_of(text: str, path: Path) -> tuple[list[Row], str]:
    start = text.lstrip()[:1]
    if start in ("{", "["):
        rows = _json_document(text)
        if rows is not None:
            return rows, "json"
        lines = _json_lines(text)
        if lines is not None:
            return lines, "json lines"
        if path.suffix.lower() in (".json", ".jsonl", ".ndjson"):
            raise UserError(f"{path}: {_broken(text)}")
    if path.suffix.lower() in (".csv", ".tsv"):
        return table(text, "\t" if path.suffix.lower() == ".tsv" else None)
    return [{"lines": text.split("\n")}] if text.strip() else [], "text"


def _json_document(text: str) -> list[Row] | None:
    """Rows of one JSON value, or None where the text is not one.

    It may be a list of objects; an object with that list in a field, or with one list a part or a
    column; or one object, which is one row.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(value, list):
        return value if all(isinstance(row, dict) for row in value) else [{"value": value}]
    for inner in ("examples", "data", "rows"):
        rows = value.get(inner)
        if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
            if inner == "rows" and all(isinstance(row.get("row"), dict) for row in rows):
                return [row["row"] for row in rows]  # the hub's data-set server
            return rows
    columns = list(value.values())
    if value and all(isinstance(column, dict) for column in columns):  # pandas' to_json
        if all(set(column) == set(columns[0]) for column in columns):
            return [{name: value[name][i] for name in value} for i in columns[0]]
    if value and all(isinstance(column, list) and column for column in columns):
        if set(value) <= set(PARTS) and all(isinstance(r, dict) for c in columns for r in c):
            return [row | {"split": part} for part, rows in value.items() for row in rows]
        if len({len(column) for column in columns}) == 1:  # a list a column
            return [dict(zip(value, row, strict=True)) for row in zip(*columns, strict=True)]
    return [value]


def _json_lines(text: str) -> list[Row] | None:
    """Rows of JSON lines; None where a line is no object (a last one cut short, too)."""
    rows = []
    for line in text.split("\n"):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            return None
        if not isinstance(row, dict):
            return None
        rows.append(row)
    return rows


def _broken(text: str) -> str:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                json.loads(line)
            except ValueError as error:
                return f"neither a JSON document nor JSON lines (line {number}: {error})"
    return "JSON whose rows are no objects"


def table(text: str, delimiter: str | None = None) -> tuple[list[Row], str]:
    """Rows of CSV or TSV; whether the first line is a header is seen in its cells.

    A header's cells are short names, all different, without spaces or digits at their start.
    """
    csv.field_size_limit(2**31 - 1)
    heads = [line for line in text.split("\n")[:5] if line.strip()]
    tabs = {line.count("\t") for line in heads}
    delimiter = delimiter or ("\t" if len(tabs) == 1 and 0 not in tabs else ",")
    cells = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    if not cells:
        return [], "table"
    names = [name.strip() for name in cells[0]]
    header = len(set(names)) == len(names) and all(
        re.fullmatch(r"[A-Za-z_][\w .-]{0,40}|", name) and len(name.split()) <= 3 for name in names
    )
    if header and len(names[-1]) > 1:  # MMLU's have none, and end in the right letter
        # A row with other columns than the head is kept as it is: it fits no form, and is named.
        return [
            _decoded(dict(zip(names, row, strict=True)))
            if len(row) == len(names)
            else {f"{len(row)} columns under a head of {len(names)}": row}
            for row in cells[1:]
        ], "table"
    return [{"cells": row} for row in cells], "table without header"


def _decoded(row: dict[str, str]) -> Row:
    """A table's row with its lists and objects, which CSV writes as JSON or as Python does."""

    def value(cell: str) -> Any:  # noqa: ANN401
        if cell[:1] in ("[", "{"):
            for read in (json.loads, ast.literal_eval):
                try:
                    return read(cell)
                except (ValueError, SyntaxError):
                    continue
        return cell

    return {name: value(cell) for name, cell in row.items()}


def _parquet(path: Path) -> list[Row]:
    import pyarrow.parquet

    try:
        return pyarrow.parquet.read_table(path).to_pylist()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: broken Parquet: {error}") from None


def digest(paths: Iterable[Path]) -> str:
    """First 12 hexadecimal digits of the SHA-256 of files' contents, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:12]
