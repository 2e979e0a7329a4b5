"""The sizes that a reward model is trained in: folders, hub names, or small random models."""

import re
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from common.config.arguments import ModelArguments, TextArguments
from common.data.sources import mapping_of
from common.errors import UserError, nearest
from common.models.scalar import base_of
from common.models.tiny import TinyArguments, write_tiny_model
from common.training.distributed import barrier, is_main

TINY = re.compile(r"tiny:(\d+)x(\d+)")
NAME = re.compile(r"\w[\w.+-]*")
HEAD_WIDTH = 32


@dataclass(frozen=True)
class Size:
    """A model to start from, and the settings that its size asks for."""

    path: str
    name: str
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def tiny(self) -> TinyArguments | None:
        """The shape of `tiny:LAYERSxWIDTH`."""
        match = TINY.fullmatch(self.path)
        if match is None:
            return None
        layers, width = map(int, match.groups())
        return TinyArguments(layers, width, max(1, width // HEAD_WIDTH))


def parse_sizes(values: Sequence[str | dict[str, Any]], groups: Sequence[Any]) -> list[Size]:
    """Sizes from a command line or a YAML list, each with a name of its own.

    Args:
        values: paths, or mappings with `path` and, if wanted, `name` and settings of the stage.
        groups: the stage's settings.

    Raises:
        UserError: an unknown key, a value of another type than the setting's, a shape that cannot
            be, two of one name.
    """
    now = {f.name: getattr(group, f.name) for group in groups for f in fields(group)}
    sizes: list[Size] = []
    for i, value in enumerate(values):
        size = _parse_size(dict(mapping_of(value, f"sizes[{i}]")), now, f"sizes[{i}]")
        if any(size.name == other.name for other in sizes):
            raise UserError(f"sizes[{i}]: two sizes are named {size.name}; give one a `name`")
        sizes.append(size)
    if not sizes:
        raise UserError("sizes is empty, but must name a model at least")
    return sizes


def _parse_size(given: dict[str, Any], now: dict[str, Any], at: str) -> Size:
    """One entry; `now` has the stage's settings."""
    path = given.pop("path", "")
    if not isinstance(path, str) or not path:
        raise UserError(f"{at}: `path` must name a model folder, a hub name or tiny:2x64")
    own = re.sub(r"[^\w.+-]", "_", path.rstrip("/").rpartition("/")[2])
    name = given.pop("name", None) or own
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise UserError(f"{at}: `name` is {name!r}, but must be a name for a folder")
    for key, value in given.items():
        if key not in now:
            raise UserError(f"{at}: unknown setting '{key}'{nearest(key, list(now))}")
        kind, default = type(now[key]), now[key]
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise UserError(f"{at}: `{key}` is {value!r}, but {default!r} by default")
    size = Size(path, name, given)
    if path.startswith("tiny:"):
        _check_shape(size, at)
    return size


def _check_shape(size: Size, at: str) -> None:
    """Raises UserError where `tiny:…` is no shape that a model can have."""
    tiny = size.tiny
    if tiny is None or not tiny.tiny_layers or not tiny.tiny_width:
        raise UserError(f"{at}: {size.path} must be tiny:LAYERSxWIDTH, as tiny:2x64")
    if tiny.tiny_width % (HEAD_WIDTH if tiny.tiny_width > HEAD_WIDTH else 2):
        raise UserError(
            f"{at}: a width must be even, over {HEAD_WIDTH} a multiple of it, not {tiny.tiny_width}"
        )


def with_changes(groups: Sequence[Any], changes: dict[str, Any]) -> list[Any]:
    """The stage's settings with some changed; they check themselves again."""
    return [
        replace(g, **{f.name: changes[f.name] for f in fields(g) if f.name in changes})
        for g in groups
    ]


def base_folder(
    size: Size, folder: Path, texts: Iterable[str], text: TextArguments, seed: int
) -> str:
    """What a size starts from: a tiny model is written, the same one each time. A collective.

    Args:
        folder: where tiny models go.
        texts: that a tiny model's tokenizer is made from.
    """
    if size.tiny is None:
        return size.path
    place = folder / size.name
    if is_main():
        partial = folder / f".{size.name}.partial"
        shutil.rmtree(partial, ignore_errors=True)
        longest = text.max_prompt_tokens + text.max_response_tokens
        write_tiny_model(partial, texts, size.tiny, seed, max_positions=longest)
        shutil.rmtree(place, ignore_errors=True)
        partial.rename(place)
    barrier()
    return str(place)


def count_parameters(path: str, settings: ModelArguments) -> int:
    """Weights of the reward model that starts from a folder or hub name; none is read."""
    import torch
    from transformers import AutoConfig, AutoModelForSequenceClassification

    trusted = settings.trust_remote_code
    config = AutoConfig.from_pretrained(base_of(path), trust_remote_code=trusted, num_labels=1)
    with torch.device("meta"):
        model = AutoModelForSequenceClassification.from_config(config, trust_remote_code=trusted)
    return sum(p.numel() for p in model.parameters())
