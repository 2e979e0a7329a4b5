"""Low-rank adapters through PEFT."""

import contextlib
import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from common.config.arguments import LoraArguments
from common.errors import UserError

ADAPTER_CONFIG = "adapter_config.json"
MODULE_PREFIX = "base_model.model."
"""PEFT's, before the names of a model's weights in an adapter folder."""


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
    from peft import get_peft_model

    config = adapter_config(model, settings, new_modules)
    base = noted_base(base_path)
    model.name_or_path = base
    try:
        adapted = get_peft_model(model, config)
    except ValueError as error:  # a layer that is neither linear nor an embedding
        wanted = ", ".join(sorted(config.target_modules))
        raise UserError(f"lora_targets: {wanted}: {error}") from None
    adapted.peft_config["default"].base_model_name_or_path = base
    if not any(p.requires_grad for p in adapted.parameters()):
        raise UserError("LoRA left nothing to train; check lora_targets and lora_rank")
    if getattr(model, "is_gradient_checkpointing", False):
        model.enable_input_require_grads()
    return adapted


def adapter_config(model: nn.Module, settings: LoraArguments, new_modules: Sequence[str]) -> Any:
    """PEFT's config of new adapters for a model; arguments as of `add_adapters`.

    Raises:
        UserError: no layer has a name that `lora_targets` asks for.
    """
    from peft import LoraConfig

    wanted = list(settings.lora_targets) or linear_layer_names(model, exclude=new_modules)
    names = [name for name, _ in model.named_modules()]
    for target in wanted:
        if not any(name == target or name.endswith(f".{target}") for name in names):
            raise UserError(
                f"lora_targets: no layer of {type(model).__name__} is named '{target}'; it has "
                f"{', '.join(linear_layer_names(model, exclude=new_modules))}"
            )
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=wanted,
        modules_to_save=list(new_modules) or None,
    )


def noted_base(path: str) -> str:
    """A base as adapters note it: a local one absolutely, for they are loaded from anywhere."""
    return str(Path(path).resolve()) if Path(path).is_dir() else str(path)


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


class Adapters(NamedTuple):
    """What an adapter folder holds."""

    config: Any
    """PEFT's."""
    weights: dict[str, Tensor]
    """Of the adapters, as they are named in files."""
    whole: dict[str, dict[str, Tensor]]
    """State dicts of the modules that were trained in full: heads."""


def read_adapters(path: str) -> Adapters:
    """The adapters in a folder, and the heads beside them.

    Raises:
        UserError: a head that the folder promises is not in its files.
    """
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    config = PeftConfig.from_pretrained(path)
    weights = load_peft_weights(path, device="cpu")
    whole: dict[str, dict[str, Tensor]] = {}
    for name in whole_modules(path):
        prefix = f"{MODULE_PREFIX}{name}."
        keys = [key for key in weights if key.startswith(prefix)]
        if not keys:
            raise UserError(f"{path}: the weights of '{name}' are not in its files")
        whole[name] = {key.removeprefix(prefix): weights.pop(key) for key in keys}
    config.modules_to_save = None
    return Adapters(config, weights, whole)


def fill_adapters(model: Any, name: str, weights: Mapping[str, Tensor], path: str) -> None:
    """Gives the adapters `name` of a model the weights that a folder holds.

    Args:
        model: `peft.PeftModel`.
        path: of the folder, for the error.

    Raises:
        UserError: they are of another model, or of other layers or shapes.
    """
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    own = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    differ = sorted(own.keys() ^ weights.keys())
    differ += [k for k in own.keys() & weights.keys() if own[k].shape != weights[k].shape]
    if differ:
        raise UserError(
            f"{path}: its adapters are not those of a {type(model.get_base_model()).__name__}'s "
            f"layers, e.g. {differ[0]}"
        )
    set_peft_model_state_dict(model, dict(weights), adapter_name=name)


def write_adapters(
    model: Any,
    name: str,
    folder: Path,
    base_path: str,
    whole: Mapping[str, nn.Module] | None = None,
) -> None:
    """Writes one of a model's adapters to a folder as PEFT would if it were the only one.

    Args:
        model: `peft.PeftModel`; its adapters are whole.
        base_path: folder or hub name of the base.
        whole: heads that were trained in full, by the name that they have in the stock class.
    """
    import copy

    from peft import get_peft_model_state_dict
    from peft.utils import SAFETENSORS_WEIGHTS_NAME
    from safetensors.torch import save_file

    weights = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
    for module, head in (whole or {}).items():
        weights |= {f"{MODULE_PREFIX}{module}.{k}": v for k, v in head.state_dict().items()}
    Path(folder).mkdir(parents=True, exist_ok=True)
    save_file(
        {key: value.detach().cpu().contiguous() for key, value in weights.items()},
        Path(folder) / SAFETENSORS_WEIGHTS_NAME,
        metadata={"format": "pt"},
    )
    config = copy.deepcopy(model.peft_config[name])
    config.inference_mode = True
    config.modules_to_save = sorted(whole) if whole else None
    config.base_model_name_or_path = noted_base(base_path)
    config.save_pretrained(str(folder))


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
        if not layer.get_base_layer().weight.is_floating_point():
            continue  # in 4 bits
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
