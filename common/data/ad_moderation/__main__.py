"""Writes the splits of the embedded domain, or describes its SFT mixture.

python -m common.data.ad_moderation --output DIR --seed N [--scale 1.0]
python -m common.data.ad_moderation --describe [--seed N]
"""

import argparse
import random
import sys
from pathlib import Path
from statistics import fmean

from common.data.ad_moderation.answers import STYLE_SHARES, answer
from common.data.ad_moderation.general import GENERAL_STYLES, draw_general, general_answer
from common.data.ad_moderation.rubric import score
from common.data.ad_moderation.splits import Sizes, write_splits
from common.data.ad_moderation.tasks import draw_task
from common.errors import UserError
from common.evaluation.criteria import CRITERIA, overall_score


def style_scores(
    *, seed: int, prompts: int = 500, general: bool = False
) -> dict[str, dict[str, float]]:
    """Mean points per criterion, mean `overall` (0–100) and mean `words` of each answer style.

    The row `mixture` weights the styles by their shares: what a model that imitates the SFT targets
    perfectly scores when it is sampled.
    """
    rng = random.Random(f"{seed}/describe")
    shares = GENERAL_STYLES if general else STYLE_SHARES
    tasks = [draw_general(rng) if general else draw_task(rng, "seen") for _ in range(prompts)]
    table: dict[str, dict[str, float]] = {}
    for style in shares:
        write = general_answer if general else answer
        texts = [write(rng, task.facts, style) for task in tasks]
        points = [score(text, task.facts) for text, task in zip(texts, tasks, strict=True)]
        table[style] = {name: fmean(p[name] for p in points) for name in CRITERIA}
        table[style]["overall"] = fmean(overall_score(p) for p in points)
        table[style]["words"] = fmean(len(text.split()) for text in texts)
    table["mixture"] = {
        column: sum(share * table[style][column] for style, share in shares.items())
        for column in table["full"]
    }
    return table


def _print_table(title: str, table: dict[str, dict[str, float]], shares: dict[str, float]) -> None:
    columns = list(table["mixture"])
    print(f"\n{title:12s} share " + " ".join(f"{column[:8]:>8s}" for column in columns))
    for style, row in table.items():
        cells = " ".join(f"{row[column]:8.2f}" for column in columns)
        print(f"{style:12s} {shares.get(style, 1.0):5.2f} {cells}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m common.data.ad_moderation")
    parser.add_argument("--output", type=Path, help="folder that receives the JSON-lines files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the size of each split")
    parser.add_argument("--describe", action="store_true", help="print the rubric's mean per style")
    options = parser.parse_args(arguments)
    if options.output is None and not options.describe:
        parser.error("give --output DIR, or --describe")
    if options.describe:
        _print_table("ads", style_scores(seed=options.seed), STYLE_SHARES)
        _print_table("general", style_scores(seed=options.seed, general=True), GENERAL_STYLES)
    if options.output is not None:
        try:
            counts = write_splits(
                options.output, seed=options.seed, sizes=Sizes().scaled(options.scale)
            )
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        for name, count in counts.items():
            print(f"{options.output / name}.jsonl: {count} rows")
    return 0


if __name__ == "__main__":
    sys.exit(main())
