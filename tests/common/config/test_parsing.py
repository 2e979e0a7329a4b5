"""Settings from defaults, presets, YAML and command line: who wins, what is refused where."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from common.config.arguments import LoraArguments, RunArguments, SamplingArguments, option
from common.config.parsing import (
    fill_placeholders,
    parse_arguments,
    read_yaml,
)
from common.errors import UserError, nearest

ROOT = Path(__file__).parents[3]


@dataclass
class Example:
    """One field of every kind that the stages have."""

    rate: float = option(0.5, "a float")
    steps: int = option(10, "an int")
    kind: Literal["one", "two"] = option("one", "a choice")
    normalize: bool = option(True, "a switch that is on")
    target: float | None = option(None, "an optional float")
    items: list[str] = option([], "a list")
    gamma: float = option(0.125, "a float that presets set")


TYPES = (RunArguments, Example)


def parse(tmp_path, text: str | None, *argv: str, section: str = "rlhf"):
    """(run, example) from a YAML file with this text and this command line."""
    file = tmp_path / "config.yaml"
    if text is not None:
        file.write_text(text, encoding="utf-8")
        argv = ("--config", str(file), *argv)
    return parse_arguments(TYPES, section, argv)


def refused(tmp_path, text: str | None, *argv: str, section: str = "rlhf") -> str:
    """The message, with the config's path cut down to "FILE"."""
    with pytest.raises(UserError) as caught:
        parse(tmp_path, text, *argv, section=section)
    return str(caught.value).replace(str(tmp_path / "config.yaml"), "FILE")


@pytest.fixture
def presets(monkeypatch, tmp_path):
    """Two presets of our own in place of the shipped ones."""
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "low.yaml").write_text("rlhf: {gamma: 0.25, rate: 1}\nsft: {steps: 7}\n")
    (folder / "high.yaml").write_text("rlhf: {gamma: 0.75}\n")
    monkeypatch.setattr("common.config.parsing.PRESETS", folder)


# Precedence


def test_defaults(tmp_path):
    run, example = parse(tmp_path, None)
    assert run == RunArguments() and example == Example()


def test_the_command_line_beats_yaml_beats_the_preset_beats_the_default(tmp_path, presets):
    def gamma(text, *argv):
        return parse(tmp_path, text, *argv)[1].gamma

    assert gamma("steps: 3") == 0.125
    assert gamma("preset: low") == 0.25
    assert gamma("preset: low\ngamma: 0.5") == gamma("gamma: 0.5\npreset: low") == 0.5
    assert gamma("preset: low\ngamma: 0.5", "--gamma", "0.875") == 0.875
    assert gamma(None, "--preset", "low") == 0.25
    assert gamma("gamma: 0.5", "--preset", "low") == 0.5
    assert gamma(None, "--preset", "low", "--gamma=0.875") == 0.875
    assert gamma("preset: low", "--preset", "high") == 0.75


def test_one_source_leaves_the_others_settings_alone(tmp_path, presets):
    _, example = parse(tmp_path, "preset: low\nsteps: 3", "--kind", "two")
    assert (example.gamma, example.rate, example.steps, example.kind) == (0.25, 1.0, 3, "two")


def test_a_preset_gives_each_stage_its_own_section(tmp_path, presets):
    _, example = parse(tmp_path, None, "--preset", "low", section="sft")
    assert (example.steps, example.gamma) == (7, 0.125)
    _, example = parse(tmp_path, None, "--preset", "low", section="reward")
    assert example == Example()


def test_null_takes_a_presets_setting_back(tmp_path, presets):
    assert parse(tmp_path, "preset: low\ngamma: null")[1].gamma == 0.125


