"""YAML, presets and the command line into dataclasses, by transformers' `HfArgumentParser`.

Precedence, lowest first: dataclass defaults, `preset:`, the YAML file, the command line. A YAML
file may hold one stage's settings at its top level or several stages' under their section names.
"""

import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NoReturn, get_origin

import yaml

from common.config.arguments import RunArguments
from common.errors import UserError, nearest

PRESETS = Path(__file__).parent / "presets"
DEFAULT_DATA = Path(__file__).parents[2].parent / "shared" / "data"
SECTIONS = ("data", "sft", "sample", "rank", "pairs", "reward", "rlhf", "evaluation")
"""The stages' sections of a pipeline file, in the order in which they run."""


def parse_arguments(
    types: Sequence[type], section: str, argv: Sequence[str] | None = None
) -> tuple[Any, ...]:
    """Fills one instance of each dataclass in `types`.

    Args:
        types: dataclasses with disjoint field names.
        section: this stage's section in a pipeline file.
        argv: command line without the program's name; `sys.argv[1:]` by default. `--config FILE`
            and `--preset NAME` are understood besides the dataclasses' fields.

    Raises:
        UserError: unknown key (names the nearest known one), wrong type, unreadable file.
    """
    from transformers import HfArgumentParser

    argv = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(list(types), description=f"settings of the stage '{section}'")
    parser.add_argument("--config", help="YAML file with settings, or with a section per stage")
    parser.add_argument("--preset", help=f"named settings: {', '.join(preset_names())}")
    parser.add_argument("--local_rank", type=int, help="set by the deepspeed launcher")
    known = [f.name for t in types for f in fields(t)]
    if "-h" in argv or "--help" in argv:
        parser.parse_args(argv)

    def refuse(message: str) -> NoReturn:
        raise UserError(_with_place(message, lines, config))

    lines: dict[str, int] = {}
    config = _option(argv, "--config")
    parser.error = refuse  # argparse would print the whole usage and exit
    values: dict[str, Any] = {}
    if config:
        values, lines = read_section(Path(config), section, [*known, "preset"])
    preset = _option(argv, "--preset") or values.pop("preset", None)
    if preset:
        values = {**read_preset(preset, section, known), **values}
    run = _option(argv, "--run") or values.get("run") or RunArguments().run
    unknown = [a for a in argv if a.startswith("--") and not _known_option(a, known)]
    if unknown:
        name = unknown[0].split("=")[0]
        raise UserError(f"unknown option {name}{nearest(name.lstrip('-'), known, '--')}")
    # What the command line sets is taken out, so that its mistakes are not laid on a YAML line.
    lines = {name: line for name, line in lines.items() if not _is_given(argv, name)}
    values = {k: fill_placeholders(v, run) for k, v in values.items() if not _is_given(argv, k)}
    lists = {f.name for t in types for f in fields(t) if get_origin(f.type) is list}
    for name, value in values.items():
        if isinstance(value, list) and name not in lists:
            refuse(f"argument --{name}: takes one value, not a list")
    given = [part for name, value in values.items() for part in _as_options(name, value)]
    *parsed, rest = parser.parse_args_into_dataclasses(
        args=given + argv, return_remaining_strings=True
    )
    if rest:
        raise UserError(f"unexpected on the command line: {' '.join(rest)}")
    return tuple(parsed[: len(types)])


def read_section(
    path: Path, section: str, known: Sequence[str]
) -> tuple[dict[str, Any], dict[str, int]]:
    """A stage's settings in a YAML file, and the line on which each stands.

    Settings under the section's name win; a file without sections is one stage's file.

    Raises:
        UserError: no such file, broken YAML, a key that is neither a section nor in `known`.
    """
    tree, marks = read_yaml(path)
    if not has_sections(tree):
        values, where = tree, marks
    else:
        unknown = [k for k in tree if k not in (*SECTIONS, "run", "seed", "processes")]
        if unknown:
            raise UserError(
                f"{path}:{marks[unknown[0]]}: unknown section '{unknown[0]}'"
                + nearest(unknown[0], [*SECTIONS, "run", "seed", "processes"])
            )
        values = tree.get(section) or {}
        if not isinstance(values, dict):
            raise UserError(f"{path}:{marks[section]}: '{section}' must hold settings (key: value)")
        where = {k.split(".", 1)[1]: v for k, v in marks.items() if k.startswith(f"{section}.")}
        shared = {k: tree[k] for k in ("run", "seed") if k in tree and k in known}
        values = {**shared, **values}
    for name in values:
        if name not in known:
            raise UserError(
                f"{path}:{where.get(name, '?')}: unknown setting '{name}'{nearest(name, known)}"
            )
    return values, where


