"""Facts of a model from its config alone: how many weights it has, and what its passes hold.

Weights are never loaded, nor drawn: modules are built on the meta device. Models are built with few
layers, and what each layer more adds is the difference between two of them.
"""

import copy
import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from common.config.arguments import LoraArguments
from common.errors import UserError
from common.models.loading import without_dropout
from common.models.lora import add_adapters
from common.models.policy import Entropy, ScoringHead
from common.models.scalar import BackboneWithHead, head_of
from common.zero.plan.trace import Trace, trace

FEW, MORE = 2, 4
"""Layers of the models that are built; a model with no more than `MORE` is built as it is."""


PIECES = 3
"""Pieces of the logits that are traced."""


@dataclass(frozen=True)
class Source:
    """Where a config comes from."""

    path: str
    """Hub name or model folder; or `tiny`."""
    trust_remote_code: bool = False
    tiny: tuple[int, int, int, int, int] = (0, 0, 0, 0, 0)
    """Layers, width, heads, vocabulary and positions of the model `tiny`."""


@dataclass(frozen=True)
class Variant:
    """A model in one of its roles."""

    source: Source
    role: Literal["policy", "scalar"] = "policy"
    dtype: torch.dtype = torch.float32
    lora_rank: int = 0
    lora_targets: tuple[str, ...] = ()
    checkpointing: bool = False
    most_logits: int = 2**24


class Counts(NamedTuple):
    """Weights of a model, by number."""

    weights: int
    trained: int
    embeddings: int
    """Those that a token is looked up in, not multiplied with."""
    head: int
    """Those of the output head."""
    apart: int = 0
    """Of the head's, those that are not the embeddings' too."""


@lru_cache(maxsize=64)
def read_config(source: Source) -> Any:
    """The config, of a folder with nothing else in it as well; adapters have their base's.

    Raises:
        UserError: there is none.
    """
    from transformers import AutoConfig

    if source.path == "tiny":
        return _tiny_config(*source.tiny)
    path = source.path
    adapters = Path(path) / "adapter_config.json"
    while adapters.is_file():
        path = json.loads(adapters.read_text(encoding="utf-8"))["base_model_name_or_path"]
        adapters = Path(path) / "adapter_config.json"
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=source.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{path}: no config to plan with ({str(error).strip().splitlines()[0]}); name a folder "
            "or a hub name that has one, or a model of that shape with --plan_model"
        ) from None
    return without_dropout(config)


