"""The results as data (`benchmarks.json`), and as a table for a file and for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import fill
from typing import Any

from common.evaluation.benchmarks.catalogue import CATALOGUE, TABLE1
from common.evaluation.benchmarks.scores import (
    average_of,
    benchmark_score,
    percent,
    score_of,
)
from common.evaluation.benchmarks.tasks import BenchmarkTask

Rows = Sequence[Mapping[str, Any]]

NOTES = {
    "fathom": "fathom: greedy generation, the text parsed, exact match, as the paper's Table 1 "
    "(GPT-Fathom's protocol; parsers and prompts are this project's own).",
    "harness": "harness: lm-evaluation-harness's own definitions, mostly log-likelihoods of the "
    "choices. They are not comparable with the paper's Table 1, which is generation and parsing.",
}
INTERVALS = (
    "In brackets: 95 % intervals over questions (Wilson's; over parts put together after Zou and "
    "Donner 2008)."
)


def cell(name: str, parts: Sequence[tuple[BenchmarkTask, Rows]]) -> dict[str, Any]:
    """A model's result on one benchmark.

    Args:
        name: of the benchmark.
        parts: each with its rows; at least one, none empty.

    Returns:
        score, low, high (percent), n, mode, average, shots, shots_dropped (prompts that lost
        some), prompts_cut, unparsed (share, 0 to 1), f1 (percent; None but for phrases in mode
        "fathom"), origin, source, and parts by name.
    """
    rows = [row for _, own in parts for row in own]
    return {
        **percent(benchmark_score(name, {part.subtask: own for part, own in parts})),
        "n": len(rows),
        "mode": parts[0][0].mode,
        "average": average_of(name) if len(parts) > 1 else "questions",
        "shots": span([part.shots for part, _ in parts]),
        "shots_dropped": sum(row["shots_dropped"] > 0 for row in rows),
        "prompts_cut": sum(row["prompt_cut"] for row in rows),
        "unparsed": round(sum(row["unparsed"] for row in rows) / len(rows), 4),
        "f1": mean_f1(rows),
        "origin": "; ".join(dict.fromkeys(part.origin for part, _ in parts)),
        "source": shortened([part.source for part, _ in parts]),
        "parts": {
            part.subtask: {
                **percent(score_of(own)),
                "n": len(own),
                "shots": part.shots,
                "shots_dropped": sum(row["shots_dropped"] > 0 for row in own),
                "unparsed": round(sum(row["unparsed"] for row in own) / len(own), 4),
                "source": part.source,
            }
            for part, own in parts
        },
    }


def cells(parts: Iterable[tuple[BenchmarkTask, Rows]]) -> dict[str, dict[str, Any]]:
    """Benchmark -> its `cell`, of a model's parts."""
    groups: dict[str, list[tuple[BenchmarkTask, Rows]]] = {}
    for part, rows in parts:
        groups.setdefault(part.benchmark, []).append((part, rows))
    return {name: cell(name, own) for name, own in groups.items()}


def mean_f1(rows: Rows) -> float | None:
    """Of the words in common with the nearest accepted answer, in percent."""
    found = [row["f1"] for row in rows if "f1" in row]
    return round(100 * sum(found) / len(found), 2) if len(found) == len(rows) else None


def shortened(sources: Sequence[str]) -> str:
    """Where the data of all parts come from; each part's own is in `parts`."""
    distinct = list(dict.fromkeys(sources))
    more = f" (and so on, {len(sources)} parts)" if len(distinct) > 1 else ""
    return distinct[0] + more


def span(numbers: Sequence[int]) -> str:
    """ "5", or "3–5" where they differ."""
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}–{high}"


def results(
    found: Mapping[str, Mapping[str, Mapping[str, Any]]],
    names: Sequence[str],
    mode: str,
    left_out: Sequence[str],
    limit: int,
    subtasks: int,
    contexts: Mapping[str, int],
) -> dict[str, Any]:
    """What `benchmarks.json` holds.

    Args:
        found: model -> benchmark -> `cell`.
        names: benchmarks, in the order of the columns.
        left_out: what was not asked, and why, a line each.
        limit, subtasks: questions a part, and parts a benchmark; 0: all.
        contexts: model -> tokens of its context.
    """
    notes = [NOTES[mode], INTERVALS]
    averaged = [n for n in names if CATALOGUE[n].subtasks and any(n in c for c in found.values())]
    for kind in ("parts", "questions"):
        titles = [CATALOGUE[n].title for n in averaged if average_of(n) == kind]
        if titles:
            notes.append(f"Mean over {kind}: {', '.join(titles)}.")
    if limit or subtasks:
        which = [f"the first {limit} questions of a part"] if limit else []
        which += [f"the first {subtasks} parts of a benchmark"] if subtasks else []
        notes.append(f"A sample: {', '.join(which)}. Not the benchmarks' whole scores.")
    if mode == "fathom":
        notes += [note for m, c in found.items() if (note := short_answers(m, c, contexts[m]))]
    notes += [note for m, c in found.items() for note in mostly(m, c)]
    return {
        "mode": mode,
        "limit": limit,
        "subtasks": subtasks,
        "contexts": dict(contexts),
        "benchmarks": {
            n: {"title": CATALOGUE[n].title, "group": CATALOGUE[n].group} for n in names
        },
        "models": {model: {n: own[n] for n in names if n in own} for model, own in found.items()},
        "paper": {
            model: {n: CATALOGUE[n].paper[model] for n in names if model in CATALOGUE[n].paper}
            for model in TABLE1
        },
        "left_out": list(left_out),
        "notes": notes,
    }