def has_sections(tree: dict[str, Any]) -> bool:
    """Whether a YAML file holds several stages' sections: mappings, or nothing, under their names.

    (A single stage's file may have a list under `data`, or a folder under `reward`.)
    """
    return any(isinstance(tree.get(name, 0), dict | None) for name in SECTIONS)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML mapping, and the line of each key: `key` and, one level down, `key.subkey`.

    Raises:
        UserError: no such file, broken YAML, not a mapping, a key given twice.
    """
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        tree = yaml.safe_load(text) or {}
    except OSError as error:
        raise UserError(f"{path}: cannot read the config file: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config file holds settings as `key: value`")
    marks: dict[str, int] = {}

    def mark(mapping: yaml.MappingNode, prefix: str) -> None:
        for key, value in mapping.value:
            name = f"{prefix}{key.value}"
            if key.tag == "tag:yaml.org,2002:merge":
                continue  # what `<<: *anchor` brings has its lines at the anchor
            if key.tag != "tag:yaml.org,2002:str":
                raise UserError(
                    f"{path}:{key.start_mark.line + 1}: '{name}' is no name of a setting"
                )
            if name in marks:
                raise UserError(f"{path}:{key.start_mark.line + 1}: '{name}' is given twice")
            marks[name] = key.start_mark.line + 1
            if isinstance(value, yaml.MappingNode) and not prefix:
                mark(value, f"{name}.")

    if isinstance(node, yaml.MappingNode):
        mark(node, "")
    return tree, marks


def read_preset(name: str, section: str, known: Sequence[str]) -> dict[str, Any]:
    """A stage's settings in a named preset.

    Raises:
        UserError: no such preset.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset '{name}'{nearest(name, preset_names())}")
    return read_section(PRESETS / f"{name}.yaml", section, known)[0]


def preset_names() -> list[str]:
    """Names that `--preset` takes."""
    return sorted(p.stem for p in PRESETS.glob("*.yaml"))


def fill_placeholders(value: Any, run: str) -> Any:
    """Replaces {run} by the run directory, and {data} by the folder of data files.

    The latter is the environment's RLHF_DATA, by default `../shared/data` beside the checkout.
    """
    if isinstance(value, str):
        data = os.environ.get("RLHF_DATA") or str(DEFAULT_DATA)
        return value.replace("{run}", str(run)).replace("{data}", data)
    if isinstance(value, list):
        return [fill_placeholders(v, run) for v in value]
    if isinstance(value, dict):
        return {k: fill_placeholders(v, run) for k, v in value.items()}
    return value


def resolved_settings(*groups: Any) -> dict[str, Any]:
    """All settings of a stage as one flat, JSON-able dict: what the run directory keeps."""
    return {name: value for group in groups for name, value in asdict(group).items()}


def result_settings(*groups: Any) -> dict[str, Any]:
    """Those of `resolved_settings` that the result depends on."""
    free = {name for group in groups for name in getattr(group, "HARMLESS", ())}
    return {n: v for n, v in resolved_settings(*groups).items() if n not in free}


def _option(argv: Sequence[str], name: str) -> str | None:
    """The value of `--name VALUE` or `--name=VALUE`, the last one given."""
    value = None
    for i, part in enumerate(argv):
        if part == name and i + 1 < len(argv):
            value = argv[i + 1]
        elif part.startswith(f"{name}="):
            value = part.split("=", 1)[1]
    return value


def _is_given(argv: Sequence[str], name: str) -> bool:
    """Whether the command line sets a setting, be it as `--name`, `--na-me` or `--no_name`."""
    words = {a.split("=")[0].lstrip("-").replace("-", "_") for a in argv if a.startswith("--")}
    return name in words or f"no_{name}" in words


def _known_option(option: str, known: Sequence[str]) -> bool:
    name = option.split("=")[0].lstrip("-").replace("-", "_")
    return name in (*known, "config", "preset", "local_rank") or name.removeprefix("no_") in known


def _as_options(name: str, value: Any) -> list[str]:
    """One YAML setting as command-line words, so that argparse checks its type like any other."""
    if value is None:
        return []
    if isinstance(value, list):
        words = [v if isinstance(v, str) else json.dumps(v) for v in value]
        return [f"--{name}", *words] if words else []
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}"]


def _with_place(message: str, lines: dict[str, int], config: str | None) -> str:
    """Adds the line of the YAML file to argparse's message, where the setting came from there."""
    match = re.search(r"argument --(\w+)", message)
    if match and match.group(1) in lines:
        return f"{config}:{lines[match.group(1)]}: {message}"
    return message
