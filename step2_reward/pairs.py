"""Aggregates the labelers' rankings and pairs the top two with the bottom two (paper §3.2)."""

from dataclasses import dataclass
from pathlib import Path

from common.config.arguments import RunArguments, option
from common.data.layouts import read_rankings
from common.data.pairs import PairArguments, make_pairs, write_pairs
from common.data.sources import parse_sources, paths_of
from common.errors import UserError
from common.files import write_json
from common.training.distributed import is_main
from common.training.run import run_stage
from common.training.stage import Stage


@dataclass
class PairsArguments(PairArguments):
    """The rankings, and which of their responses make pairs."""

    rankings: list[str] = option(
        [],
        "files of rankings in any layout; what several say of the same prompt and responses is "
        "merged; by default RUN/rank/rankings.jsonl",
    )


ARGUMENTS = (RunArguments, PairsArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: PairsArguments) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    files = settings.rankings or [default_rankings(stage.root)]
    stage.begin(paths_of(files))
    rankings = read_rankings(parse_sources(files))
    pairs, account = make_pairs(rankings, settings, seed=run.seed)
    outputs = [stage.folder / "pairs.jsonl", stage.folder / "account.json"]
    if is_main():
        write_pairs(outputs[0], pairs)
        write_json(outputs[1], account.as_dict())
    made = f"{len(pairs)} pairs from {len(rankings)} rankings: {settings.in_words()}"
    stage.say(f"{made}\n{account.table()}")
    stage.finish(
        {"pairs": len(pairs), "rankings": len(rankings), **account.as_dict()},
        f"{len(pairs)} pairs for {len(account.prompts_kept)} prompts",
        outputs=outputs,
    )


def default_rankings(run: Path) -> str:
    """The simulated labelers' file.

    Raises:
        UserError: there is none; names other rankings of this run, which somebody has to choose.
    """
    file = run / "rank" / "rankings.jsonl"
    if file.is_file():
        return str(file)
    others = [run / name / "rankings.jsonl" for name in ("annotate", "import", "ai_rank")]
    if found := " ".join(str(other) for other in others if other.is_file()):
        raise UserError(f"{file}: no such file; to make pairs of others, --rankings {found}")
    people, imported, judged = others
    raise UserError(
        f"{file}: no such file; simulated labelers (step2_reward/rank.sh) make it. Name other "
        f"rankings with --rankings: people's, {people}, once exported (annotate.sh --export "
        f"{people}); imported ones, {imported}; AI feedback, {judged}"
    )


if __name__ == "__main__":
    run_stage("pairs", ARGUMENTS, main, distributed=False)
