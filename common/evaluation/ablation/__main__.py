"""What `launch/ablate.sh` asks: which runs there are to make, what one shares, what they came to.

python -m common.evaluation.ablation plan NAME… --seeds 0 1 2 --run DIR --config FILE
python -m common.evaluation.ablation share NAME… (the same) --into FOLDER
python -m common.evaluation.ablation report NAME… (the same)
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.evaluation.ablation.compare import Outcome, read_outcome
from common.evaluation.ablation.page import overview, page, picture
from common.evaluation.ablation.runs import Run, plan_runs, share_stages
from common.evaluation.ablation.spec import Ablation, names, read_ablation
from common.files import write_text


def main(argv: Sequence[str]) -> int:
    """The command line; the exit code."""
    options = _parser().parse_args(argv)
    try:
        options.seeds = list(dict.fromkeys(options.seeds))
        if min(options.seeds) < 0:
            raise UserError(f"--seeds: {min(options.seeds)} must be at least 0")
        chosen = names() if options.names == ["all"] else options.names
        ablations = [read_ablation(name) for name in dict.fromkeys(chosen)]
        if options.action == "report":
            report(ablations, options.seeds, options.run)
            return 0
        runs = plan_runs(ablations, options.seeds, options.run, options.config)
        if options.action == "plan":
            for run in runs:
                print(run.seed, run.folder, run.config)
        else:
            share(runs, options.into)
    except UserError as error:
        print(f"ablate: error: {error}", file=sys.stderr)
        return 2
    return 0


def share(runs: Sequence[Run], folder: Path) -> None:
    """Gives the run in `folder` what another one has done already."""
    (own,) = (run for run in runs if run.folder == folder)
    if stages := share_stages(own, runs):
        print(f"{folder}: shares {', '.join(stages)} with a run of the same seed")


def report(ablations: Sequence[Ablation], seeds: Sequence[int], root: Path) -> None:
    """Writes `ROOT/ablations.md` and a picture for each ablation; prints the table.

    Raises:
        UserError: nothing has finished.
    """
    results = {}
    for ablation in ablations:
        found: dict[str, dict[int, Outcome]] = {}
        for arm in ablation.arms:
            outcomes = (read_outcome(_folder(root, s, ablation, arm), s) for s in seeds)
            found[arm] = {o.seed: o for o in outcomes if o is not None}
        if any(found.values()):
            results[ablation.name] = (ablation, found)
        else:
            print(f"ablate: {ablation.name}: no run has finished", file=sys.stderr)
    if not results:
        raise UserError(f"{root}: no run of these ablations and seeds has finished")
    for name, (ablation, found) in results.items():
        (root / f"{name}.png").write_bytes(picture(ablation, found))
    write_text(root / "ablations.md", page(results, {name: f"{name}.png" for name in results}))
    print(overview(results))
    print(f"ablations: {root / 'ablations.md'}")


def _folder(root: Path, seed: int, ablation: Ablation, arm: str) -> Path:
    return root / f"seed{seed}" / ablation.label(arm)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ablate",
        add_help=False,  # the script's own
        usage="bash launch/ablate.sh NAME… [--seeds 0 1 2] [--run DIR] [--config FILE] [--jobs N]",
        description=f"Compares runs that differ in one thing. NAME: all, {', '.join(names())}, or "
        "a YAML file.",
    )
    parser.add_argument("action", choices=("plan", "share", "report"))
    parser.add_argument("names", nargs="+", metavar="NAME", help="ablations; all: every one")
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=[0, 1, 2], help="one run an arm each"
    )
    parser.add_argument("--run", type=Path, default=Path("runs/ablations"), help="takes all runs")
    parser.add_argument(
        "--config",
        type=Path,
        default=Path(__file__).parents[3] / "launch" / "quickstart.yaml",
        help="the pipeline that is changed",
    )
    parser.add_argument("--into", type=Path, help="for share: the run that is to begin")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