def kv_elements(config: Any) -> int:
    """Numbers that the cache holds for each token: keys and values of all layers."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * width


@lru_cache(maxsize=256)
def count(variant: Variant) -> Counts:
    """Weights of the whole model."""
    config = read_config(variant.source)
    return Counts(*_for_all_layers(config, lambda part: list(_count(variant, part))))


@lru_cache(maxsize=512)
def passes(
    variant: Variant,
    rows: int,
    width: int,
    scored: int = 1,
    *,
    train: bool = False,
    packed: bool = False,
    entropy: Entropy = "no",
) -> Trace:
    """What a forward, and with `train` a backward pass of the whole model holds.

    Args:
        rows, width: of the batch, without padding.
        scored: tokens a row whose log-probabilities are asked for; no matter to a scalar model.
        packed: several sequences share a row, told apart by a mask over pairs of tokens.
        entropy: see `common.models.policy`.
    """
    config = read_config(variant.source)
    found: list[Trace] = []

    def values(part: Any) -> list[float]:
        found.append(_passes(variant, part, rows, width, scored, train, packed, entropy))
        return found[-1].flat()

    return Trace.of(_for_all_layers(config, values))


def _for_all_layers(config: Any, values_of: Any) -> list[int]:
    """Numbers that grow by as much with each layer, of a model with all of them.

    Args:
        values_of: gives them for a config.
    """
    layers = config.num_hidden_layers
    if layers <= MORE:
        return [round(v) for v in values_of(config)]
    few, more = (values_of(_with_layers(config, n)) for n in (FEW, MORE))
    return [
        max(0, round(a + (b - a) * (layers - FEW) / (MORE - FEW)))
        for a, b in zip(few, more, strict=True)
    ]


def _with_layers(config: Any, layers: int) -> Any:
    """A copy with this many layers; where their kinds are listed, the first so many."""
    part = copy.deepcopy(config)
    part.num_hidden_layers = layers
    if getattr(part, "layer_types", None):
        part.layer_types = part.layer_types[:layers]
    return part


def _count(variant: Variant, config: Any) -> Counts:
    model = _build(variant, config)
    parts = list(model.parameters())
    inner = _inner(model)
    head = _head(model)
    own = {id(p) for p in inner.base_model.get_input_embeddings().parameters()}
    return Counts(
        sum(p.numel() for p in parts),
        sum(p.numel() for p in parts if p.requires_grad),
        sum(p.numel() for p in parts if id(p) in own),
        sum(p.numel() for p in head.parameters()),
        sum(p.numel() for p in head.parameters() if id(p) not in own),
    )


def _passes(
    variant: Variant,
    config: Any,
    rows: int,
    width: int,
    scored: int,
    train: bool,
    packed: bool,
    entropy: Entropy,
) -> Trace:
    model = _build(variant, config)
    model.train(train)
    ids = torch.zeros(rows, width, dtype=torch.long, device="meta")
    inner = _inner(model)
    inputs: dict[str, Any] = {"input_ids": ids, "use_cache": False}
    if packed:
        pairs = (rows, 1, width, width)
        inputs["attention_mask"] = torch.ones(pairs, dtype=torch.bool, device="meta")
        inputs["position_ids"] = ids

    def policy() -> Tensor:
        hidden = inner.base_model(**inputs).last_hidden_state
        places = torch.zeros(rows * min(scored, width), dtype=torch.long, device="meta")
        head = _head(model)
        if not isinstance(head, ScoringHead):
            return head(hidden).float().sum()
        chosen = hidden.flatten(0, 1)[places]
        # Logits are worked out in pieces, all of them alike: a few tell what a piece takes.
        most = PIECES * max(1, variant.most_logits // config.vocab_size)
        scores = head(chosen[:most], places[:most], 1.0, entropy)
        return -scores.logprobs.sum() + scores.entropy.sum()

    def scalar() -> Tensor:
        hidden = inner.base_model(**inputs).last_hidden_state
        return _head(model)(hidden).squeeze(-1).float().sum()

    call = policy if variant.role == "policy" else scalar
    return trace(model, call, config.vocab_size, train=train)


def _build(variant: Variant, config: Any) -> nn.Module:
    """The model as the stages make it, on the meta device."""
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification

    code = {"trust_remote_code": True} if variant.source.trust_remote_code else {}
    heads: list[str] = []
    with torch.device("meta"):
        if variant.role == "policy":
            model: Any = AutoModelForCausalLM.from_config(config, dtype=variant.dtype, **code)
            head = model.get_output_embeddings()
            if type(head) is nn.Linear:
                head.__class__ = ScoringHead
                head.most_logits = variant.most_logits
        else:
            config = copy.deepcopy(config)
            config.num_labels = 1
            try:
                model = AutoModelForSequenceClassification.from_config(
                    config, dtype=variant.dtype, **code
                )
                heads = [n for n in ("score", "classifier") if hasattr(model, n)]
            except ValueError:  # no such class for this architecture
                backbone = AutoModel.from_config(config, dtype=variant.dtype, **code)
                model = BackboneWithHead(backbone)
        if variant.checkpointing:
            model.base_model.gradient_checkpointing_enable(
                gradient_checkpointing_kwargs={"use_reentrant": False}
            )
        if variant.lora_rank > 0:
            lora = LoraArguments(
                lora_rank=variant.lora_rank, lora_targets=list(variant.lora_targets)
            )
            model = add_adapters(model, lora, base_path=variant.source.path, new_modules=heads)
    return model


def _inner(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "peft_config") else model


def _head(model: Any) -> Any:
    inner = _inner(model)
    head = getattr(inner, "get_output_embeddings", lambda: None)()
    return head if head is not None else head_of(inner)


def _tiny_config(layers: int, width: int, heads: int, vocabulary: int, positions: int) -> Any:
    """As `common.models.tiny` makes it."""
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=width * 5 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=max(positions, 64),
        tie_word_embeddings=True,
    )
