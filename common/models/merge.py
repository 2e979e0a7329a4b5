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
from common.models.loading import (
    HEAD_NAMES,
    load_causal_lm,
    load_tokenizer,
    save_model,
)
from common.models.lora import adapter_base, whole_modules
from common.models.scalar import VALUE_HEAD_FILE, load_scalar_model
from common.training.stage import quiet_libraries

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
    card = (Path(source) / "README.md").read_text("utf-8") if _has_card(source) else None
    save_model(model, load_tokenizer(source), Path(target), card)
    print(f"merged {source} into {target}")


def _has_card(path: str) -> bool:
    return (Path(path) / "README.md").is_file()


if __name__ == "__main__":
    quiet_libraries()
    try:
        main(sys.argv[1:])
    except UserError as error:
        sys.exit(f"merge: error: {error}")
