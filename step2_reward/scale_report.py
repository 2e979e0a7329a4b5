"""What `scale.py` says of its cells: a line each, and a page of them all."""

from collections.abc import Sequence
from typing import Any

from common.data.labelers import in_words
from common.evaluation.formatting import cell


def row_of(size: str, parameters: int, fraction: float, result: dict[str, Any]) -> dict[str, Any]:
    """What is compared of a cell.

    Args:
        size: its name; parameters: the model's weights; fraction: share of the training prompts.
        result: of its reward stage.
    """
    found, who = result["diagnostics"], result.get("labelers")
    return {
        "size": size,
        "parameters": parameters,
        "fraction": fraction,
        "pairs": result["pairs"],
        "held_out_pairs": result["held_out_pairs"],
        "accuracy": found["accuracy"],
        "length_only": found["length_only"]["accuracy"],
        "ceiling": found["ceiling"],
        "labelers": in_words(who) if who else "not noted",
        "seconds": result["seconds"],
    }


def line_of(row: dict[str, Any]) -> str:
    """A cell's line."""
    low, high = row["accuracy"]["ci95"]
    return (
        f"{row['size']} ({row['parameters']:,} weights), {row['pairs']} pairs: held-out accuracy "
        f"{row['accuracy']['value']:.3f} [{low:.3f}, {high:.3f}], {row['seconds']:.0f} s"
    )


def report(rows: Sequence[dict[str, Any]]) -> str:
    """`scale.md`: the picture, and its numbers as a table, a row a size and a column a share."""
    fractions = sorted({row["fraction"] for row in rows})
    lines = [
        "# Reward model: accuracy against size and data",
        "",
        "![accuracy against size and against data](scale.png)",
        "",
        "Held-out pairs in the labelers' order, with 95% intervals (bootstrap over prompts). "
        f"Who ranked: {cell(rows[-1]['labelers'])}.",
        "",
        "| size | weights | "
        + " | ".join(f"{100 * f:.4g}% of the prompts" for f in fractions)
        + " |",
        "|---|--:|" + "--:|" * len(fractions),
    ]
    for size in dict.fromkeys(row["size"] for row in rows):
        own = {row["fraction"]: row for row in rows if row["size"] == size}
        cells = [
            "{:.3f} [{:.3f}, {:.3f}]".format(part["value"], *part["ci95"])
            for part in (own[f]["accuracy"] for f in fractions)
        ]
        weights = next(iter(own.values()))["parameters"]
        lines.append(f"| {cell(size)} | {weights:,} | {' | '.join(cells)} |")
    baselines = [row["length_only"] for row in rows if row["fraction"] == fractions[-1]]
    lines += ["", f"By length alone: {baselines[-1]['value']:.3f}."]
    if rows[-1]["ceiling"]:
        lines += ["", f"One labeler against the others: {rows[-1]['ceiling']['value']:.3f}."]
    if len({row["held_out_pairs"] for row in rows}) > 1 or (
        len({row["accuracy"]["count"] for row in rows}) > 1
    ):
        lines += [
            "",
            "**Not all cells have the same held-out pairs**: tokenizers differ in which prompts "
            "and responses are too long. Raise max_prompt_tokens and max_response_tokens.",
        ]
    return "\n".join(lines) + "\n"
