"""What gives rewards: model folders, functions in files of the user's own, HTTP endpoints."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from common.data.sources import mapping_of
from common.errors import UserError, nearest

PYTHON = "python:"
HTTP = ("http://", "https://")


@dataclass(frozen=True)
class RewardPlace:
    """One source of rewards, as a setting names it."""

    path: str
    """Model folder or hub name, `python:FILE.py:FUNCTION`, or `http(s)://…`."""
    weight: float = 1.0
    """Of its normalized scores in the sum; below 0, what it scores high is avoided."""
    mean: float | None = None
    """Of its raw scores, by which they are normalized. By default what a model folder says; other
    sources are normalized by the mean and deviation of all rollouts so far."""
    std: float | None = None
    """Their deviation; given together with the mean."""
    name: str = ""
    """In metrics; by default the folder's, function's or host's."""

    @property
    def kind(self) -> Literal["model", "function", "endpoint"]:
        """What the path stands for."""
        if self.path.startswith(PYTHON):
            return "function"
        return "endpoint" if self.path.startswith(HTTP) else "model"

    @property
    def function(self) -> tuple[str, str]:
        """File and name of a function."""
        file, _, name = self.path.removeprefix(PYTHON).rpartition(":")
        return file, name


def parse_rewards(values: Sequence[str | dict[str, Any]], default: str) -> list[RewardPlace]:
    """Sources of rewards from a command line or a YAML list, each with a name of its own.

    Args:
        values: each a path, a JSON object in a string, or a mapping with `path` and, if wanted,
            the other fields of `RewardPlace`.
        default: the path where nothing is given.

    Raises:
        UserError: an unknown key (names the nearest known one), a wrong type.
    """
    places = [_parse(value, f"reward[{i}]") for i, value in enumerate(values or [default])]
    taken: set[str] = set()
    named = []
    for place in places:
        name, number = place.name, 2
        while name in taken:
            name, number = f"{place.name}_{number}", number + 1
        taken.add(name)
        named.append(replace(place, name=name))
    return named


def inputs_of(places: Sequence[RewardPlace]) -> list[str]:
    """Model folders and functions' files, whose content the result depends on."""
    files = [p.function[0] if p.kind == "function" else p.path for p in places]
    return [file for file, p in zip(files, places, strict=True) if p.kind != "endpoint"]


def check_functions(places: Sequence[RewardPlace]) -> None:
    """Raises UserError where a function's file is missing; nothing is run."""
    for place in places:
        file = os.path.expanduser(place.function[0])
        if place.kind == "function" and not os.path.isfile(file):  # False for any odd name
            raise UserError(f"reward {place.path}: no such file: {file}")


def _parse(value: str | dict[str, Any], at: str) -> RewardPlace:
    given = mapping_of(value, at)
    known = [f.name for f in fields(RewardPlace)]
    for key in given:
        if key not in known:
            raise UserError(f"{at}: unknown key '{key}'{nearest(str(key), known)}")
    place = RewardPlace(**{"path": "", **{k: v for k, v in given.items() if v is not None}})
    if not isinstance(place.path, str) or not place.path.strip():
        raise UserError(
            f"{at}: `path` must name a model folder, python:FILE.py:FUNCTION, or http(s)://…"
        )
    for name in ("weight", "mean", "std"):
        number = getattr(place, name)
        if number is not None and not _is_number(number):
            raise UserError(f"{at}: `{name}` must be a finite number, not {number!r}")
    if place.weight == 0:
        raise UserError(f"{at}: `weight` is 0: leave {place.path} out")
    if (place.mean is None) != (place.std is None):
        raise UserError(f"{at}: give both `mean` and `std` of the scores of {place.path}, or none")
    if place.std is not None and place.std <= 0:
        raise UserError(f"{at}: `std` must be above 0, not {place.std!r}")
    if not isinstance(place.name, str):
        raise UserError(f"{at}: `name` must be a string, not {place.name!r}")
    if place.kind == "function" and not all(place.function):
        raise UserError(f"{at}: {place.path} must be python:FILE.py:FUNCTION")
    if place.kind == "endpoint" and not _host(place.path):
        raise UserError(f"{at}: {place.path} names no host")
    return replace(place, name=place.name or _own_name(place))


def _own_name(place: RewardPlace) -> str:
    if place.kind == "function":
        return place.function[1]
    return str(_host(place.path)) if place.kind == "endpoint" else Path(place.path).name


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_number(value: object) -> bool:
    whole = isinstance(value, int | float) and not isinstance(value, bool)
    return whole and math.isfinite(value)
