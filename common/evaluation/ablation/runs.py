"""The runs that ablations need, and how those of one seed share the stages they have in common."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from common.config.parsing import SECTIONS, read_yaml
from common.config.pipeline import RECORD, check_sections
from common.errors import UserError
from common.evaluation.ablation.spec import Ablation, changed, slug
from common.evaluation.run_files import read_result
from common.files import write_json, write_text

CONFIGS = "configs"
LEFT_BEHIND = ("checkpoints", ".content_hashes.json")
"""What a copied stage can do without."""


@dataclass(frozen=True)
class Run:
    """A pipeline run of one seed."""

    folder: Path
    config: Path
    seed: int


def plan_runs(
    ablations: Sequence[Ablation], seeds: Sequence[int], root: Path, pipeline: Path
) -> list[Run]:
    """Every run in the order in which to make them, each config written to `ROOT/configs`.

    Runs that others build on come first, then those that several ablations share. All settings
    are checked before anything runs.

    Raises:
        UserError: blanks in the path; a pipeline file without evaluation; an arm that a stage
            refuses, or that changes a section that is not there; a base arm with other settings
            than its name says.
    """
    if any(c.isspace() for c in str(root)):
        raise UserError(f"--run: blanks in a path are not supported: {root}")
    tree, _ = read_yaml(pipeline)
    if "evaluation" not in tree:
        raise UserError(f"{pipeline}: an ablation needs a section 'evaluation' to compare by")
    if isinstance(tree["evaluation"], dict) and tree["evaluation"].get("best_of"):
        tree = changed(tree, {"evaluation": {"best_of": 0}})  # costs time, and is not compared
    trees: dict[str, dict[str, Any]] = {}
    for ablation in ablations:
        for name, spec in ablation.before.items():
            changes = {k: v for k, v in spec.items() if k != "stages"}
            kept = {k: v for k, v in tree.items() if k not in SECTIONS or k in spec["stages"]}
            trees[f"{ablation.name}.before.{slug(name)}"] = changed(kept, changes)
    for ablation in ablations:
        for arm in sorted(ablation.arms, key=lambda arm: bool(ablation.arms[arm])):
            try:
                trees[ablation.label(arm)] = changed(tree, ablation.arms[arm])
            except UserError as error:
                raise UserError(f"ablation {ablation.name}, arm '{arm}': {error}") from None
    runs = []
    for seed in seeds:
        for label, content in trees.items():
            folder = root / f"seed{seed}" / label
            runs.append(Run(folder, _write_config(root, label, seed, content, folder), seed))
    for ablation in ablations:
        label = ablation.label(ablation.base)
        _check_base(ablation, trees[label], next(r for r in runs if r.folder.name == label))
    return runs


def _check_base(ablation: Ablation, tree: Mapping[str, Any], base: Run) -> None:
    """Refuses a base arm that is not what the ablation calls it."""
    sections = [section for section in ablation.base_has if section in tree]
    _, marks = read_yaml(base.config)
    found = check_sections(base.config, sections, base.folder, base.seed, marks)
    for section, settings in ablation.base_has.items():
        for name, value in settings.items():
            has = found.get(section, {}).get(name)
            if has != value:
                raise UserError(
                    f"ablation {ablation.name}: its base arm '{ablation.base}' is one with "
                    f"{section}.{name} {value}, but the pipeline file has {has}; take a YAML file "
                    "of your own, with arms that are called what they are"
                )


def _write_config(root: Path, label: str, seed: int, tree: Mapping[str, Any], folder: Path) -> Path:
    """The run's pipeline file, checked as the pipeline will check it."""
    before = folder.parent / f"{label.split('.')[0]}.before."
    tree = {**_filled(tree, str(before)), "run": str(folder), "seed": seed}
    path = root / CONFIGS / f"seed{seed}.{label}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)  # else not: seeds side by side look at the plan at the same time
    _, marks = read_yaml(path)
    check_sections(path, [s for s in SECTIONS if s in tree], folder, seed, marks)
    return path


def _filled(value: Any, before: str) -> Any:  # noqa: ANN401
    """`{before}/NAME` as the directory of that run."""
    if isinstance(value, str):
        return value.replace("{before}/", before)
    if isinstance(value, list):
        return [_filled(v, before) for v in value]
    if isinstance(value, dict):
        return {k: _filled(v, before) for k, v in value.items()}
    return value


def share_stages(run: Run, donors: Sequence[Run]) -> list[str]:
    """Copies into a run that has not begun the stages that another run of its seed has finished.

    These are the first stages, as far as both pipelines have the same settings. The pipeline then
    looks at each as at any finished stage, and does again what is not as it should be.

    Args:
        donors: other runs; those of another seed are left alone.

    Returns:
        the stages that were taken over.
    """
    if run.folder.exists():
        return []
    best, stages = None, []
    for donor in donors:
        if donor.seed == run.seed and donor.folder != run.folder:
            found = _common_stages(run, donor)
            if len(found) > len(stages):
                best, stages = donor, found
    if best is None:
        return []
    partial = run.folder.with_name(f".{run.folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for stage in stages:
        shutil.copytree(
            best.folder / stage, partial / stage, ignore=shutil.ignore_patterns(*LEFT_BEHIND)
        )
        for output in (read_result(best.folder / stage / "result.json") or {}).get("outputs", []):
            path = Path(output.replace("{run}/", "", 1))
            if path.parts[0] != stage and not path.is_absolute():  # a model's folder
                shutil.copytree(best.folder / path, partial / path, dirs_exist_ok=True)
    write_json(partial / RECORD, {"seed": run.seed})
    os.rename(partial, run.folder)
    return stages


def _common_stages(run: Run, donor: Run) -> list[str]:
    """The first stages that both runs' files have alike and the donor has finished."""
    if not donor.config.is_file():
        return []
    mine, theirs = (read_yaml(one.config)[0] for one in (run, donor))
    stages = []
    for stage in (s for s in SECTIONS if s in mine or s in theirs):
        alike = stage in mine and stage in theirs and mine[stage] == theirs[stage]
        if not alike or not (donor.folder / stage / "result.json").is_file():
            break
        stages.append(stage)
    return stages
