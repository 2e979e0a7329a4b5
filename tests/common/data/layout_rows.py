"""Valid rows of every layout that the readers know, files of them, and what may come out."""

import csv
import functools
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from common.data.cleaning import clean
from common.data.layouts import read_conversations, read_prompts, read_rankings
from common.data.pairs import read_pairs
from common.data.records import Pair, Ranking
from common.data.sources import COLUMNS, DataSource
from common.reward.probe import ProbeRow, read_probe

NAMES = (
    *COLUMNS,
    *("content", "from", "value", "rank", "deleted", "agreement", "support", "right", "other"),
)
"""Names that damage gives to fields."""


_LINE_ENDS = re.compile(r"\r\n|\r|\n")


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def turn(speaker: str, value: str) -> dict[str, str]:
    return {"from": speaker, "value": value}


def node(role: str, text: str, replies: Sequence[Any] = (), **more: Any) -> dict[str, Any]:
    return {"role": role, "text": text, "replies": list(replies), **more}


def _tree(n: int) -> dict[str, Any]:
    follow_up = node(
        "prompter",
        f"tree, more {n}",
        [node("assistant", f"no {n}", rank=1), node("assistant", f"yes {n}", rank=0)],
    )
    answers = [
        node("assistant", f"worse {n}", rank=1.0),
        node("assistant", f"better {n}", [follow_up], rank=0.0, deleted=False),
        node("assistant", f"nobody ranked {n}"),
    ]
    return node("prompter", f"tree {n}", answers)


def _talk(n: int) -> list[dict[str, str]]:
    return [said("system", f"be {n}"), said("user", f"hi {n}"), said("assistant", f"hello {n}")]


Rows = dict[str, Callable[[int], dict[str, Any]]]

CONVERSATIONS: Rows = {
    "messages": lambda n: {"messages": [*_talk(n), said("user", "?"), said("assistant", f"!{n}")]},
    "prompt and completion": lambda n: {
        "prompt": f"question {n}",
        "completion": f"answer\n{n}",
        "facts": {"label": f"l{n}", "parts": [1.5, n]},
    },
    "prompt and completion as messages": lambda n: {
        "prompt": [said("user", f"question {n}")],
        "completion": [said("assistant", f"answer {n}")],
    },
    "Alpaca": lambda n: {
        "instruction": f"do {n}",
        "input": f"this, {n}",
        "output": f"done {n}",
        "system": f"be {n}",
        "history": [[f"before {n}", f"then {n}"]],
    },
    "ShareGPT": lambda n: {
        "conversations": [turn("human", f"ask {n}"), turn("gpt", f"tell {n}")],
        "system": f"be {n}",
    },
    "tree": lambda n: {"message_tree_id": f"{n}", "prompt": _tree(n)},
    "tree without a wrapper": _tree,
}
PROMPTS: Rows = {
    "prompt": lambda n: {"prompt": f"question {n}", "system": f"be {n}"},
    "prompt as messages": lambda n: {"prompt": [*_talk(n), said("user", f"more {n}")]},
    "messages": lambda n: {"messages": [*_talk(n), said("user", "?"), said("assistant", f"!{n}")]},
    "instruction": lambda n: {"instruction": f"do {n}", "input": f"this {n}", "history": []},
    "seed task": lambda n: {
        "instruction": f"do {n}",
        "instances": [{"input": f"this {n}", "output": f"done {n}"}],
    },
    "question": lambda n: {"question": f"why {n}", "answer": "so", "facts": {"n": n}},
    "turns": lambda n: {"turns": [f"first {n}", f"second {n}"]},
    "text": lambda n: {"text": f'"text", {n}'},
    "ShareGPT": lambda n: {"conversations": [turn("human", f"a {n}"), turn("gpt", f"b {n}")]},
    "tree": lambda n: {"prompt": _tree(n)},
}
RANKINGS: Rows = {
    "chosen and rejected": lambda n: {
        "prompt": f"question {n}",
        "chosen": f"good {n}",
        "rejected": f"bad, {n}",
    },
    "answers as messages": lambda n: {
        "prompt": [said("user", f"question {n}")],
        "chosen": [said("user", f"question {n}"), said("assistant", f"good {n}")],
        "rejected": [said("assistant", f"bad {n}")],
    },
    "implied prompt": lambda n: {
        "chosen": [*_talk(n), said("user", "?"), said("assistant", f"good {n}")],
        "rejected": [*_talk(n), said("user", "?"), said("assistant", f"bad {n}")],
    },
    "dialogue text": lambda n: {
        "chosen": f"\n\nHuman: question {n}\n\nAssistant: good {n}",
        "rejected": f"\n\nHuman: question {n}\n\nAssistant: bad {n}",
    },
    "ShareGPT": lambda n: {
        "conversations": [turn("human", f"question {n}")],
        "chosen": turn("gpt", f"good {n}"),
        "rejected": turn("gpt", f"bad {n}"),
    },
    "better and worse": lambda n: {"instruction": f"do {n}", "output": [f"good {n}", f"bad {n}"]},
    "orders": lambda n: {
        "prompt": f"question {n}",
        "responses": [f"a {n}", f"b {n}", f"c {n}"],
        "orders": [[[2], [0, 1]], [[1], [0], [2]]],
        "facts": {"n": n},
    },
    "one order": lambda n: {
        "prompt": f"question {n}",
        "responses": [{"text": f"a {n}", "model": "m"}, {"text": f"b {n}", "model": "k"}],
        "ranking_best_to_worst": [1, 0],
    },
    "tree": lambda n: {"prompt": _tree(n)},
    "tree without a wrapper": _tree,
}
PAIRS: Rows = {
    "strings": lambda n: {
        "prompt": f"question {n}",
        "chosen": f"good {n}",
        "rejected": f"bad {n}",
        "gap": 0.5 + n,
        "weight": 0.5,
        "margin": 1.5,
        "agreement": 0.25,
        "support": 1.0,
        "origin": f"a.jsonl:{n}",
        "facts": {"n": n},
    },
    "messages": lambda n: {
        "prompt": [*_talk(n), said("user", f"more {n}")],
        "chosen": [said("assistant", f"good {n}")],
        "rejected": [said("assistant", f"bad {n}")],
    },
}
PROBES: Rows = {
    "probe": lambda n: {"prompt": f"question {n}", "right": f"yes {n}", "wrong": f"no {n}"}
}
KINDS: dict[str, Rows] = {
    "conversations": CONVERSATIONS,
    "prompts": PROMPTS,
    "rankings": RANKINGS,
    "pairs": PAIRS,
    "probe": PROBES,
}


