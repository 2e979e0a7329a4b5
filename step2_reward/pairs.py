"""Aggregates the labelers' rankings and pairs the top two with the bottom two (paper §3.2)."""

from dataclasses import dataclass

from common.config.arguments import RunArguments, option
from common.data.encoding import describe
from common.data.layouts import read_rankings
from common.data.pairs import all_pairs, write_pairs
from common.data.sources import parse_sources, paths_of
from common.training.distributed import is_main
from common.training.stage import Stage, run_stage


@dataclass
class PairsArguments:
    """Which responses make pairs."""

    rankings: list[str] = option(
        [], "files of rankings in any layout; by default RUN/rank/rankings.jsonl"
    )
    top: int = option(2, "number of best responses that are preferred (paper: 2)")
    bottom: int = option(2, "number of worst responses that they are preferred to (paper: 2)")


ARGUMENTS = (RunArguments, PairsArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: PairsArguments) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    files = settings.rankings or [str(stage.root / "rank" / "rankings.jsonl")]
    stage.begin(paths_of(files))
    rankings = read_rankings(parse_sources(files))
    pairs, dropped = all_pairs(
        rankings.rankings, top=settings.top, bottom=settings.bottom, seed=run.seed
    )
    dropped += rankings.dropped
    if is_main():
        write_pairs(stage.folder / "pairs.jsonl", pairs)
    stage.finish(
        {"pairs": len(pairs), "rankings": len(rankings.rankings), "dropped": dict(dropped)},
        ", ".join(filter(None, [f"{len(pairs)} pairs", describe(dropped)])),
        outputs=[stage.folder / "pairs.jsonl"],
    )


if __name__ == "__main__":
    run_stage("pairs", ARGUMENTS, main, distributed=False)
