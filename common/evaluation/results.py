"""Stages' `result.json` as the report can use them: what is not what it must be is left out."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.evaluation.formatting import visible
from common.evaluation.run_files import is_number, read_result

Kind = type | dict[str | None, Any] | None
"""A type; or that of each entry of an object, under None that of entries with other names; or None:
anything that JSON can hold."""

KINDS: dict[str | None, Kind] = {
    **dict.fromkeys(
        ("seconds", "checkpoint_seconds", "peak_megabytes", "reserved_megabytes"), float
    ),
    **dict.fromkeys(("accuracy", "length_only_accuracy", "right_minus_wrong"), float),
    **dict.fromkeys(("length_score_correlation", "kl_per_sequence", "eos_rate"), float),
    **dict.fromkeys(("drawn", "repeated"), float),
    "seed": int,
    "versions": {None: str},
    "planned": {"seconds": float, "megabytes": float, "phase": str, "phases": {None: float}},
    "scores": {None: float},
    "diagnostics": {},
    "changed_settings": {},
}
"""Of what the report reckons with."""
_WORDS = {float: "a number", int: "a whole number from 0 on", str: "a text"}


def read_results(run: Path, stages: Iterable[str]) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The results of the stages that have one, and notes on what could not be used of them.

    Every number in them is finite: one that was not in its file is None here.
    """
    found: dict[str, dict[str, Any]] = {}
    notes: list[str] = []
    for stage in stages:
        where = f"{stage}/result.json"
        try:
            result = read_result(run / stage / "result.json")
        except UserError as error:
            notes.append(str(error).replace(f"{run}/", "", 1))
            continue
        if result is not None:
            found[stage] = _usable(result, KINDS, where, notes)
    return found, notes


def _usable(value: Any, kind: Kind, where: str, notes: list[str]) -> Any:  # noqa: ANN401
    """The same with what is of another kind, and with NaN and infinities, as None."""
    if isinstance(kind, dict) and not isinstance(value, dict | None):
        notes.append(f"{where}: expected an object, found {value!r:.60}; it is left out.")
        return None
    if isinstance(value, float) and not math.isfinite(value):
        notes.append(f"{where}: not a finite number.")
        return None
    if isinstance(kind, type) and value is not None and not _is(value, kind):
        notes.append(f"{where}: expected {_WORDS[kind]}, found {value!r:.60}; it is left out.")
        return None
    if isinstance(value, dict):
        kinds = kind if isinstance(kind, dict) else {}
        return {
            visible(key): _usable(item, kinds.get(key, kinds.get(None)), f"{where}, {key}", notes)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_usable(item, None, where, notes) for item in value]
    return visible(value) if isinstance(value, str) else value


def _is(value: Any, kind: type) -> bool:  # noqa: ANN401
    if kind is float:
        return is_number(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return isinstance(value, kind)
