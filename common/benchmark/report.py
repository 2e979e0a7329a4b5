"""Puts the parts of a benchmark together: benchmark.json, a page with plots, a table.

`python -m common.benchmark.report RUN`
"""

import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.benchmark.shapes import QUICKSTART, WIDE
from common.errors import UserError
from common.files import write_json, write_text
from common.training.versions import package_versions

PARTS = ("rollouts", "sharded", "iteration", "iteration_sharded", "supervised", "roofline")
"""Folders of a benchmark's run that hold a `rows.json`."""


def main(folder: Path) -> None:
    """Reads the parts, writes the page, and prints the ratios."""
    parts = {name: read_rows(folder / name) for name in PARTS}
    if not any(parts.values()):
        raise UserError(f"{folder}: no part of a benchmark lies here; run launch/benchmark.sh")
    found = {**ratios(parts), "machine": machine(), "versions": package_versions(), "raw": parts}
    write_json(folder / "benchmark.json", found)
    pictures = plots(folder, parts)
    write_text(folder / "benchmark.md", page(found, pictures))
    print(table(flat_ratios(found)))
    print(f"benchmark: {folder / 'benchmark.json'}, {folder / 'benchmark.md'}")


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of one part; none where it was not run."""
    # A part that runs as `stage.folder` lies one level down, under its stage's name.
    files = sorted(folder.glob("*/rows.json")) or sorted(folder.glob("rows.json"))
    return json.loads(files[0].read_text()) if files else []


def ratios(parts: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Above 1 where ours is ahead; None where a part was not run (two ranks on one card).

    Those of the quickstart's shape bear the plain names.
    """

    def rollout(part: str, shape: str, lengths: str) -> float | None:
        return one(parts[part], "ratio", shape=shape, lengths=lengths)

    def trained(shape: str, task: str, field: str) -> float | None:
        return one(parts["supervised"], field, shape=shape, task=task)

    found: dict[str, Any] = {}
    for shape, suffix in ((QUICKSTART.name, ""), (WIDE.name, "_width_256")):
        found[f"rollout_vs_generate{suffix}"] = {
            "real_lengths": rollout("rollouts", shape, "real_lengths"),
            "fixed_lengths": rollout("rollouts", shape, "fixed_lengths"),
            "one_sample": rollout("rollouts", shape, "one_sample"),
            "zero3_2_ranks": rollout("sharded", shape, "real_lengths"),
            "zero3_2_ranks_whole": rollout("sharded", shape, "real_lengths_whole_weights"),
        }
        for task in ("sft", "reward"):
            found[f"{task}_vs_trl{suffix}"] = trained(shape, task, "ratio")
            found[f"{task}_memory_vs_trl{suffix}"] = trained(shape, task, "memory_ratio")
    return found


def one(rows: Sequence[dict[str, Any]], field: str, **where: str) -> float | None:
    """The field of the row that matches; None where there is none."""
    match = [r for r in rows if all(r[k] == v for k, v in where.items())]
    return match[0][field] if match else None


def flat_ratios(found: dict[str, Any]) -> dict[str, float]:
    """Every ratio under one name."""
    flat = {}
    for name, value in found.items():
        if isinstance(value, dict) and name.startswith("rollout"):
            flat |= {f"{name}, {k}": v for k, v in value.items() if v is not None}
        elif isinstance(value, float):
            flat[name] = value
    return flat


def table(flat: dict[str, float]) -> str:
    """Names and ratios in two columns."""
    width = max(map(len, flat))
    return "\n".join(f"{name:<{width}}  {value:5.2f}" for name, value in flat.items())


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import os

    import torch

    if torch.cuda.is_available():
        return {"device": torch.cuda.get_device_name(), "cores": os.cpu_count()}
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {"device": model, "cores": os.cpu_count()}


