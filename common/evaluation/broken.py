"""A finished quickstart run, copied and broken on purpose, to see whether the diagnosis names why.

    python -m common.evaluation.broken KIND RUN OUT

copies RUN to OUT and writes `OUT/broken.yaml`; `launch/broken.sh` runs that. The pipeline then
does again only what comes after the break.
"""

import argparse
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import yaml

from common.config.parsing import read_yaml
from common.errors import UserError
from common.evaluation.run_files import read_lines, read_result
from common.files import write_json_lines, write_text

Kind = Literal["labels", "sft", "ppo"]

CULPRITS = {"labels": "reward", "sft": "sft", "ppo": "rlhf"}
"""Whose fault each break is, in the words of `common.evaluation.diagnosis`."""

QUICKSTART = Path(__file__).parents[2] / "launch" / "quickstart.yaml"
SHUFFLED = "shuffled_pairs.jsonl"
PPO_STEPS: dict[Kind, int] = {"labels": 20, "sft": 10, "ppo": 40}
"""Instead of 100: what is broken shows long before."""
EVALUATED_PROMPTS = 100
"""Of each split, instead of 200."""
SAMPLED_PROMPTS = 1500
"""Instead of 5,600, where all stages after SFT are done again."""
SFT_EPOCHS = 0.005
"""Ten steps of 16 of the quickstart's 31,725 examples."""


def break_run(kind: Kind, run: Path, out: Path) -> Path:
    """Prepares the broken copy and gives the pipeline file that makes it.

    A copy that is there already is left as it is: the pipeline goes on with it.

    Raises:
        UserError: RUN has no pairs (or is not finished), or OUT is inside of it.
    """
    if read_result(run / "evaluation" / "result.json") is None:
        raise UserError(f"{run}: not a finished run; make one with `bash launch/quickstart.sh`")
    if out.resolve().is_relative_to(run.resolve()):
        raise UserError(f"{out} lies inside of {run}: give a folder beside it")
    if not out.exists():
        part = out.with_name(f"{out.name}.part")  # one that was killed left half a copy there
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(run, part, ignore=shutil.ignore_patterns("plots", "*report*", ".lock"))
        if kind == "labels":
            rows, _ = read_lines(part / "pairs" / "pairs.jsonl")
            write_json_lines(part / SHUFFLED, shuffled((row for _, row in rows), seed=0))
        part.rename(out)
    config = out / "broken.yaml"
    tree, _ = read_yaml(QUICKSTART)
    write_text(config, yaml.safe_dump(broken_settings(kind, tree, out), sort_keys=False))
    return config


def broken_settings(kind: Kind, tree: dict[str, Any], out: Path) -> dict[str, Any]:
    """The quickstart's settings with one thing broken, and no more PPO than shows it.

    Args:
        tree: of `launch/quickstart.yaml`.
        out: the broken run.
    """
    rlhf: dict[str, Any] = {"steps": PPO_STEPS[kind]}
    changes: dict[str, dict[str, Any]] = {"rlhf": rlhf, "evaluation": {"limit": EVALUATED_PROMPTS}}
    if kind == "labels":
        changes["reward"] = {"data": [f"{{run}}/{SHUFFLED}"], "epochs": 1}
    elif kind == "sft":
        # What cannot end its answers writes long ones, and takes several times as long for each.
        changes["sft"] = {"epochs": SFT_EPOCHS}
        (prompts,) = tree["sample"]["data"]
        changes["sample"] = {"data": [{"path": prompts, "limit": SAMPLED_PROMPTS}]}
        changes["reward"] = {"epochs": 1}
    else:
        for name in ("actor_learning_rate", "critic_learning_rate"):
            rlhf[name] = 100.0 * tree["rlhf"][name]
    merged = {
        name: section | changes.get(name, {}) if isinstance(section, dict) else section
        for name, section in tree.items()
    }
    return merged | {"run": str(out)}


def shuffled(pairs: Iterator[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """The same pairs, in each of which a fair coin says which response is the better one."""
    rng = np.random.default_rng(seed)
    for pair in pairs:
        if rng.random() < 0.5:
            pair = pair | {"chosen": pair["rejected"], "rejected": pair["chosen"]}
        yield pair


def main(argv: list[str]) -> int:
    """Prints the pipeline file; returns the exit code."""
    parser = argparse.ArgumentParser(
        usage="bash launch/broken.sh KIND RUN OUT", description=__doc__.splitlines()[0]
    )
    parser.add_argument(
        "kind",
        choices=get_args(Kind),
        help="labels: of the pairs shuffled; sft: stopped after ten steps; ppo: a hundredfold "
        "learning rate",
    )
    parser.add_argument("run", type=Path, help="a finished quickstart run; it is not changed")
    parser.add_argument("out", type=Path, help="where the broken copy is made")
    args = parser.parse_args(argv)
    try:
        print(break_run(args.kind, args.run, args.out))
    except UserError as error:
        print(f"broken: error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