@pytest.mark.parametrize(
    ("text", "argv", "field", "value"),
    [
        ("rate: 1e-3", (), "rate", 1e-3),  # YAML takes this for a string
        ("rate: 1.0e-3", (), "rate", 1e-3),
        ("rate: -2", (), "rate", -2.0),
        ("target: 3", (), "target", 3.0),
        ("normalize: false", (), "normalize", False),
        ("normalize: no", (), "normalize", False),
        ("normalize: true", ("--normalize", "false"), "normalize", False),
        ("normalize: true", ("--no_normalize",), "normalize", False),
        ("kind: two", (), "kind", "two"),
        ("items: [a, b c, '{d}']", (), "items", ["a", "b c", "{d}"]),
        ("items: [a, b]", ("--items", "c"), "items", ["c"]),
        ("items: a", (), "items", ["a"]),
        ("items: []", (), "items", []),
        ("items: [a, --steps=3, -x, '--']", (), "items", ["a", "--steps=3", "-x", "--"]),
        ("items: 2024-01-31", (), "items", ["2024-01-31"]),
        (None, ("--items", "a", "b"), "items", ["a", "b"]),
        (None, ("--rate", "-1"), "rate", -1.0),
        (None, ("--steps", "1", "--steps=2"), "steps", 2),
    ],
)
def test_values_of_every_kind(tmp_path, text, argv, field, value):
    found = getattr(parse(tmp_path, text, *argv)[1], field)
    assert found == value and type(found) is type(value)


def test_mappings_in_a_list_reach_the_stage_as_json(tmp_path):
    _, example = parse(tmp_path, 'items:\n  - {path: "a b.csv", weight: 2.0}\n  - c.jsonl\n')
    assert example.items == ['{"path": "a b.csv", "weight": 2.0}', "c.jsonl"]


def test_an_option_with_hyphens_and_the_launchers_rank(tmp_path):
    run, _ = parse(tmp_path, None, "--wandb-project", "mine", "--local_rank=1")
    assert run.wandb_project == "mine"


# Sections


PIPELINE = """\
run: runs/shared
seed: 3
processes: 2
sft:
  steps: 5
rlhf:
  steps: 6
  seed: 4
data: {}
"""


def test_a_stage_reads_its_own_section_and_the_shared_settings(tmp_path):
    run, example = parse(tmp_path, PIPELINE, section="sft")
    assert (run.run, run.seed, example.steps) == ("runs/shared", 3, 5)
    run, example = parse(tmp_path, PIPELINE, section="rlhf")
    assert (run.run, run.seed, example.steps) == ("runs/shared", 4, 6)
    run, example = parse(tmp_path, PIPELINE, section="reward")
    assert (run.run, run.seed, example.steps) == ("runs/shared", 3, 10)


def test_a_stage_may_have_a_file_without_sections(tmp_path):
    run, example = parse(tmp_path, "seed: 3\nsteps: 5")
    assert (run.seed, example.steps) == (3, 5)


@dataclass
class NamedLikeSections:
    """Settings that are named like sections, as several stages have."""

    data: list[str] = option([], "data sources")
    reward: str = option("", "a folder")


