"""Models with one number per token: the critic (V of every state) and the reward model.

The saved folders are stock: `AutoModelForTokenClassification` for critics,
`AutoModelForSequenceClassification` for reward models, one label each. Inside our loops the head
is applied to every position, and the caller picks columns by its masks: the stock reward class
looks for the end by ids, which goes wrong where padding equals the end token.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from common.config.arguments import LoraArguments, ModelArguments
from common.errors import UserError
from common.models.loading import (
    HEAD_NAMES,
    check_adapters_on_4bit,
    check_model_folder,
    load_complete,
    resize_embeddings,
    save_config_changes,
)
from common.models.lora import adapter_base, add_adapters, write_adapters
from common.training.packing import arrange
from common.training.seeding import derive_seed

VALUE_HEAD_FILE = "value_head.safetensors"


class ScalarModel(nn.Module):
    """A backbone and a linear head with one output, applied at every position."""

    def __init__(self, stock: Any) -> None:
        """Args:
        stock: a stock classification model, PEFT's wrapper around one, or `BackboneWithHead`.
        """
        super().__init__()
        self.stock = stock

    @property
    def inner(self) -> Any:
        """The stock model without PEFT's wrapper."""
        return self.stock.get_base_model() if hasattr(self.stock, "peft_config") else self.stock

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, positions: Tensor | None = None
    ) -> Tensor:
        """Head outputs at every position.

        Args:
            input_ids: `[batch, width]`.
            attention_mask: `[batch, width]`, padding on either side; or, for packed rows,
                `[batch, 1, width, width]`.
            positions: `[batch, width]`, of packed rows.

        Returns:
            `[batch, width]` float32; anything at padding.
        """
        if positions is None:
            inputs, places = arrange(self.inner, input_ids, attention_mask)
            return self._outputs(**inputs).flatten()[places]
        return self._outputs(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=positions
        )

    def hidden(self, **inputs: Any) -> Tensor:  # noqa: ANN401
        """The backbone's last hidden states, `[rows, width, hidden size]`."""
        return self.inner.base_model(use_cache=False, **inputs).last_hidden_state

    @property
    def head(self) -> nn.Module:
        """What makes a number of a hidden state."""
        return head_of(self.inner)

    def _outputs(self, **inputs: Any) -> Tensor:  # noqa: ANN401
        return self.head(self.hidden(**inputs)).squeeze(-1).float()

    def save_pretrained(self, folder: Path) -> None:
        """Writes the stock model folder, or the adapters and what else was changed."""
        if self.stock is self.inner:
            self.stock.save_pretrained(folder)
        else:
            self.stock.save_pretrained(folder, save_embedding_layers=False)
            save_config_changes(self.inner.config, Path(folder))


class BackboneWithHead(nn.Module):
    """Critic for architectures without a token-classification class (OPT)."""

    def __init__(self, backbone: Any, adapted: Any = None) -> None:
        """Args:
        adapted: PEFT's wrapper around the language model that the backbone belongs to, where the
            critic has adapters: they are named as layers of that.
        """
        super().__init__()
        self.base_model = backbone
        self.score = new_value_head(backbone.config)
        self.config = backbone.config
        object.__setattr__(self, "adapted", adapted)  # no submodule: its own head is not used

    def save_pretrained(self, folder: Path) -> None:
        """A folder of the backbone or of its adapters, and the head beside it."""
        if self.adapted is None:
            self.base_model.save_pretrained(folder)
        else:
            self.adapted.save_pretrained(folder, save_embedding_layers=False)
        write_value_head(self.score, folder)


def new_value_head(config: Any) -> nn.Linear:
    """A linear layer from a model's last hidden states to one number, with a bias."""
    width = getattr(config, "word_embed_proj_dim", None) or config.hidden_size
    return nn.Linear(width, 1)


def write_value_head(head: nn.Linear, folder: Path) -> None:
    """`value_head.safetensors`, for critics that no stock class holds."""
    from safetensors.torch import save_file

    weights = {f"score.{k}": v.detach().cpu().contiguous() for k, v in head.state_dict().items()}
    save_file(weights, Path(folder) / VALUE_HEAD_FILE)


@dataclass(frozen=True)
class CriticLayout:
    """Where the folder of a critic made of adapters has the head."""

    head: str | None
    """The stock class's name for it; None where it is in a file of its own."""

    @classmethod
    def of(cls, path: str, settings: ModelArguments) -> "CriticLayout":
        """The layout for an architecture.

        Args:
            path: hub name or folder of a model.
        """
        from transformers import AutoConfig, AutoModelForTokenClassification

        if not has_token_classifier(path, settings):
            return cls(None)
        config = AutoConfig.from_pretrained(
            base_of(path), trust_remote_code=settings.trust_remote_code
        )
        with torch.device("meta"):
            stock = AutoModelForTokenClassification.from_config(config)
        return cls(next(name for name in HEAD_NAMES if hasattr(stock, name)))

    def write(self, model: Any, name: str, head: nn.Linear, folder: Path, base_path: str) -> None:
        """Writes a critic's adapters and head; arguments as of `write_adapters`."""
        if self.head is None:
            write_adapters(model, name, folder, base_path)
            write_value_head(head, folder)
        else:
            write_adapters(model, name, folder, base_path, {self.head: head})
            save_config_changes(model.get_base_model().config, Path(folder))


