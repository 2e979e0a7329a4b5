"""Which stages of a run are older than what they were made from, by content and not by dates.

A stage done again leaves what later stages made of its former result: after PPO with other settings
the run still holds the evaluation of the actor before. Each stage has noted a hash of all that it
read (`common.training.resume.identity`), so what is of something else than is there now is known.
"""

import os
from collections.abc import Iterator
from pathlib import Path

from common.evaluation.run_files import STAGES
from common.training.resume.identity import (
    RECORD,
    Identity,
    content_hashes,
    movable,
    read_identity,
)

MAKERS = {"sft": "sft", "reward": "reward", "actor": "rlhf", "critic": "rlhf", "dpo": "dpo"}
"""Model's folder -> the stage that makes it."""
LASTING = {"evaluation": "responses.jsonl", "benchmarks": "benchmarks.json"}
"""What a stage leaves lying while it is done again; of other stages the report reads what goes at
once."""


def outdated(run: Path) -> tuple[dict[str, str], list[str]]:
    """Stages whose result is not of what the run holds now, and notes on records that say nothing.

    What lies outside of the run, and what is gone from it, is taken for unchanged. A stage without
    a record is taken at its word.

    Returns:
        stage -> why, as the end of a sentence; and the notes.
    """
    begun, notes = {}, []
    for stage in STAGES:
        identity = read_identity(run / stage)
        if identity is not None and isinstance(identity.inputs, dict):
            begun[stage] = identity
        elif (run / stage / RECORD).is_file():
            notes.append(
                f"{stage}/{RECORD}: cannot be read, so whether this stage is older than what it "
                "was made from is not known"
            )
    finished = {stage for stage in begun if (run / stage / "result.json").is_file()}
    inputs = {stage: dict(_inside(run, begun[stage])) for stage in finished}
    try:
        now = content_hashes([p for paths in inputs.values() for p in paths.values()], run)
    except (OSError, LookupError, RecursionError) as error:
        # A file goes while it is read, the run is not to be written to, the cache is damaged.
        notes.append(f"what has changed in the run cannot be told: {error}")
        return {}, notes
    found: dict[str, str] = {}
    for stage, identity in begun.items():
        if stage not in finished:
            if stage in LASTING and (run / stage / LASTING[stage]).is_file():
                found[stage] = f"{stage} was begun anew, and has not finished"
            continue
        whys = (
            _why(run, path, identity.inputs[name] != now[str(movable(path, run))], begun, finished)
            or (f"{maker} is out of date itself" if (maker := _maker(run, path)) in found else "")
            for name, path in inputs[stage].items()
        )
        if why := next(filter(None, whys), ""):
            found[stage] = why
    return found, notes


def _inside(run: Path, identity: Identity) -> Iterator[tuple[str, str]]:
    """(name, path) of the inputs that lay in the run then, and are there now."""
    for name, before in identity.inputs.items():
        path = name.replace("{run}", str(run))
        inside = Path(os.path.abspath(path)).is_relative_to(os.path.abspath(run))
        if inside and before != "hub" and os.path.exists(path):
            yield name, path


def _why(
    run: Path, path: str, changed: bool, begun: dict[str, Identity], finished: set[str]
) -> str:
    maker = _maker(run, path)
    if maker in begun and maker not in finished:
        return f"{maker} was begun anew, and has not finished"
    return f"{_relative(run, path)} has changed since" if changed else ""


def _maker(run: Path, path: str) -> str:
    """The stage that makes a file or folder of the run; empty where that is none."""
    first, *rest = Path(_relative(run, path)).parts
    if first == "models":
        return MAKERS.get(rest[0], "") if rest else ""
    return first if first in STAGES else ""


def _relative(run: Path, path: str) -> str:
    return os.path.relpath(path, run)
