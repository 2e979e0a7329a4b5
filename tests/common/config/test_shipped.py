"""The files that the project ships: every stage takes them, and they say what they claim."""

import importlib
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from common.config.arguments import RunArguments
from common.config.parsing import (
    PRESETS,
    SECTIONS,
    parse_arguments,
    preset_names,
    resolved_settings,
)
from common.config.pipeline import MODULES

ROOT = Path(__file__).parents[3]


def stage_types(section: str) -> tuple[type, ...]:
    return importlib.import_module(MODULES[section]).ARGUMENTS


def test_every_section_has_a_stage():
    assert tuple(MODULES) == SECTIONS


@pytest.mark.parametrize("section", SECTIONS)
def test_a_stages_settings_have_distinct_names_and_help(section):
    types = stage_types(section)
    assert types[0] is RunArguments
    names = [f.name for t in types for f in fields(t)]
    assert len(names) == len(set(names))
    assert all(f.metadata.get("help") for t in types for f in fields(t))


@pytest.mark.parametrize("section", SECTIONS)
def test_a_stages_help_can_be_shown(section, capsys):
    """argparse takes a percent sign in a line of help for a placeholder."""
    with pytest.raises(SystemExit) as end:
        parse_arguments(stage_types(section), section, ["--help"])
    assert end.value.code == 0
    assert "--seed" in capsys.readouterr().out


SHIPPED = sorted([*(ROOT / "launch").glob("*.yaml"), *PRESETS.glob("*.yaml")])


@pytest.mark.parametrize("path", SHIPPED, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_shipped_file_parses_in_every_stage_that_it_has(path):
    """And each of its settings arrives in the stage's dataclasses as it stands in the file."""
    tree = yaml.safe_load(path.read_text())
    sections = [name for name in SECTIONS if name in tree]
    assert sections
    for section in sections:
        groups = parse_arguments(stage_types(section), section, ["--config", str(path)])
        found = resolved_settings(*groups)
        for name, value in (tree[section] or {}).items():
            if isinstance(value, list):
                assert len(found[name]) == len(value), (section, name)
            elif not isinstance(value, str) or "{" not in value:
                assert found[name] == value or found[name] == float(value), (section, name)


@pytest.mark.parametrize("name", ["ice_grt", "modern"])
@pytest.mark.parametrize("section", SECTIONS)
def test_every_stage_takes_every_preset(section, name):
    parse_arguments(stage_types(section), section, ["--preset", name])


def test_the_papers_preset_has_the_papers_numbers():
    """§3.3 and §4.2 of the paper, as DESIGN lists them."""
    assert preset_names() == ["ice_grt", "modern"]
    found = resolved_settings(
        *parse_arguments(stage_types("rlhf"), "rlhf", ["--preset", "ice_grt"])
    )
    stated = {
        "actor_learning_rate": 5e-6,
        "critic_learning_rate": 5e-7,
        "clip_range": 0.2,
        "gamma": 0.95,
        "dtype": "bf16",
        "critic_from": "sft",
        "normalize_advantages": True,
    }
    assert {name: found[name] for name in stated} == stated
    samples = parse_arguments(stage_types("sample"), "sample", ["--preset", "ice_grt"])
    pairs = parse_arguments(stage_types("pairs"), "pairs", ["--preset", "ice_grt"])
    assert resolved_settings(*samples)["responses"] == 5
    assert (resolved_settings(*pairs)["top"], resolved_settings(*pairs)["bottom"]) == (2, 2)


def test_the_default_does_not_discount():
    found = resolved_settings(*parse_arguments(stage_types("rlhf"), "rlhf", []))
    assert found["gamma"] == 1.0
    modern = resolved_settings(
        *parse_arguments(stage_types("rlhf"), "rlhf", ["--preset", "modern"])
    )
    assert (modern["gamma"], modern["lam"]) == (1.0, 0.95)