def page(found: dict[str, Any], pictures: Sequence[str]) -> str:
    """The benchmark page, Markdown."""
    raw = found["raw"]
    lines = [
        "# Benchmark",
        "",
        f"Measured on {found['machine']['device']}, {found['machine']['cores']} cores, with torch "
        f"{found['versions']['torch']} and transformers {found['versions']['transformers']}, by "
        "`bash launch/benchmark.sh`. A ratio above 1 means that ours is ahead; the two sides of "
        "each ratio were measured in turns in one run. Absolute figures hold here only. In "
        "training, both sides learn from the same examples in batches of the same size; ours "
        "packs several into a row, and encodes a pair's prompt once.",
        "",
        "| ratio | |",
        "|---|---|",
        *(f"| {name} | {value:.2f} |" for name, value in flat_ratios(found).items()),
        "",
        *(f"![{name}]({name})" for name in pictures),
    ]
    for name, rows in raw.items():
        if rows:
            lines += ["", f"## {name.replace('_', ' ')}", "", *markdown_table(rows)]
    return "\n".join(lines) + "\n"


def markdown_table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of equal fields as Markdown."""
    names = list(rows[0])
    shown = [[_shown(r[n]) for n in names] for r in rows]
    return [
        "| " + " | ".join(n.replace("_", " ") for n in names) + " |",
        "|" + "---|" * len(names),
        *("| " + " | ".join(r) + " |" for r in shown),
    ]


def _shown(value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def plots(folder: Path, parts: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Writes the PNGs; returns their names."""
    names = []
    if parts["rollouts"]:
        names.append(_bars(folder, "rollouts", parts["rollouts"]))
    if parts["iteration"]:
        names.append(_phases(folder, [*parts["iteration"], *parts["iteration_sharded"]]))
    if parts["roofline"]:
        names.append(_shares(folder, parts["roofline"]))
    return names


def _bars(folder: Path, name: str, rows: Sequence[dict[str, Any]]) -> str:
    """Tokens a second of ours and of generate, side by side."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.4 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    labels = [f"{r['shape']}, {r['lengths'].replace('_', ' ')}" for r in rows]
    places = range(len(rows))
    for offset, field, color in (
        (-0.2, "native_tokens_per_second", "#0072B2"),
        (0.2, "generate_tokens_per_second", "#D55E00"),
    ):
        values = [r[field] for r in rows]
        axes.barh(
            [p + offset for p in places], values, 0.38, color=color, label=field.split("_")[0]
        )
    axes.set_yticks(list(places), labels)
    axes.invert_yaxis()
    axes.set_xlabel("tokens a second: longer is better")
    axes.legend()
    figure.savefig(folder / f"{name}.png", dpi=110)
    return f"{name}.png"


def _phases(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Seconds of an iteration, stacked by phase."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.5 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    labels = [f"{r['shape']}, {r['lengths']}, {r['ranks']} rank(s)" for r in rows]
    starts = [0.0] * len(rows)
    for phase, color in zip(
        ("generate", "score", "train"), ("#0072B2", "#E69F00", "#009E73"), strict=True
    ):
        values = [r[f"{phase}_seconds"] for r in rows]
        axes.barh(labels, values, left=starts, color=color, label=phase)
        starts = [s + v for s, v in zip(starts, values, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("seconds of a PPO iteration")
    axes.legend()
    figure.savefig(folder / "iteration.png", dpi=110)
    return "iteration.png"


def _shares(folder: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Shares of the machine's own rates that decoding and training reach."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.6 * len(rows) + 1.5), layout="constrained")
    axes = figure.subplots()
    places = range(len(rows))
    for offset, field, of, color in (
        (-0.2, "decode_share", "decoding, of the memory's rate", "#0072B2"),
        (0.2, "train_share", "training, of the matrix product's rate", "#009E73"),
    ):
        values = [100 * r[field] for r in rows]
        axes.barh([p + offset for p in places], values, 0.38, color=color, label=of)
    axes.set_yticks(list(places), [f"{r['shape']}, {r['rows']} rows" for r in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.set_xlabel("percent of what a plain copy and a plain product reach on this machine")
    axes.legend()
    figure.savefig(folder / "roofline.png", dpi=110)
    return "roofline.png"


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except UserError as error:
        print(f"benchmark: error: {error}", file=sys.stderr)
        sys.exit(2)