def mostly(model: str, asked: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What must be known of scores before they are believed: nothing read, prompts cut."""
    for what, share in (
        ("answers could not be read", lambda c: c["unparsed"]),
        ("prompts were too long, and lost their beginning", lambda c: c["prompts_cut"] / c["n"]),
    ):
        shares = {CATALOGUE[n].title: share(c) for n, c in asked.items()}
        found = [f"{name} {value:.0%}" for name, value in shares.items() if value >= 0.5]
        if found:
            yield f"{model}: most {what}: {', '.join(found)}."


def short_answers(model: str, asked: Iterable[str], context: int) -> str:
    """In which benchmarks answers had fewer tokens than they should have; "" where in none."""
    most = context // 2  # see `Context.room`
    cut = [b for b in map(CATALOGUE.__getitem__, asked) if b.max_new_tokens > most]
    if not cut:
        return ""
    which = ", ".join(f"{b.title} (of {b.max_new_tokens})" for b in cut)
    return (
        f"{model}: its context is {context} tokens; answers had at most {most} of them in {which}."
    )


def grid(found: Mapping[str, Any]) -> list[list[str]]:
    """The main table: a row a model, a column a benchmark, and the paper's rows below."""
    names = list(found["benchmarks"])
    rows = [["model", *(found["benchmarks"][n]["title"] for n in names)]]
    for model, own in found["models"].items():
        rows.append([model, *(short(own.get(n)) for n in names)])
    for model, scores in found["paper"].items():
        if scores:
            texts = (f"{scores[n]:.1f}" if n in scores else "–" for n in names)
            rows.append([f"{model} (paper)", *texts])
    return rows


def short(found: Mapping[str, Any] | None) -> str:
    """ "45.2 (42.1–48.3)": the score and its interval, in percent."""
    if found is None:
        return "–"
    return f"{found['score']:.1f} ({found['low']:.1f}–{found['high']:.1f})"


DETAILS = (
    *("model", "benchmark", "score %", "95 % interval", "questions", "mean over", "mode"),
    *("shots", "prompts with shots dropped", "prompts cut", "unparsed", "F1 %", "task", "data"),
)


def details(found: Mapping[str, Any]) -> list[list[str]]:
    """A row a cell, with all that belongs to it."""
    rows = [list(DETAILS)]
    for model, every in found["models"].items():
        for name, own in every.items():
            rows.append(
                [
                    model,
                    found["benchmarks"][name]["title"],
                    f"{own['score']:.2f}",
                    f"{own['low']:.2f} to {own['high']:.2f}",
                    str(own["n"]),
                    own["average"],
                    own["mode"],
                    own["shots"],
                    str(own["shots_dropped"]),
                    str(own["prompts_cut"]),
                    f"{100 * own['unparsed']:.1f} %",
                    "–" if own.get("f1") is None else f"{own['f1']:.2f}",
                    own["origin"],
                    own["source"],
                ]
            )
    return rows


def markdown(found: Mapping[str, Any]) -> str:
    """The whole page: the table, what belongs to each cell, notes, and what was left out."""
    parts = ["# Benchmarks", "Scores in percent.", as_markdown(grid(found))]
    parts.append("\n".join(f"- {note}" for note in found["notes"]))
    parts += ["## Each score", as_markdown(details(found))]
    if found["left_out"]:
        parts += ["## Left out", "\n".join(f"- {line}" for line in found["left_out"])]
    return "\n\n".join(parts) + "\n"


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its head."""
    lines = ["| " + " | ".join(x.replace("|", "\\|") for x in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def terminal(found: Mapping[str, Any], width: int = 100) -> str:
    """The main table in blocks of columns that fit the width, and the notes."""
    rows = grid(found)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    blocks, block, used = [], [0], widths[0]
    for column in range(1, len(widths)):
        if len(block) > 1 and used + 2 + widths[column] > width:
            blocks.append(block)
            block, used = [0], widths[0]
        block.append(column)
        used += 2 + widths[column]
    blocks.append(block)
    texts = []
    for block in blocks:
        lines = [
            "  ".join(
                row[i].ljust(widths[i]) if i == 0 else row[i].rjust(widths[i]) for i in block
            ).rstrip()
            for row in rows
        ]
        texts.append("\n".join([lines[0], "-" * len(lines[0]), *lines[1:]]))
    texts.append("\n".join(fill(note, width) for note in found["notes"]))
    if found["left_out"]:
        texts.append("\n".join(["Left out:", *(f"  {line}" for line in found["left_out"])]))
    return "\n\n".join(texts)
