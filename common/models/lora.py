"""Low-rank adapters through PEFT."""

import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.config.arguments import LoraArguments
from common.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"


def add_adapters(
    model: Any, settings: LoraArguments, base_path: str, new_modules: Sequence[str]
) -> Any:
    """Freezes the model and adds trainable adapters to its linear layers.

    Args:
        model: a Hugging Face model.
        base_path: folder or hub name of its weights; adapters remember where their base is.
        new_modules: heads that are trained in full and saved with the adapters.

    Returns:
        `peft.PeftModel`.

    Raises:
        UserError: no layer matches `lora_targets` (peers go on and train nothing).
    """
    from peft import LoraConfig, get_peft_model

    wanted = list(settings.lora_targets) or linear_layer_names(model, exclude=new_modules)
    names = [name for name, _ in model.named_modules()]
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(
                f"lora_targets: no layer of {type(model).__name__} is named '{target}'; it has "
                f"{', '.join(linear_layer_names(model, exclude=new_modules))}"
            )
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=wanted,
        modules_to_save=list(new_modules) or None,
    )
    # A local base is noted as an absolute path: adapters are loaded from other directories, too.
    base = str(Path(base_path).resolve()) if Path(base_path).is_dir() else str(base_path)
    model.name_or_path = base
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:  # a layer that is neither linear nor an embedding
        raise UserError(f"lora_targets: {', '.join(wanted)}: {error}") from None
    adapted.peft_config["default"].base_model_name_or_path = base
    if not any(p.requires_grad for p in adapted.parameters()):
        raise UserError("LoRA left nothing to train; check lora_targets and lora_rank")
    if getattr(model, "is_gradient_checkpointing", False):
        model.enable_input_require_grads()
    return adapted


def linear_layer_names(model: nn.Module, exclude: Sequence[str] = ()) -> list[str]:
    """Short names of the backbone's linear layers (GPT-2's Conv1D too), without output heads."""
    from transformers.pytorch_utils import Conv1D

    heads = {"lm_head", "embed_out", "score", "classifier", *exclude}
    found = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D))
    }
    return sorted(found - heads)


def adapter_base(path: str) -> str | None:
    """Where the base of an adapter folder lies; None when `path` is no adapter folder.

    Raises:
        UserError: the adapters do not say where their base is.
    """
    config = Path(path) / ADAPTER_CONFIG
    if not config.is_file():
        return None
    base = json.loads(config.read_text(encoding="utf-8")).get("base_model_name_or_path")
    if not base:
        raise UserError(f"{config}: 'base_model_name_or_path' is missing; set it to the base model")
    return base


def whole_modules(path: str) -> tuple[str, ...]:
    """Names of the modules that an adapter folder holds in full: heads."""
    config = json.loads((Path(path) / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    return tuple(config.get("modules_to_save") or ())


def merged_adapters(model: Any, path: str, new: Sequence[str] = ()) -> Any:
    """The model with the adapters in folder `path` merged into its weights.

    Args:
        new: names of modules (heads) that are not taken from the adapters.

    Raises:
        UserError: the folder does not hold all of its adapters for this model (PEFT goes on
            without them).
    """
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights

    config = PeftConfig.from_pretrained(path)
    config.modules_to_save = [n for n in config.modules_to_save or () if n not in new] or None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of missing weights: an error below
        adapted = PeftModel.from_pretrained(model, path, config=config)
    wanted = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    missing = sorted(wanted.keys() - load_peft_weights(path, device="cpu").keys())
    if missing:
        raise UserError(
            f"{path}: {len(missing)} weights of the adapters are not in its files, e.g. "
            f"{missing[0]}; were they made for a {type(model).__name__}?"
        )
    return adapted.merge_and_unload()


def weights_to_merge(model: nn.Module) -> list[nn.Parameter]:
    """The weights beneath active adapters that no other module uses, in the modules' order."""
    return [layer.get_base_layer().weight for layer, _ in _mergeable(model)]


def _mergeable(model: nn.Module) -> list[tuple[Any, list[str]]]:
    """Adapted layers with the names of their active adapters."""
    from peft.tuners.lora import LoraLayer

    owners = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    found = []
    for layer in model.modules():
        if not isinstance(layer, LoraLayer) or layer.merged or layer.disable_adapters:
            continue
        names = [n for n in layer.active_adapters if n in layer.lora_A]
        if names and owners[id(layer.get_base_layer().weight)] == 1:
            found.append((layer, names))
    return found


@contextlib.contextmanager
def merged_for_now(model: nn.Module) -> Iterator[None]:
    """Adds the adapters to the weights beneath them, and puts those back as they were, bit for bit.

    PEFT's own way back subtracts again, which rounds. Here the layers get other tensors for the
    while. Layers whose weight another module uses too (tied embeddings) stay as they are: their
    adapters go on working beside them.

    Args:
        model: with or without adapters, its weights whole.
    """
    swapped: list[tuple[Any, nn.Parameter, Any]] = []
    try:
        for layer, names in _mergeable(model):
            weight = layer.get_base_layer().weight
            with torch.no_grad():
                merged = weight.data.clone()
                for name in names:
                    merged += layer.get_delta_weight(name).to(merged.dtype)
            swapped.append((layer, weight, weight.data))
            weight.data = merged
            layer.merged_adapters.extend(names)
        yield
    finally:
        for layer, weight, original in swapped:
            weight.data = original
            layer.merged_adapters.clear()
