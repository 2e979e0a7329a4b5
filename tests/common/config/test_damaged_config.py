"""Damaged settings: what the dataclasses say comes out, or a refusal by file and line, or field.

Undamaged settings must come out as they stand in the file.
"""

import importlib
import json
import re
from dataclasses import fields
from pathlib import Path
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from common.config.parsing import (
    PRESETS,
    SECTIONS,
    fill_placeholders,
    has_sections,
    parse_arguments,
)
from common.config.pipeline import MODULES, RECORD, Plan, make_plan
from common.data.readers import read_rows
from common.data.sources import COLUMNS, DataSource, parse_sources
from common.errors import UserError
from tests.damage import ODD_TEXTS, ODD_VALUES, damaged, damaged_bytes, examples

QUICKSTART = (Path(__file__).parents[3] / "launch" / "quickstart.yaml").read_bytes()
TREE = {
    **yaml.safe_load(QUICKSTART),
    "ai_rank": {"endpoint": "http://127.0.0.1:8000/v1", "judge_model": "judge", "max_requests": 9},
    "import": {"files": ["export.json"], "buckets": ["good", "bad"], "question": "rank"},
    "dpo": {"data": ["{run}/pairs/pairs.jsonl"], "dpo_beta": 0.2, "label_smoothing": 0.1},
    "benchmarks": {
        "benchmarks": ["mmlu", "nq"],
        "limit": 20,
        "benchmark_data": "{data}/benchmarks",
    },
}
TYPES = {section: importlib.import_module(MODULES[section]).ARGUMENTS for section in SECTIONS}
HINTS = {
    section: {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    for section, kinds in TYPES.items()
}
SECTION_OF = st.sampled_from(SECTIONS)


def loaded(raw):
    """What PyYAML makes of a file by itself, dates left as the texts they are."""
    loader = yaml.SafeLoader(raw)
    loader.yaml_constructors = loader.yaml_constructors | {
        "tag:yaml.org,2002:timestamp": yaml.SafeLoader.construct_scalar
    }
    return loader.get_single_data() or {}


def parse_or_refuse(section, argv, *files):
    """({setting: value}, checked; or None, and the message, which must name a file or a setting."""
    try:
        groups = parse_arguments(TYPES[section], section, argv)
    except UserError as error:
        return None, check_message(str(error), section, files)
    found = {f.name: getattr(group, f.name) for group in groups for f in fields(group)}
    for name, value in found.items():
        assert fits(value, HINTS[section][name]), (name, value)
    return found, ""


def check_message(message, section, files):
    """The message names a file; or a setting, or words of the command line, as it stands there."""
    names = "|".join([*HINTS[section], "preset"])
    by_name = re.match(rf"(argument --|unknown (option|preset) |.*?\b({names})\b)", message)
    by_file = [file for file in files if message.startswith(f"{file}:")]
    assert by_name or by_file or message.startswith("unexpected on the command line"), message
    return message


def fits(value, hint):
    """Whether a parsed value is of the type that the dataclass states, and not NaN."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is list:
        return type(value) is list and all(fits(v, *get_args(hint)) for v in value)
    if NoneType in get_args(hint):
        return value is None or fits(value, get_args(hint)[0])
    return type(value) is hint and value == value


def is_as_given(value, given, run):
    """Whether a parsed value is what stands in the YAML file, `{run}` and `{data}` filled in."""
    given = fill_placeholders(given, run)
    if isinstance(value, list):
        items = given if isinstance(given, list) else [given]
        return len(items) == len(value) and all(map(is_as_given, value, items, [run] * len(items)))
    if isinstance(value, str):
        # A number may name a choice (`zero: 3`); a mapping reaches a stage as JSON.
        return value == given if isinstance(given, str) else value == json.dumps(given)
    if isinstance(value, bool):
        return str(given).lower() in ("yes true t y 1" if value else "no false f n 0").split()
    return value == type(value)(str(given))


def check_given(found, given):
    """Fails unless the settings of a YAML mapping are among those found, null ones aside."""
    for name, value in given.items():
        if name in found and value is not None:
            assert is_as_given(found[name], value, found["run"]), name


def lines_of(path, section, name):
    """The lines on which a setting stands, according to PyYAML."""
    (_, settings), *_ = yaml.compose(path.read_text(encoding="utf-8")).value
    ((key, value),) = [(k, v) for k, v in settings.value if k.value == name]
    return range(key.start_mark.line + 1, value.end_mark.line + 2)


# Files


@examples(150)
@given(section=SECTION_OF, raw=damaged_bytes(QUICKSTART))
def test_damaged_text(section, raw, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(raw)
    found, _ = parse_or_refuse(section, ["--config", str(path)], path)
    if found is not None:
        tree = loaded(raw)
        check_given(found, {k: v for k, v in tree.items() if k in ("run", "seed")})
        if isinstance(tree.get(section), dict):
            check_given(found, tree[section])


@examples(300)
@given(data=st.data())
def test_any_value_of_any_setting(data, tmp_path):
    section = data.draw(SECTION_OF)
    name = data.draw(st.sampled_from([*HINTS[section], "preset"]))
    odd = data.draw(st.sampled_from(ODD_VALUES))
    path = tmp_path / "config.yaml"
    others = TREE[section] | {name: None}
    path.write_text(
        yaml.safe_dump({section: others | {name: odd}}, sort_keys=False), encoding="utf-8"
    )
    found, message = parse_or_refuse(section, ["--config", str(path)], path)
    if found is not None:
        given = others | {name: odd} if name != "preset" else others
        check_given(found, given)
    elif line := re.match(rf"{re.escape(str(path))}:(\d+): ", message):
        assert int(line[1]) in lines_of(path, section, name), message
    else:  # settings that are checked with others, which may be a preset's
        assert not message.startswith("argument --"), message
        assert re.search(rf"unknown preset|\b{name}\b", message), message


@examples(150)
@given(data=st.data())
def test_settings_missing_renamed_and_moved(data, tmp_path):
    section = data.draw(SECTION_OF)
    names = (*HINTS[section], *SECTIONS, "preset", "path", "weight", "columns", "<<")
    tree = data.draw(damaged({section: TREE[section], "run": "runs/a", "seed": 3}, names))
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(tree, sort_keys=False), encoding="utf-8")
    found, message = parse_or_refuse(section, ["--config", str(path)], path)
    if found is not None and tree is not None:
        assert isinstance(tree, dict)
        check_given(found, tree.get(section) or {} if has_sections(tree) else tree)


# Presets


@examples(60)
@given(section=SECTION_OF, data=st.data())
def test_damaged_presets(section, data, tmp_path):
    path = tmp_path / "damaged.yaml"
    raw = (PRESETS / data.draw(st.sampled_from(("ice_grt.yaml", "modern.yaml")))).read_bytes()
    path.write_bytes(data.draw(damaged_bytes(raw)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("common.config.parsing.PRESETS", tmp_path)
        found, _ = parse_or_refuse(section, ["--preset", "damaged"], path)
    tree = loaded(path.read_bytes()) if found else {}
    if isinstance(tree.get(section), dict):
        check_given(found, tree[section])


# The command line


def is_word(text):
    """Whether a shell can pass this text as a word."""
    return "\0" not in text and not re.search("[\ud800-\udbff]", text)


@examples(200)
@given(section=SECTION_OF, data=st.data())
def test_damaged_command_line(section, data):
    words = st.sampled_from(["--", "-", "-x", "=", "1", "2.5", "true", *filter(is_word, ODD_TEXTS)])
    names = st.sampled_from(["config", "preset", "local_rank", "no_progress", *HINTS[section]])
    options = names.map(lambda name: f"--{name}")
    assigned = st.builds("{}={}".format, options, words)
    argv = data.draw(st.lists(options | assigned | words, max_size=4))
    found, _ = parse_or_refuse(section, argv, *argv, *(part.split("=", 1)[-1] for part in argv))
    given = [part.split("=", 1) for part in argv if part.startswith("--") and "=" in part]
    if found is not None:
        for option, value in dict(given).items():
            name = option.removeprefix("--")
            if name in found and option not in argv and not isinstance(found[name], list | bool):
                assert is_as_given(found[name], value, "{run}"), option


# Pipelines


def plan_or_refuse(argv, *files):
    """The plan, or the message, which must name a file or one of the settings."""
    try:
        plan = make_plan(argv)
    except UserError as error:
        names = {"processes", *(name for hints in HINTS.values() for name in hints)}
        by_file = any(str(error).startswith(str(file)) for file in files)
        assert by_file or re.match(rf".*?\b({'|'.join(names)})\b", str(error)), str(error)
        return None, str(error)
    assert type(plan) is Plan and type(plan.seed) is type(plan.processes) is int
    assert plan.run.is_dir() and plan.processes >= 1
    assert list(plan.stages) == [section for section in SECTIONS if section in plan.stages]
    assert set(plan.settled) <= set(plan.stages)
    return plan, ""


@examples(40)
@given(raw=damaged_bytes(QUICKSTART))
def test_plan_of_a_damaged_file(raw, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_bytes(raw)
    plan, _ = plan_or_refuse([str(path), "--run", str(tmp_path / "run"), "--fresh"], path)
    if plan:
        tree = loaded(raw)
        assert set(plan.stages) == set(tree) - {"run", "seed", "processes"}
        assert (plan.seed, plan.processes) == (tree.get("seed", 0), tree.get("processes", 1))


@examples(100)
@given(data=st.data())
def test_plan_with_any_run_seed_and_processes(data, tmp_path):
    inside = tmp_path / "a" / "b"  # `../x` must not leave the test's folder
    inside.mkdir(parents=True, exist_ok=True)
    name = data.draw(st.sampled_from(("run", "seed", "processes")))
    given = {name: data.draw(st.sampled_from(ODD_VALUES)), "data": {}}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(inside)
        plan, _ = plan_or_refuse([str(path)], path, given[name])
    if plan and name == "run":
        assert plan.run == Path(given["run"] or "runs/config")
    elif plan:
        assert getattr(plan, name) == given[name]


@examples(40)
@given(data=st.data())
def test_plan_with_a_damaged_record(data, tmp_path):
    path, record = tmp_path / "config.yaml", tmp_path / "run" / RECORD
    path.write_text("data: {}\nrank: {}\n")
    record.unlink(missing_ok=True)
    whole = make_plan([str(path), "--run", str(record.parent)])
    record.write_bytes(data.draw(damaged_bytes(record.read_bytes())))
    plan, _ = plan_or_refuse([str(path), "--run", str(record.parent)], record, record.parent)
    assert plan in (None, whole)


# Sources

SOURCE = {
    "path": "a.csv",
    "weight": 0.5,
    "columns": {"prompt": "q"},
    "split": "train",
    "limit": 3,
    "name": "exam",
}


@examples(200)
@given(data=st.data())
def test_damaged_sources(data, tmp_path):
    names = (*SOURCE, *COLUMNS[:3], "wieght")
    sources = data.draw(damaged([SOURCE, "b.jsonl"], names))
    if not isinstance(sources, list):
        return
    if data.draw(st.booleans()):  # as they come from a command line
        sources = [x if isinstance(x, str) else json.dumps(x) for x in sources]
    try:
        found = parse_sources(sources)
    except UserError as error:
        assert re.match(r"data\[\d+\]: |no data given: ", str(error)), str(error)
        return
    assert len(found) == len(sources)
    for source in found:
        for name, hint in get_type_hints(DataSource).items():
            if name not in ("weight", "columns"):
                assert fits(getattr(source, name), hint), name
        assert 0 < float(source.weight) < float("inf")
        assert all(type(v) is str and k in COLUMNS for k, v in source.columns.items())


@examples(60)
@given(name=st.sampled_from(ODD_TEXTS), ending=st.sampled_from((".jsonl", ".csv", ".parquet")))
def test_files_of_any_name(name, ending):
    """No such file is there; without an ending the hub would be asked."""
    path = f"{name}{ending}"
    with pytest.raises(UserError) as caught:
        list(read_rows(DataSource(path)))
    assert str(caught.value).startswith(f"{path}: ")
