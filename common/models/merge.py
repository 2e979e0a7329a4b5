"""Adapters into the weights beneath them: `python -m common.models.merge ADAPTERS OUT`.

The stages do the same at their end with `--lora_merge true`. What comes out is what every loader
here, and PEFT's own merging, makes of the adapter folder.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from common.config.arguments import LoraArguments, ModelArguments
from common.errors import UserError
from common.libraries import quiet_libraries
from common.models.cards import HOLDS, LIBRARY
from common.models.loading import (
    HEAD_NAMES,
    load_causal_lm,
    load_tokenizer,
    save_model,
)
from common.models.lora import adapter_base, whole_modules
from common.models.scalar import VALUE_HEAD_FILE, load_scalar_model

Kind = Literal["policy", "reward", "critic"]


def whole_model(path: str, kind: Kind, settings: ModelArguments) -> Any:
    """The model of an adapter folder with the adapters merged into its weights, in fp32.

    Raises:
        UserError: the folder or its base is not there, or they don't fit.
    """
    if kind == "policy":
        return load_causal_lm(path, settings)
    return load_scalar_model(path, kind, settings, new_head=False)


def reload_to_merge(
    lora: LoraArguments, kind: Kind, settings: ModelArguments
) -> Callable[[str], Any] | None:
    """What `save_model` reads adapters back with to merge them; None where they stay adapters."""
    merges = lora.lora_merge and lora.lora_rank > 0
    whole = replace(settings, base_4bit=False)
    return partial(whole_model, kind=kind, settings=whole) if merges else None


def kind_of(path: str) -> Kind:
    """What model an adapter folder is of, by the head beside the adapters.

    Raises:
        UserError: it is no adapter folder.
    """
    if adapter_base(path) is None:
        raise UserError(f"{path}: no adapters here (adapter_config.json), nothing to merge")
    if (Path(path) / VALUE_HEAD_FILE).is_file():
        return "critic"
    heads = [name for name in whole_modules(path) if name in HEAD_NAMES]
    if not heads:
        return "policy"
    return "critic" if _has_bias(path, heads[0]) else "reward"


def _has_bias(path: str, head: str) -> bool:
    """Stock token classifiers' heads have a bias, sequence classifiers' have none."""
    from safetensors import safe_open

    file = Path(path) / "adapter_model.safetensors"
    with safe_open(file, framework="pt") as weights:
        return any(key.endswith(f"{head}.bias") for key in weights.keys())


def main(arguments: list[str]) -> None:
    """Merges one folder into another.

    Raises:
        UserError: wrong arguments, or folders that don't fit.
    """
    if len(arguments) != 2:
        raise UserError("usage: python -m common.models.merge ADAPTERS OUT")
    source, target = arguments
    if Path(target).exists():
        raise UserError(f"{target}: is there already; name a new folder")
    with torch.no_grad():
        model = whole_model(source, kind_of(source), ModelArguments())
    model.to(dtype_of(source))
    save_model(model, load_tokenizer(source), Path(target), card_of(source))
    print(f"merged {source} into {target}")


def dtype_of(path: str) -> torch.dtype:
    """What an adapter folder's weights are kept in."""
    from safetensors import safe_open

    with safe_open(Path(path) / "adapter_model.safetensors", framework="pt") as weights:
        return weights.get_tensor(next(iter(weights.keys()))).dtype


def card_of(path: str) -> str | None:
    """The adapters' card, as one of whole weights; None where there is none."""
    file = Path(path) / "README.md"
    if not file.is_file():
        return None
    text = file.read_text(encoding="utf-8")
    text = text.replace(f"library_name: {LIBRARY[True]}", f"library_name: {LIBRARY[False]}")
    return text.replace(HOLDS[True], HOLDS[False])


if __name__ == "__main__":
    quiet_libraries()
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"merge: error: {error}")