def read(kind: str, path: Path, **options: Any) -> list[Any]:
    """Every record of a file, by the reader of this kind."""
    sources = [DataSource(str(path), **options)]
    if kind == "rankings":
        found = (clean(ranking).ranking for ranking in read_rankings(sources))
        return [ranking for ranking in found if ranking]
    if kind == "pairs":
        return read_pairs(path)
    if kind == "probe":
        return read_probe(str(path))
    return (read_conversations if kind == "conversations" else read_prompts)(sources)


def without_origin(record: Any) -> Any:
    """The record to be compared: without its place, and the nulls that Parquet pads with."""
    if isinstance(record, ProbeRow):
        return record
    facts = {k: v for k, v in (record.facts or {}).items() if v is not None}
    return replace(record, origin="", facts=facts)


@functools.cache
def records_of(kind: str, layout: str, n: int, folder: Path) -> list[Any]:
    """What the undamaged row gives, when it is alone in a file of JSON lines."""
    path = folder / "alone.jsonl"
    write_file(path, [KINDS[kind][layout](n)])
    return [without_origin(record) for record in read(kind, path)]


def write_file(path: Path, rows: Sequence[Any]) -> list[str]:
    """Writes rows one by one as the file's ending says; gives back the place of each."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return [f"{path}:{n}" for n in range(1, len(rows) + 1)]
    if path.suffix == ".json":
        path.write_text("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
        return [f"{path}:{n}" for n in range(2, len(rows) + 2)]
    if path.suffix == ".csv":
        return _write_csv(path, rows)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = {name: pa.array([row.get(name) for row in rows]) for name in columns}
    pq.write_table(pa.table(table), path)
    return [f"{path}[{i}]" for i in range(len(rows))]


def cells_of(row: Any, header: Sequence[str]) -> list[str]:
    """A row of a CSV file: texts as they are, all else as JSON."""
    values = [row.get(name, "") for name in header] if isinstance(row, dict) else [row]
    return [value if isinstance(value, str) else json.dumps(value) for value in values]


def _write_csv(path: Path, rows: Sequence[Any]) -> list[str]:
    header, places, text = list(rows[0]), [], io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for row in rows:
        line = 1 + len(_LINE_ENDS.findall(text.getvalue()))
        places.append(f"{path}:{line}")
        writer.writerow(cells_of(row, header))
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))
    return places


def check_record(kind: str, record: Any) -> None:
    """Fails unless a record is what its class promises, whatever it was read from."""
    if isinstance(record, ProbeRow):
        check_texts(record.prompt, record.right, record.wrong)
        return
    check_texts(record.origin, *(m.content for m in record.messages))
    roles = [m.role for m in record.messages]
    turns = roles[1:] if roles[0] == "system" else roles
    assert turns == ["user", "assistant"] * (len(turns) // 2) + ["user"] * (len(turns) % 2)
    assert roles[-1] == ("assistant" if kind == "conversations" else "user")
    assert record.facts is None or isinstance(record.facts, dict)
    json.dumps(record.facts, ensure_ascii=False).encode()  # later stages write it
    if isinstance(record, Pair):
        check_texts(record.chosen, record.rejected)
        assert record.chosen.strip() != record.rejected.strip()
        for number in (record.gap, record.weight):
            assert type(number) is float and 0 < number < float("inf")
        assert record.margin is None or 0 <= record.margin < float("inf")
        for share in (record.agreement, record.support):
            assert share is None or 0 <= share <= 1
    if isinstance(record, Ranking):
        check_texts(*record.responses)
        count = len({response.strip() for response in record.responses})
        assert count == len(record.responses) >= 2 and record.ranks
        for ranks in record.ranks:
            places = sorted(rank for rank in ranks if rank is not None)
            means = [
                rank and sum(i for i, at in enumerate(places, 1) if at == rank) / places.count(rank)
                for rank in ranks
            ]
            assert len(ranks) == count and len(places) >= 2 and list(ranks) == means


def check_texts(*texts: Any) -> None:
    for text in texts:
        assert type(text) is str and text.strip()
        text.encode("utf-8")


def check_source(record: Any, row: Any) -> None:
    """Fails if a record holds a line of text that stands nowhere in its row."""
    texts = [message.content for message in record.messages]
    texts += record.responses if isinstance(record, Ranking) else ()
    pool = "\0".join(_strings(row))
    for line in "\n".join(texts).split("\n"):
        assert line in pool, line


def _strings(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        inside = value.values() if isinstance(value, dict) else value
        return [text for item in inside for text in _strings(item)]
    return [value if isinstance(value, str) else json.dumps(value)]
