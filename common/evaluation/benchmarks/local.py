"""The rows of a benchmark from a data folder, by set and by part."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.errors import UserError
from common.evaluation.benchmarks.catalogue import (
    AGIEVAL_EN,
    AGIEVAL_ZH,
    BBH,
    CATALOGUE,
    MATH,
    MMLU,
)
from common.evaluation.benchmarks.files import (
    PARTS,
    RawFile,
    Row,
    benchmark_folder,
    digest,
    find_files,
    plain,
    read_file,
    table,
    words_of,
)
from common.evaluation.benchmarks.forms import FORMS
from common.evaluation.benchmarks.shown import cot_prompt, few_shot_table, is_few_shot_table

FAMILY = {
    **{name: name for name in CATALOGUE},
    **dict.fromkeys(("agieval", "agieval_zh"), "agieval"),
    **dict.fromkeys(("arc_e", "arc_c"), "arc"),
    **dict.fromkeys(("race_m", "race_h"), "race"),
}
"""Benchmark -> the family whose files and forms it shares."""

_SETS = {
    "mmlu": MMLU,
    "agieval": (*AGIEVAL_EN, *AGIEVAL_ZH),
    "bbh": BBH,
    "math": MATH,
    "arc": ("easy", "challenge"),
    "race": ("middle", "high"),
}
"""Family -> the names of the sets that its files may hold."""

_ONE_SET = {"arc_e": "easy", "arc_c": "challenge", "race_m": "middle", "race_h": "high"}


_OTHERS = {
    "gsm8k": {"socratic"},
    "nq": {"efficientqa"},
    "lambada": {"control", "de", "es", "fr", "it"},
}
"""Family -> words in the names of files that are other data sets of the same form."""


@dataclass
class Subset:
    """One set's rows.

    Attributes:
        parts: part ("test", "train", …, "" where nothing names it) -> rows under the hub's columns.
        description: a sentence before the examples, where its files hold one (BBH).
        paths: the files that its rows came from.
        unlabeled: rows left out because nothing tells their right answer.
        seen: rows of each part, as text.
    """

    parts: dict[str, list[Row]] = field(default_factory=dict)
    description: str = ""
    paths: list[Path] = field(default_factory=list)
    unlabeled: int = 0
    seen: dict[str, set[str]] = field(default_factory=dict, repr=False)

    def add(self, part: str, rows: Sequence[Row], path: Path) -> None:
        """Adds a file's rows to a part, without those that an earlier file brought.

        WinoGrande's sizes of train overlap. A row that one file holds twice is kept twice.
        """
        seen = self.seen.setdefault(part, set())
        texts = [repr(row) for row in rows]
        new = [row for row, text in zip(rows, texts, strict=True) if text not in seen]
        seen.update(texts)
        self.parts.setdefault(part, []).extend(new)
        if not self.paths or self.paths[-1] != path:  # files are added one after the other
            self.paths.append(path)

    def source(self) -> str:
        """ "local files, sha256 …", over the contents of its files."""
        files = f"{len(self.paths)} local files" if len(self.paths) > 1 else "local file"
        return f"{files}, sha256 {digest(self.paths)}"


def load_local(name: str, data: Path) -> dict[str, Subset] | None:
    """A benchmark's sets from `DIR/<benchmark>/…`.

    Args:
        name: a key of `CATALOGUE`.
        data: the folder with a folder a benchmark.

    Returns:
        Set -> its rows; one set under the benchmark's own name where it has none. None where the
        data folder has no folder for it.

    Raises:
        UserError: a file fits neither form, or nothing tells which set its rows belong to.
    """
    benchmark = CATALOGUE[name]
    folder = benchmark_folder(data, benchmark.folders)
    if folder is None:
        return None
    others = _OTHERS.get(FAMILY[name], set())
    paths = [
        path
        for path in find_files(folder)
        if not others & {word for part in path.relative_to(folder).parts for word in words_of(part)}
    ]
    files = [file for path in paths if (file := read_file(path, folder)) is not None]
    if not files:
        raise UserError(
            f"{folder}: holds no data file; expected for {benchmark.title}: "
            f"{FORMS[FAMILY[name]].expected}; as JSON, JSON lines, CSV, TSV, Parquet or text"
        )
    found: dict[str, Subset] = {}
    if FAMILY[name] == "winogrande":
        files = _with_labels(files)
    if FAMILY[name] == "agieval":
        files = _latest(files)
    for file in files:
        if not file.rows:
            raise _misfit(file, name)
        if not _add_examples(found, name, file):
            _add_rows(found, name, file, folder)
    if name in _ONE_SET:
        return {name: found[_ONE_SET[name]]} if _ONE_SET[name] in found else {}
    return {key: found[key] for key in (benchmark.subtasks or (name,)) if key in found}


def _latest(files: list[RawFile]) -> list[RawFile]:
    """Of two versions of an AGIEval file, in folders v1 and v1_1, the one in the later folder."""
    sets = _SETS["agieval"]
    return list({(_named_set(f, sets), f.part(), f.inside[-1]): f for f in files}.values())


def _add_examples(found: dict[str, Subset], name: str, file: RawFile) -> bool:
    """Takes a file of AGIEval's or BBH's own examples; says whether it was one."""
    if FAMILY[name] == "agieval" and is_few_shot_table(file):
        for key, rows in few_shot_table(file).items():
            found.setdefault(key, Subset()).add("fewshot", rows, file.path)
        return True
    if FAMILY[name] == "bbh" and file.layout == "text":
        prompt = cot_prompt("\n".join(file.rows[0]["lines"]))
        named = _named_set(file, BBH)
        if prompt is None or not named:
            raise _misfit(file, name)
        subset = found.setdefault(named, Subset())
        subset.description = prompt.description
        subset.add("fewshot", prompt.rows, file.path)
        return True
    return False


def _raw_rows(family: str, file: RawFile) -> list[Row]:
    """A file's rows; of plain text LAMBADA's lines, or of a table that is called otherwise."""
    if file.layout != "text":
        return file.rows
    lines = file.rows[0]["lines"]
    if family == "lambada":
        return [{"text": line} for line in lines if line.strip()]
    rows, _ = table("\n".join(lines))
    return rows if rows and FORMS[family].convert(rows[0]) is not None else file.rows


def _add_rows(found: dict[str, Subset], name: str, file: RawFile, folder: Path) -> None:
    """Puts a file's rows into their sets and parts."""
    family = FAMILY[name]
    sets = _SETS.get(family, ())
    named = _named_set(file, sets)
    if family in ("arc", "race") and not named:
        named = _named_set_of_folder(folder, name)
    by_place: dict[tuple[str, str], list[Row]] = {}
    for number, row in enumerate(_raw_rows(family, file), 1):
        converted = FORMS[family].convert(row)
        if converted is None:
            raise _misfit(file, name, number)
        part = _part_of(row) or file.part()
        key = (_set_of_row(family, row) or named) if sets else name
        if not key and part == "train" and family == "mmlu":
            continue  # the auxiliary training questions belong to no subject
        if not key:
            raise UserError(
                f"{file.path}: row {number}: nothing tells which set of {family} this is; put the "
                f"set's name into the file's or the folder's name ({', '.join(sets[:3])}, …)"
            )
        for one in converted if isinstance(converted, list) else [converted]:
            if family == "mmlu" and one:
                one["subject"] = key
            by_place.setdefault((key, part), []).append(one)
    for (key, part), rows in by_place.items():
        labeled = [row for row in rows if row]
        subset = found.setdefault(key, Subset())
        subset.unlabeled += len(rows) - len(labeled)
        if labeled:
            subset.add(part, labeled, file.path)


