"""Loading tokenizers and language models from a hub name or a folder, and saving them.

Every parameter of a loaded model must be found in its files; only heads declared new may be
fresh. (Peers' critics have trained from random weights unnoticed.)
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common.config.arguments import LoraArguments, ModelArguments
from common.errors import UserError
from common.models.cards import Card
from common.models.lora import adapter_base, add_adapters, merged_adapters, whole_modules
from common.training.distributed import barrier, device, is_main
from common.training.engine import whole_on_host
from common.training.watchdog import WATCHDOG
from common.zero.config import resolve_dtype

HEAD_NAMES = ("score", "classifier")
"""What stock classes call their head: Llama, Mistral, Qwen, OPT say score; GPT-2's critic
says classifier."""

TOKENIZER_FILES = ("tokenizer.json", "vocab.*", "*.model", "*.tiktoken", "tekken.json")
"""Files that hold a vocabulary; without one, transformers makes up an empty tokenizer."""

CONFIG_CHANGES = "config_changes.json"
"""Beside adapters: what differs from the base's config. A config.json there would make stock
loaders look for whole weights in that folder."""


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> Any:
    """The tokenizer of a model folder or hub name; pads with the end token if it has no pad token.

    Raises:
        UserError: the folder has no tokenizer, or the tokenizer no end token.
    """
    from transformers import AutoTokenizer

    check_model_folder(path)
    advice = "copy tokenizer.json and tokenizer_config.json of the base model into the folder"
    if Path(path).is_dir() and not trust_remote_code:
        if not any(True for name in TOKENIZER_FILES for _ in Path(path).glob(name)):
            raise UserError(f"{path}: no tokenizer in this folder; {advice}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{path}: no usable tokenizer ({_first_line(error)}); {advice}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(f"{path}: the tokenizer has no end token (eos_token)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is told by masks, never by the id
    return tokenizer


def separate_pad(tokenizer: Any) -> Any:
    """Gives a tokenizer a pad token that is not its end token, for reward folders.

    The stock reward class skips trailing tokens equal to pad, and would skip the end token.
    """
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        if tokenizer.unk_token_id not in (None, tokenizer.eos_token_id):
            tokenizer.pad_token = tokenizer.unk_token
        else:
            tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    return tokenizer


def load_causal_lm(path: str, settings: ModelArguments, lora: LoraArguments | None = None) -> Any:
    """A causal language model, dropout off; adapters found in `path` are merged.

    Args:
        path: hub name, model folder, or folder of PEFT adapters.
        lora: with a rank above 0, new adapters are added and only they are trainable.

    Raises:
        UserError: missing files, or weights that the files do not hold.
    """
    from transformers import AutoModelForCausalLM

    check_adapters_on_4bit(settings, lora)
    model = load_complete(AutoModelForCausalLM, path, settings, new=())
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    model.config.use_cache = True
    if lora is not None and lora.lora_rank > 0:
        model = add_adapters(model, lora, base_path=path, new_modules=[])
    return model


def load_complete(
    auto_class: Any,
    path: str,
    settings: ModelArguments,
    new: tuple[str, ...],
    dtype: torch.dtype | None = None,
    **overrides: Any,
) -> nn.Module:
    """`auto_class.from_pretrained`, dropout off, every weight accounted for; adapters merged.

    Args:
        new: names of modules that may be fresh (their weights are missing in the files).
        dtype: of the weights; by default what the settings say. Adapters are merged in fp32.
        overrides: config fields.

    Raises:
        UserError: no such folder, unreadable files, missing or mismatched weights.
    """
    WATCHDOG.at(f"loading {path}")
    check_model_folder(path)
    base = adapter_base(path)
    if base and settings.base_4bit:
        raise UserError(
            f"{path}: adapters cannot be merged into a base in 4 bits; merge them first "
            f"(.venv/bin/python -m common.models.merge {path} OUT) and name OUT, or use "
            "--base_4bit false"
        )
    if base:  # heads may come with the adapters
        fresh = (*new, *whole_modules(path))
        model = load_complete(auto_class, base, settings, fresh, torch.float32, **overrides)
        restore_config_changes(model, path)
        restore_stops(model, path)
        return merged_adapters(model, path, new)
    dtype = dtype or resolve_dtype(settings.dtype)
    try:
        config = _config(path, settings, overrides)
        model, info = read_weights(auto_class, path, config, dtype, settings)
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: cannot load the model: {_first_line(error)}") from None
    missing = [k for k in info["missing_keys"] if not any(n in k.split(".") for n in new)]
    wrong = [str(k) for k in info["mismatched_keys"]]
    if missing or wrong:
        raise UserError(
            f"{path}: {len(missing) + len(wrong)} weights of the model are not in its files, e.g. "
            f"{(missing + wrong)[0]}; is this a {auto_class.__name__} folder?"
        )
    return model


def read_weights(
    auto_class: Any, path: str, config: Any, dtype: torch.dtype, settings: ModelArguments
) -> tuple[nn.Module, dict[str, Any]]:
    """A model of a folder or hub name, and what its files lack or have in another shape."""
    return auto_class.from_pretrained(
        path,
        config=config,
        dtype=dtype,
        trust_remote_code=settings.trust_remote_code,
        output_loading_info=True,
        **(in_4_bits(settings) if settings.base_4bit else {}),
    )


def in_4_bits(settings: ModelArguments) -> dict[str, Any]:
    """What `from_pretrained` quantizes with as it loads: NF4, its scales quantized too.

    As QLoRA (https://arxiv.org/abs/2305.14314). Heads and embeddings stay as they are.

    Raises:
        UserError: bitsandbytes is not installed.
    """
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("base_4bit needs bitsandbytes: pip install bitsandbytes, or leave it out")
    return {
        "quantization_config": BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=resolve_dtype(settings.dtype),
            llm_int8_skip_modules=["lm_head", *HEAD_NAMES],  # for 4 bits, too
        ),
        "device_map": {"": device()},
    }


def check_adapters_on_4bit(settings: ModelArguments, lora: LoraArguments | None) -> None:
    """Raises UserError where weights in 4 bits would have to be trained themselves."""
    if settings.base_4bit and lora is not None and lora.lora_rank < 1:
        raise UserError("base_4bit needs adapters, which are what is trained: set lora_rank")


def check_model_folder(path: str) -> None:
    """Raises UserError when `path` looks like a local folder but is none, or lacks its config."""
    folder = Path(path)
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not adapter_base(path):
            inside = sorted(str(p.parent) for p in folder.glob("models/*/config.json"))
            raise UserError(
                f"{path}: not a model folder: it has neither config.json nor adapters"
                + (f"; a run's models are in it: {', '.join(inside)}" if inside else "")
            )
    elif path.startswith((".", "/", "~")) or path.count("/") > 1 or folder.exists():
        raise UserError(
            f"{path}: no such model folder; run the stage that makes it, or name another"
        )


def save_model(
    engine_or_model: Any,
    tokenizer: Any,
    folder: Path,
    card: Card | str | None,
    reload: Callable[[str], Any] | None = None,
) -> None:
    """Writes a standard Hugging Face folder (adapters as adapters). A collective.

    The folder is written beside its place and renamed, so that a killed process leaves no half
    of one.

    Args:
        engine_or_model: an engine, a model, or either around an object with `save_pretrained`.
        card: the model card, or its text.
        reload: reads the adapters back, merged into their base, which is then written instead.
    """
    WATCHDOG.at(f"saving {folder}")
    model = getattr(engine_or_model, "module", engine_or_model)
    partial = folder.with_name(f".{folder.name}.partial")
    with whole_on_host(model):
        if is_main():
            remove_folder(partial)
            partial.mkdir(parents=True)
            if hasattr(model, "peft_config"):  # embeddings: not even looked at
                model.save_pretrained(partial, save_embedding_layers=False)
            else:
                model.save_pretrained(partial)
            stops = getattr(getattr(model, "inner", model), "generation_config", None)
            if adapter_base(str(partial)) and stops is not None:  # the tokens it stops at
                stops.save_pretrained(partial)
    if is_main():
        if reload is not None:
            merged = reload(str(partial))
            remove_folder(partial)
            merged.to(next(model.parameters()).dtype).save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if card is not None:
            adapters = adapter_base(str(partial)) is not None
            text = card if isinstance(card, str) else card.text(adapters=adapters)
            (partial / "README.md").write_text(text, encoding="utf-8")
        remove_folder(folder)
        partial.rename(folder)
    barrier()


def stop_at(model: Any, end_id: int) -> None:
    """Tells a language model's own `generate` to stop at a token, beside those it stops at."""
    known = model.generation_config.eos_token_id
    ends = [known] if isinstance(known, int) else list(known or ())
    if end_id not in ends:
        model.generation_config.eos_token_id = [*ends, end_id]


def resize_embeddings(model: Any, rows: int) -> None:
    """Adds rows of zeros for a pad token: no mask ever lets it be read."""
    old = model.get_input_embeddings().num_embeddings
    if rows > old:
        model.resize_token_embeddings(rows, mean_resizing=False)
        with torch.no_grad():
            model.get_input_embeddings().weight[old:].zero_()


def save_config_changes(config: Any, folder: Path) -> None:
    """Writes beside adapters what their model's config has and its base's has not."""
    names = ("vocab_size", "pad_token_id", "score_mean", "score_std")
    changes = {name: getattr(config, name) for name in names if hasattr(config, name)}
    (folder / CONFIG_CHANGES).write_text(json.dumps(changes, indent=2) + "\n", encoding="utf-8")


def restore_config_changes(model: Any, path: str) -> None:
    """Takes back what `save_config_changes` wrote, if the folder has it."""
    changes = config_changes(path)
    resize_embeddings(model, changes.pop("vocab_size", 0))
    for name, value in changes.items():
        setattr(model.config, name, value)


def restore_stops(model: Any, path: str) -> None:
    """Takes back what a language model's `generate` stops at, if the adapters' folder has it."""
    if (Path(path) / "generation_config.json").is_file() and model.can_generate():
        model.generation_config = type(model.generation_config).from_pretrained(path)


def config_changes(path: str) -> dict[str, Any]:
    """What `save_config_changes` wrote to a folder; empty where it wrote nothing."""
    file = Path(path) / CONFIG_CHANGES
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def remove_folder(folder: Path) -> None:
    """Deletes a folder if it is there."""
    import shutil

    if folder.exists():
        shutil.rmtree(folder)


def without_dropout(config: Any) -> Any:
    """Sets all of a config's dropout to 0, attention's too, which is no module.

    Dropout off everywhere is a convention of this project, not only of PPO: SFT on a few epochs
    does not need it, and adapters have their own (`lora_dropout`).
    """
    for name, value in vars(config).items():
        if isinstance(value, float) and name.endswith(("dropout", "_pdrop", "layerdrop")):
            setattr(config, name, 0.0)
    config.classifier_dropout = 0.0
    return config


def disable_dropout(model: nn.Module) -> None:
    """Sets every dropout of a model to 0 for good: PPO's ratios compare two equal forwards."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def _config(path: str, settings: ModelArguments, overrides: dict[str, Any]) -> Any:
    """The model's config without dropout, and with overrides."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(path, trust_remote_code=settings.trust_remote_code)
    config = without_dropout(config)
    for name, value in overrides.items():
        setattr(config, name, value)
    return config


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
