"""The files that the project ships: every stage takes them, and they say what they claim."""

import importlib
import re
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
from common.ppo.arguments import PPOArguments

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


NAMES = ["ice_grt", "instructgpt", "modern", "ppo_max"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("section", SECTIONS)
def test_every_stage_takes_every_preset(section, name):
    parse_arguments(stage_types(section), section, ["--preset", name])


def test_the_papers_preset_has_the_papers_numbers():
    """§3.3 and §4.2 of the paper, as DESIGN lists them."""
    assert preset_names() == NAMES
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


INSTRUCTGPT = {
    "sft": {"epochs": 2, "learning_rate": 5e-6, "batch_size": 32, "adam_beta2": 0.95},
    "sample": {"responses": 4},
    "pairs": {"top": 9, "bottom": 9},
    "reward": {"loss": "logistic", "learning_rate": 9e-6, "epochs": 1, "batch_size": 64},
    "rlhf": {
        "rollout_batch_size": 512,
        "mini_batch_size": 64,
        "ppo_epochs": 1,
        "critic_learning_rate": 9e-6,
        "critic_from": "reward",
        "kl_coefficient": 0.02,
        "gamma": 1.0,
        "clip_range": 0.2,
        "temperature": 1.0,
        "ema_decay": 0.992,
        "max_response_tokens": 1024,
        "ptx_coefficient": 0.0,
    },
}
"""Appendix C of arXiv:2203.02155; without pre-training data, which a preset cannot bring."""

PPO_MAX = {
    "sft": {"epochs": 2, "learning_rate": 9.5e-6, "lr_floor": 0.1, "batch_size": 1024},
    "reward": {"loss": "logistic", "learning_rate": 5e-6, "warmup_ratio": 0.1},
    "rlhf": {
        "rollout_batch_size": 128,
        "mini_batch_size": 32,
        "actor_learning_rate": 5e-7,
        "critic_learning_rate": 1.65e-6,
        "warmup_ratio": 0.1,
        "critic_from": "reward",
        "score_scaling": "running",
        "score_clip": 0.8,
        "no_end_score": -0.8,
        "kl_coefficient": 0.05,
        "normalize_advantages": False,
        "value_clip_range": 0.2,
        "clip_range": 0.2,
        "ptx_coefficient": 0.0,
    },
    "evaluation": {"temperature": 0.8, "top_p": 0.9},
}
"""§4.2, §5.1 and §5.4 of arXiv:2307.04964."""


@pytest.mark.parametrize(("name", "stated"), [("instructgpt", INSTRUCTGPT), ("ppo_max", PPO_MAX)])
def test_the_other_papers_presets_have_their_numbers(name, stated):
    for section, values in stated.items():
        found = resolved_settings(
            *parse_arguments(stage_types(section), section, ["--preset", name])
        )
        assert {key: found[key] for key in values} == values, section


def test_instructgpt_runs_256_thousand_episodes_and_warms_up_for_ten_iterations():
    argv = ["--preset", "instructgpt"]
    ppo = next(
        g for g in parse_arguments(stage_types("rlhf"), "rlhf", argv) if isinstance(g, PPOArguments)
    )
    assert ppo.steps * ppo.rollout_batch_size == 256_000
    assert ppo.updates * ppo.warmup_ratio == 10 * ppo.updates_per_rollout


@pytest.mark.parametrize("name", ["instructgpt", "ppo_max"])
def test_every_value_of_a_papers_preset_says_where_it_is_from(name):
    for line in (PRESETS / f"{name}.yaml").read_text().splitlines():
        if line.startswith("  ") and line.strip()[0] != "#":
            assert re.search(r"# .*(§|\bC(\.\d)?\b|code|reading)", line), line