def head_of(stock: Any) -> nn.Module:
    """The head of a stock classification model (PEFT's trainable copy, where there is one)."""
    for name in HEAD_NAMES:
        if hasattr(stock, name):
            return getattr(stock, name)
    raise UserError(f"{type(stock).__name__} has none of the known heads: {', '.join(HEAD_NAMES)}")


def last_token_scores(per_token: Tensor, attention_mask: Tensor) -> Tensor:
    """The head's output at each row's last real token, wherever the padding is.

    Args:
        per_token, attention_mask: `[batch, width]`.

    Returns:
        `[batch]`.
    """
    width = attention_mask.shape[1]
    columns = torch.arange(width, device=attention_mask.device)
    last = (attention_mask.long() * columns).argmax(dim=1)
    return per_token.gather(1, last.unsqueeze(1)).squeeze(1)


def load_scalar_model(
    path: str,
    kind: Literal["reward", "critic"],
    settings: ModelArguments,
    *,
    new_head: bool,
    seed: int = 0,
    tokenizer: Any = None,
    lora: LoraArguments | None = None,
    head_from: "tuple[ScalarModel, float, float, float] | None" = None,
) -> ScalarModel:
    """Loads a reward model or critic, or turns a language model into one.

    A new reward head is drawn from N(0, 1/√(d+1)) (Stiennon et al. 2020, App. B); a new critic
    head is 0, so that the first advantages are the rewards themselves.

    Args:
        path: model folder or hub name.
        new_head: the folder is a language model's, and the head is to be made.
        tokenizer: of the model, for a reward model with a new head; its pad id goes to the config.
        lora: with a rank above 0, adapters are added; the head is trained in full.
        head_from: (reward model, score mean, score std, weight): a critic takes over its head, so
            scaled that it predicts weighted normalized scores.

    Raises:
        UserError: weights missing, or a reward folder that pads with its end token.
    """
    from transformers import AutoModelForSequenceClassification, AutoModelForTokenClassification

    check_model_folder(path)
    check_adapters_on_4bit(settings, lora)
    overrides = {"num_labels": 1, "classifier_dropout": 0.0}
    new = HEAD_NAMES if new_head else ()
    if kind == "reward":
        stock = load_complete(AutoModelForSequenceClassification, path, settings, new, **overrides)
    elif has_token_classifier(path, settings):
        stock = load_complete(AutoModelForTokenClassification, path, settings, new, **overrides)
    else:
        stock = _load_backbone_critic(path, settings, new_head, lora)
    if tokenizer is not None:
        resize_embeddings(stock, len(tokenizer))
        stock.config.pad_token_id = tokenizer.pad_token_id
    if new_head:
        initialize_head(head_of(stock), kind, seed)
    if head_from is not None:
        copy_reward_head(head_of(stock), *head_from)
    if settings.gradient_checkpointing:
        backbone = stock.base_model
        backbone.gradient_checkpointing_enable(
            gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    if lora is not None and lora.lora_rank > 0 and not isinstance(stock, BackboneWithHead):
        heads = [n for n in HEAD_NAMES if hasattr(stock, n)]
        stock = add_adapters(stock, lora, base_path=path, new_modules=heads)
    return ScalarModel(stock)


def initialize_head(head: nn.Linear, kind: Literal["reward", "critic"], seed: int) -> None:
    """Draws a reward head from N(0, 1/√(d+1)), sets a critic's to 0."""
    with torch.no_grad():
        if kind == "reward":
            generator = torch.Generator().manual_seed(derive_seed(seed, "reward head"))
            std = 1.0 / math.sqrt(head.in_features + 1)
            head.weight.copy_(torch.randn(head.weight.shape, generator=generator) * std)
        else:
            head.weight.zero_()
        if head.bias is not None:
            head.bias.zero_()


def copy_reward_head(
    target: nn.Linear, reward: ScalarModel, mean: float, std: float, weight: float
) -> None:
    """Sets a critic's head to the reward model's, in units of weight × *normalized* score."""
    source = reward.head
    with torch.no_grad():
        target.weight.copy_(source.weight / std * weight)
        target.bias.copy_(((0.0 if source.bias is None else source.bias) - mean) / std * weight)


def has_token_classifier(path: str, settings: ModelArguments) -> bool:
    """Whether transformers has a token-classification class for the architecture in `path`."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES as KNOWN,
    )

    config = AutoConfig.from_pretrained(base_of(path), trust_remote_code=settings.trust_remote_code)
    return config.model_type in KNOWN


def base_of(path: str) -> str:
    """The folder or hub name of whole weights that a folder's adapters, if it has some, sit on."""
    while base := adapter_base(path):
        path = base
    return path


def _load_backbone_critic(
    path: str, settings: ModelArguments, new_head: bool, lora: LoraArguments | None
) -> BackboneWithHead:
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoModelForCausalLM

    adapts = lora is not None and lora.lora_rank > 0
    if adapts or adapter_base(path):  # adapters are named as layers inside the language model
        model = load_complete(AutoModelForCausalLM, path, settings, new=())
        adapted = add_adapters(model, lora, base_path=path, new_modules=[]) if adapts else None
        model.set_output_embeddings(nn.Identity())  # is not needed, and may be large
        critic = BackboneWithHead(model.base_model, adapted)
    else:
        critic = BackboneWithHead(load_complete(AutoModel, path, settings, new=()))
    if not new_head:
        file = Path(path) / VALUE_HEAD_FILE
        if not file.is_file():
            raise UserError(f"{file}: the critic's value head is missing")
        critic.load_state_dict(load_file(file), strict=False)
    return critic
