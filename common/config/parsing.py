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
from common.config.plain_yaml import NotPlain, PlainLoader
from common.errors import UserError, nearest

PRESETS = Path(__file__).parent / "presets"
DEFAULT_DATA = Path(__file__).parents[2].parent / "shared" / "data"
SECTIONS = (
    *("data", "sft", "sample", "rank", "ai_rank", "import", "pairs"),
    *("reward", "rlhf", "dpo", "evaluation", "benchmarks"),
)
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
    if preset not in (None, ""):
        values = {**read_preset(preset, section, known), **values}
    run = _option(argv, "--run") or values.get("run") or RunArguments().run
    unknown = [a for a in argv if a.startswith("--") and not _known_option(a, known)]
    if unknown:
        name = unknown[0].split("=")[0]
        raise UserError(f"unknown option {name}{nearest(name.lstrip('-'), known, '--')}")
    # What the command line sets is taken out, so that its mistakes are not laid on a YAML line.
    lines = {name: line for name, line in lines.items() if not _is_given(argv, name)}
    values = {
        name: fill_placeholders(value, run)
        for name, value in values.items()
        if value is not None and not _is_given(argv, name)
    }
    kinds = {f.name: f.type for t in types for f in fields(t)}
    for name, value in values.items():
        if problem := _misfit(kinds[name], value):
            refuse(f"argument --{name}: {problem}")
    lists = {name: _as_words(v) for name, v in values.items() if get_origin(kinds[name]) is list}
    parser.set_defaults(**lists)  # as words, `-x.jsonl` in a list would be taken for an option
    words = [f"--{name}={_as_words(v)[0]}" for name, v in values.items() if name not in lists]
    words += argv
    for option, _, word in (part.partition("=") for part in words):
        if word == "--":  # argparse would take it out, and leave an empty list as the value
            refuse(f"argument {option}: '--' is no value")
    *parsed, rest = parser.parse_args_into_dataclasses(args=words, return_remaining_strings=True)
    if rest:
        raise UserError(f"unexpected on the command line: {' '.join(rest)}")
    parsed = parsed[: len(types)]
    for name, value in resolved_settings(*parsed).items():
        if value != value:
            refuse(f"argument --{name}: must be a number, not NaN")
    return tuple(parsed)


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
        check_sections_known(path, tree, marks)
        values = {} if tree.get(section) is None else tree[section]
        if not isinstance(values, dict):
            raise UserError(
                f"{place(path, marks, section)}: '{section}' must hold settings (key: value)"
            )
        shared = {k: tree[k] for k in ("run", "seed") if k in tree and k in known}
        where = {k: marks[k] for k in shared if k not in values and k in marks}
        where |= {k.split(".", 1)[1]: v for k, v in marks.items() if k.startswith(f"{section}.")}
        values = {**shared, **values}
    for name in values:
        if name not in known:
            raise UserError(
                f"{place(path, where, name)}: unknown setting '{name}'{nearest(name, known)}"
            )
    return values, where


def check_sections_known(path: Path, tree: dict[str, Any], marks: dict[str, int]) -> None:
    """Refuses a pipeline file with a key that is neither a section nor shared by all.

    Raises:
        UserError: names the first such key.
    """
    known = [*SECTIONS, "run", "seed", "processes"]
    for name in tree:
        if name not in known:
            raise UserError(
                f"{place(path, marks, name)}: unknown section '{name}'{nearest(name, known)}"
            )


def place(path: Path, marks: dict[str, int], name: str) -> str:
    """Where a key stands: "path:line", or the path alone for what came in by `<<: *anchor`."""
    return f"{path}:{marks[name]}" if name in marks else str(path)


def has_sections(tree: dict[str, Any]) -> bool:
    """Whether a YAML file holds several stages' sections: mappings, or nothing, under their names.

    (A single stage's file may have a list under `data`, or a folder under `reward`.)
    """
    return any(isinstance(tree.get(name, 0), dict | None) for name in SECTIONS)


def read_yaml(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """A YAML mapping, and the line of each key: `key` and, one level down, `key.subkey`.

    Raises:
        UserError: no such file, broken YAML, not a mapping, a key given twice, a value that JSON
            could not hold.
    """
    try:
        loader = PlainLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        marks = _lines_of(node, path)
        tree = {} if node is None else loader.construct_document(node)
    except OSError as error:
        raise UserError(f"{path}: cannot read the config file: {error.strerror}") from None
    except NotPlain as error:
        raise UserError(f"{path}:{error.line}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from None
    except RecursionError:
        raise UserError(f"{path}: the YAML is nested too deeply") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path}: a config file holds settings as `key: value`")
    return tree, marks


def _lines_of(node: yaml.Node | None, path: Path) -> dict[str, int]:
    """See `read_yaml`."""
    marks: dict[str, int] = {}

    def mark(mapping: yaml.MappingNode, prefix: str) -> None:
        for key, value in mapping.value:
            name = f"{prefix}{key.value}"
            if key.tag == "tag:yaml.org,2002:merge":
                continue  # what `<<: *anchor` brings has its lines at the anchor
            if name in marks:
                raise UserError(f"{path}:{key.start_mark.line + 1}: '{name}' is given twice")
            marks[name] = key.start_mark.line + 1
            if isinstance(value, yaml.MappingNode) and not prefix:
                mark(value, f"{name}.")

    if isinstance(node, yaml.MappingNode):
        mark(node, "")
    return marks


def read_preset(name: str, section: str, known: Sequence[str]) -> dict[str, Any]:
    """A stage's settings in a named preset.

    Raises:
        UserError: no such preset.
    """
    if name not in preset_names():
        raise UserError(f"unknown preset '{name}'{nearest(str(name), preset_names())}")
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


def _misfit(kind: Any, value: Any) -> str:
    """Why a YAML value cannot be a setting's of this type; '' where argparse is to say.

    YAML makes numbers of `007` and `2024_01`: written out as text they would be other names.
    """
    if get_origin(kind) is list:
        items = value if isinstance(value, list) else [value]
        wrong = [item for item in items if not isinstance(item, str | dict)]
    elif isinstance(value, list | dict):
        return f"takes one value, not {'a list' if isinstance(value, list) else 'a mapping'}"
    else:
        wrong = [value] if kind is str and not isinstance(value, str) else []
    return f"{json.dumps(wrong[0])} is no text (put it in quotes)" if wrong else ""


def _as_words(value: Any) -> list[str]:
    """A YAML value as command-line words, so that its type is checked like any other."""
    items = value if isinstance(value, list) else [value]
    return [item if isinstance(item, str) else json.dumps(item) for item in items]


def _with_place(message: str, lines: dict[str, int], config: str | None) -> str:
    """Adds the line of the YAML file to argparse's message, where the setting came from there."""
    match = re.search(r"argument --(\w+)", message)
    if match and match.group(1) in lines:
        return f"{config}:{lines[match.group(1)]}: {message}"
    return message
