"""What an ablation compares: `launch/ablations/NAME.yaml`.

    title: KL coefficient
    question: Does the penalty on leaving the SFT model help?
    base: as it is          # the arm that the others are compared with
    arms:
      as it is: {}
      none: {rlhf: {kl_coefficient: 0}}
    paper: {none: {says: worse, where: "§3.3, without figures"}}

An arm's settings are laid over the pipeline file's, section by section. `base_has`, in the form of
an arm, says what the names and the question take the base arm to have: a pipeline file with other
settings is refused. `before` names runs that arms build on; `{before}/NAME` is such a run's
directory.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.config.parsing import SECTIONS, place, read_yaml
from common.errors import UserError, nearest

FOLDER = Path(__file__).parents[3] / "launch" / "ablations"
KEYS = ("title", "question", "base", "base_has", "arms", "paper", "before")
SAYS = ("better", "worse")
STANDARD = "standard"
"""The run that an arm without changes is; every ablation shares it."""


@dataclass(frozen=True)
class Claim:
    """What the paper says of an arm, against the base arm."""

    says: str
    """`better` or `worse`."""
    where: str


@dataclass(frozen=True)
class Ablation:
    """One question, asked by pipelines that differ in one thing."""

    name: str
    title: str
    question: str
    base: str
    arms: dict[str, dict[str, Any]]
    """Arm -> section -> setting -> value."""
    paper: dict[str, Claim] = field(default_factory=dict)
    before: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Run -> `stages` that it has, and changed sections."""
    base_has: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of the base arm that its name stands for."""

    @property
    def others(self) -> list[str]:
        """The arms that are compared with the base."""
        return [arm for arm in self.arms if arm != self.base]

    def label(self, arm: str) -> str:
        """Folder of an arm's run, within its seed's."""
        return f"{self.name}.{slug(arm)}" if self.arms[arm] else STANDARD


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^\w+-]+", "_", name).strip("_")


def names() -> list[str]:
    """The ablations that there are."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_ablation(name: str) -> Ablation:
    """An ablation by its name, or from a file of one's own.

    Raises:
        UserError: no such ablation; a key, arm or section that is not one; a missing part.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file() and path == Path(name):
        raise UserError(f"{path}: there is no such file")
    if not path.is_file():
        raise UserError(
            f"unknown ablation '{name}'{nearest(name, names())}; there are {', '.join(names())}, "
            "and a YAML file of your own is taken as well"
        )
    tree, marks = read_yaml(path)
    for key in tree:
        if key not in KEYS:
            raise UserError(f"{place(path, marks, key)}: unknown key '{key}'{nearest(key, KEYS)}")
    arms, base = tree.get("arms"), tree.get("base")
    if not isinstance(arms, dict) or len(arms) < 2:
        raise UserError(f"{place(path, marks, 'arms')}: 'arms' must hold two arms at least")
    if base not in arms:
        raise UserError(f"{place(path, marks, 'base')}: 'base' must name one of the arms")
    for arm, changes in arms.items():
        _check_changes(changes, f"{place(path, marks, f'arms.{arm}')}: arm '{arm}'")
    if len({slug(arm) for arm in arms}) < len(arms):
        raise UserError(f"{place(path, marks, 'arms')}: two arms would have the same folder")
    base_has = tree.get("base_has") or {}
    _check_changes(base_has, place(path, marks, "base_has"))
    before = tree.get("before") or {}
    for run, changes in before.items():
        at = f"{place(path, marks, f'before.{run}')}: run '{run}'"
        stages = changes.get("stages") if isinstance(changes, dict) else None
        if not isinstance(stages, list) or not set(stages) <= set(SECTIONS):
            raise UserError(f"{at}: 'stages' must list stages ({', '.join(SECTIONS)})")
        _check_changes({k: v for k, v in changes.items() if k != "stages"}, at)
    return Ablation(
        name=path.stem,
        title=str(tree.get("title") or path.stem),
        question=str(tree.get("question") or ""),
        base=base,
        arms=arms,
        paper=_claims(tree.get("paper") or {}, arms, base, place(path, marks, "paper")),
        before=before,
        base_has={section: settings or {} for section, settings in base_has.items()},
    )


def _claims(
    given: Mapping[str, Any], arms: Mapping[str, Any], base: str, at: str
) -> dict[str, Claim]:
    claims = {}
    for arm, claim in given.items():
        if arm not in arms or arm == base:
            raise UserError(f"{at}: '{arm}' is no arm that is compared with '{base}'")
        if not isinstance(claim, dict) or claim.get("says") not in SAYS or not claim.get("where"):
            raise UserError(f"{at}: '{arm}' needs `says` ({' or '.join(SAYS)}) and `where`")
        claims[arm] = Claim(claim["says"], str(claim["where"]))
    return claims


def _check_changes(changes: Any, at: str) -> None:  # noqa: ANN401
    """Sections with settings; null takes a section out."""
    if not isinstance(changes, dict):
        raise UserError(f"{at}: must hold sections with settings; {{}} changes nothing")
    for section, settings in changes.items():
        if section not in SECTIONS:
            raise UserError(f"{at}: unknown section '{section}'{nearest(section, SECTIONS)}")
        if not isinstance(settings, dict | None):
            raise UserError(f"{at}: '{section}' must hold settings (key: value), or null")


def changed(tree: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A pipeline file's content with an arm's settings laid over it, sections in their order.

    Raises:
        UserError: a change to a section that the pipeline file does not have.
    """
    result = dict(tree)
    for section, settings in changes.items():
        if settings is None:
            result.pop(section, None)
        elif section not in tree:
            raise UserError(
                f"the arm changes '{section}', which is no section of the pipeline file; sections "
                f"in it: {', '.join(s for s in SECTIONS if s in tree)}"
            )
        else:
            result[section] = {**(tree[section] or {}), **settings}
    return result