def _misfit(file: RawFile, name: str, number: int = 0) -> UserError:
    row = file.rows[max(number - 1, 0)] if file.rows else {}
    seen = f"{file.layout} with {', '.join(map(repr, row))}" if row else "no rows"
    if "lines" in row:
        seen = f"text that begins {row['lines'][0][:60]!r}"
    if "cells" in row:
        seen = f"{file.layout}, {len(row['cells'])} columns"
    where = f"row {number}: " if number else ""
    return UserError(
        f"{file.path}: {where}is in no known form of {CATALOGUE[name].title}; expected: "
        f"{FORMS[FAMILY[name]].expected}. Found: {seen}. Take the file out of the folder, or bring "
        "it into one of these forms"
    )


def _named_set(file: RawFile, sets: Sequence[str]) -> str:
    """The set that the file's or a folder's name tells; the longest where several fit."""
    short = {one: name for name, one in _ONE_SET.items()}  # "arc_e" is as good as "easy"
    for name in file.names():
        fits = [
            s
            for s in sets
            if re.search(rf"(?<![a-z])(?:{plain(s)}|{short.get(s, plain(s))})(?![a-z])", name)
        ]
        if fits:
            return max(fits, key=len)
    return ""


def _named_set_of_folder(folder: Path, name: str) -> str:
    """ARC's and RACE's set where the benchmark's folder is not one for both."""
    both = {"arc_e": ("arc", "ai2_arc"), "race_m": ("race",)}
    both |= {"arc_c": both["arc_e"], "race_h": both["race_m"]}
    return "" if folder.name.lower() in both[name] else _ONE_SET[name]


def _set_of_row(family: str, row: Row) -> str:
    """The set that a row itself tells: MMLU's subject, MATH's type, RACE's id ("high12.txt")."""
    columns = {"mmlu": ("subject",), "math": ("type", "subject"), "race": ("example_id", "id")}
    told = [str(row[column]) for column in columns.get(family, ()) if row.get(column)]
    if not told:
        return ""
    if family == "race":
        return next((one for one in _SETS["race"] if told[0].startswith(one)), "")
    return plain(told[0]) if plain(told[0]) in _SETS[family] else ""


def _part_of(row: Row) -> str:
    """The part that a column `split` tells, or ""."""
    words = words_of(row["split"]) if isinstance(row.get("split"), str) else []
    return next((PARTS[word] for word in words if word in PARTS), "")


def _with_labels(files: list[RawFile]) -> list[RawFile]:
    """WinoGrande's files, with the answers of a `.lst` put into the rows of the same part."""
    labels = [file for file in files if _label_lines(file)]
    kept = [file for file in files if file not in labels]
    for file in kept:
        if any(row.get("answer") for row in file.rows):
            continue
        for other in labels:
            lines = _label_lines(other)
            if other.part() == file.part() and len(lines) == len(file.rows):
                file.rows = [
                    row | {"answer": answer} for row, answer in zip(file.rows, lines, strict=True)
                ]
    return kept


def _label_lines(file: RawFile) -> list[str]:
    """The answers, one a line, of a file that holds nothing else."""
    if file.layout != "text" or not file.rows:
        return []
    lines = [line.strip() for line in file.rows[0]["lines"] if line.strip()]
    return lines if all(line in ("1", "2") for line in lines) else []