def test_a_stages_own_file_may_hold_settings_named_like_sections(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("data: [a.jsonl]\nreward: models/reward\n")
    (found,) = parse_arguments((NamedLikeSections,), "rlhf", ["--config", str(file)])
    assert found == NamedLikeSections(["a.jsonl"], "models/reward")


def test_an_unknown_section_is_named(tmp_path):
    text = "sft:\n  steps: 5\nrewrd:\n  steps: 5\n"
    assert refused(tmp_path, text) == "FILE:3: unknown section 'rewrd'; did you mean 'reward'?"


def test_a_section_must_hold_settings(tmp_path):
    message = refused(tmp_path, "sft: {}\nrlhf: [1, 2]\n")
    assert message == "FILE:2: 'rlhf' must hold settings (key: value)"


def test_a_section_for_itself_is_empty(tmp_path):
    assert parse(tmp_path, "sft:\nrlhf:\n", section="rlhf")[1] == Example()


# Mistakes


def test_an_unknown_setting_names_its_line_and_the_nearest(tmp_path):
    text = "# comment\nrlhf:\n  steps: 5\n\n  nromalize: true\n"
    message = "FILE:5: unknown setting 'nromalize'; did you mean 'normalize'?"
    assert refused(tmp_path, text) == message


def test_an_unknown_setting_without_a_likeness_lists_the_known(tmp_path):
    message = refused(tmp_path, "zzzzz: 1")
    assert message.startswith("FILE:1: unknown setting 'zzzzz'; known here: run, seed, wandb")
    assert "kind" in message


def test_another_stages_setting_is_unknown_in_this_section_only(tmp_path):
    text = "sft:\n  lora_rank: 3\nrlhf:\n  steps: 2\n"
    assert parse(tmp_path, text)[1].steps == 2
    assert "FILE:2: unknown setting 'lora_rank'" in refused(tmp_path, text, section="sft")


def test_an_unknown_option_names_the_nearest(tmp_path):
    message = refused(tmp_path, None, "--nromalize", "true")
    assert message == "unknown option --nromalize; did you mean '--normalize'?"
    assert refused(tmp_path, None, "--nromalize=true") == message
    assert refused(tmp_path, None, "--gam", "1") == "unknown option --gam; did you mean '--gamma'?"


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("seed: 1\nsteps: many", 2, "argument --steps: invalid int value: 'many'"),
        ("steps: 2.5", 1, "argument --steps: invalid int value: '2.5'"),
        ("rlhf:\n  seed: 1\n  rate: fast", 3, "argument --rate: invalid float value: 'fast'"),
        ("normalize: perhaps", 1, "argument --normalize: Truthy value expected"),
        ("\nkind: three", 2, "argument --kind: invalid choice: 'three' (choose from"),
        ("target: {a: 1}", 1, "argument --target: takes one value, not a mapping"),
        ("steps: [1, 2]", 1, "argument --steps: takes one value, not a list"),
        ("seed: 1\ntarget: .nan", 2, "argument --target: must be a number, not NaN"),
        ("run: {a: 1}", 1, "argument --run: takes one value, not a mapping"),
        ("run: true", 1, "argument --run: true is no text (put it in quotes)"),
        ("run: 2024_01", 1, "argument --run: 202401 is no text (put it in quotes)"),
        ("run: '--'", 1, "argument --run: '--' is no value"),
        ("items:\n- a\n-", 1, "argument --items: null is no text (put it in quotes)"),
        ("items: [[a]]", 1, 'argument --items: ["a"] is no text (put it in quotes)'),
        ("seed: x\nrlhf: {steps: 2}", 1, "argument --seed: invalid int value: 'x'"),
    ],
)
def test_a_wrong_type_names_its_line(tmp_path, text, line, words):
    message = refused(tmp_path, text)
    assert message.startswith(f"FILE:{line}: ") and words in message


def test_a_wrong_type_on_the_command_line_is_not_laid_on_the_file(tmp_path):
    message = refused(tmp_path, "steps: 5", "--steps", "many")
    assert message == "argument --steps: invalid int value: 'many'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps: 1\nsteps: 2", "FILE:2: 'steps' is given twice"),
        ("rlhf:\n  steps: 1\n  rate: 1\n  steps: 2", "FILE:4: 'rlhf.steps' is given twice"),
        ("sft: {}\nrlhf: {}\nsft: {}", "FILE:3: 'sft' is given twice"),
        ("- steps", "FILE: a config file holds settings as `key: value`"),
        ("0", "FILE: a config file holds settings as `key: value`"),
        ("sft: {}\n<<: {rewrd: {}}", "FILE: unknown section 'rewrd'; did you mean 'reward'?"),
        ("sft: {}\n<<: {rlhf: 3}", "FILE: 'rlhf' must hold settings (key: value)"),
        ("rlhf: 0\nsft: {}", "FILE:1: 'rlhf' must hold settings (key: value)"),
        ("rate: " + "[" * 1000, "FILE: the YAML is nested too deeply"),
        ("true: 1", "FILE:1: 'true' is no name of a setting"),
        ("rlhf:\n  7: 1", "FILE:2: '7' is no name of a setting"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path, text, message):
    assert refused(tmp_path, text) == message


def test_broken_yaml_names_its_place(tmp_path):
    message = refused(tmp_path, "steps: 1\nrate: [1, 2\n")
    assert message.startswith("FILE: not valid YAML: ") and "line 3" in message


def test_a_file_that_is_not_there(tmp_path):
    message = refused(tmp_path, None, "--config", str(tmp_path / "no.yaml"))
    assert (
        message == f"{tmp_path / 'no.yaml'}: cannot read the config file: No such file or directory"
    )
    assert "cannot read" in refused(tmp_path, None, "--config", str(tmp_path))


def test_an_unknown_preset_names_the_nearest(tmp_path):
    assert refused(tmp_path, "preset: modren") == "unknown preset 'modren'; did you mean 'modern'?"
    assert refused(tmp_path, "preset: 3").startswith("unknown preset '3'; known here: ")
    assert refused(tmp_path, "preset: {}").startswith("unknown preset '{}'; known here: ")
    message = refused(tmp_path, None, "--preset", "ice-grt")
    assert message == "unknown preset 'ice-grt'; did you mean 'ice_grt'?"


@pytest.mark.parametrize("argv", [("stray",), ("-x",), ("--steps", "1", "2"), ("--no_wandb",)])
def test_words_that_belong_to_no_option_are_refused(tmp_path, argv):
    message = refused(tmp_path, None, *argv)
    assert message == f"unexpected on the command line: {argv[-1]}"


def test_an_option_without_its_value(tmp_path):
    assert refused(tmp_path, None, "--steps") == "argument --steps: expected one argument"
    assert refused(tmp_path, None, "--run=--") == "argument --run: '--' is no value"


def test_a_run_has_a_name(tmp_path):
    for message in (refused(tmp_path, "run: ''"), refused(tmp_path, None, "--run=")):
        assert message == "run is empty, but must name a folder"


def test_yaml_lines_of_anchors_and_merges(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text("sft: &base\n  steps: 1\nrlhf:\n  <<: *base\n  rate: 2\n")
    tree, lines = read_yaml(file)
    assert tree["rlhf"] == {"steps": 1, "rate": 2}
    assert lines == {"sft": 1, "sft.steps": 2, "rlhf": 3, "rlhf.rate": 5}


def test_nearest():
    assert nearest("stepz", ["rate", "steps"]) == "; did you mean 'steps'?"
    assert nearest("stepz", ["rate", "steps"], "--") == "; did you mean '--steps'?"
    assert nearest("q", ["rate", "steps"]) == "; known here: rate, steps"


# Values that are checked together


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_rank": -1}, "lora_rank (-1) must be 0 or more"),
        ({"lora_rank": 4, "lora_alpha": 0.0}, "lora_alpha (0.0) above 0"),
        ({"lora_rank": 4, "lora_dropout": 1.0}, "lora_dropout (1.0) in [0, 1)"),
        ({"lora_targets": ["q_proj"]}, "lora_targets is set, but lora_rank is 0"),
    ],
)
def test_lora_settings_that_cannot_be_combined(settings, words):
    with pytest.raises(UserError) as caught:
        LoraArguments(**settings)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"temperature": -1.0}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_sampling_settings_out_of_range(settings):
    with pytest.raises(UserError, match=next(iter(settings))):
        SamplingArguments(**settings)


# Placeholders


def test_placeholders_in_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_DATA", "/somewhere/data")
    text = """\
run: runs/mine
rlhf:
  items:
    - "{run}/a.jsonl"
    - {path: "{data}/b.jsonl", columns: {prompt: q}}
"""
    _, example = parse(tmp_path, text)
    assert example.items == [
        "runs/mine/a.jsonl",
        '{"path": "/somewhere/data/b.jsonl", "columns": {"prompt": "q"}}',
    ]
    _, example = parse(tmp_path, text, "--run", "runs/other")
    assert example.items[0] == "runs/other/a.jsonl"


def test_the_run_of_a_placeholder_is_the_default_one_if_none_is_given(tmp_path):
    _, example = parse(tmp_path, 'items: ["{run}/a"]')
    assert example.items == ["runs/default/a"]


def test_data_lies_beside_the_checkout_by_default(monkeypatch):
    monkeypatch.delenv("RLHF_DATA", raising=False)
    assert fill_placeholders("{data}/x", "") == f"{ROOT.parent / 'shared' / 'data'}/x"
    assert fill_placeholders([{"a": ["{run}"], "b": 3}], "R") == [{"a": ["R"], "b": 3}]
