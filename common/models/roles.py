"""One frozen base in four roles: actor, reference, critic and reward model.

With adapters the four models of PPO differ in a thousandth of their weights. Here the base is in
memory once. Each role has adapters of its own in the base's layers (the reference has none), and
the critic and the reward model a head. A role looks like a model by itself, whose parameters are
its adapters and its head: it lives in an engine of its own, with its own optimizer, schedule and
clipping, so that a step of one role cannot move another. (Roles that share one engine do: by the
stale gradients of ZeRO-3, by momentum, by a clipped norm that is everybody's.) The base is frozen,
and what ZeRO-3 spreads over the ranks; adapters are small, and whole everywhere.

PEFT's own switches turn `requires_grad` on and off as they go, so that a role may silently never
be trained. The layers' switches are set here, and `requires_grad` once.
"""

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from common.models.lora import write_adapters
from common.models.policy import MOST_LOGITS, PolicyModel, TokenScores
from common.models.scalar import CriticLayout, ScalarModel


class SharedBase(nn.Module):
    """A frozen causal language model whose adapters are switched from call to call."""

    def __init__(self, model: Any, most_logits: int = MOST_LOGITS) -> None:
        """Args:
        model: a Hugging Face causal language model without adapters.
        most_logits: as of `PolicyModel`.
        """
        super().__init__()
        self.policy = PolicyModel(model.requires_grad_(False), most_logits)
        self.sharding: Any = None
        """DeepSpeed's `DeepSpeedZeRoOffload`, where ZeRO-3 spreads the base."""
        self._acting: str | None = None

    @property
    def model(self) -> Any:
        """The language model; PEFT's wrapper around it, once a role has adapters."""
        return self.policy.model

    @property
    def inner(self) -> Any:
        """The language model without PEFT's wrapper."""
        return self.policy.inner

    def forward(self, *args: Any, only_hidden: bool = False, **kwargs: Any) -> Any:  # noqa: ANN401
        """What `PolicyModel` answers; or, `only_hidden`, the backbone's last hidden states."""
        if self.sharding is not None:  # weights whose release the backward pass before forgot
            self.sharding.release_backward_leftovers()
        if only_hidden:
            return self.inner.base_model(use_cache=False, **kwargs).last_hidden_state
        return self.policy(*args, **kwargs)

    def add_adapters(self, name: str, config: Any) -> None:
        """Puts a role's adapters into the layers, none of them trainable yet.

        To be called when the base is where it is to stay: ZeRO-3 spreads what is there before.

        Args:
            config: PEFT's.
        """
        from peft import PeftModel, get_peft_model

        config.base_model_name_or_path = None  # PEFT would warn where a folder has moved
        if isinstance(self.model, PeftModel):
            self.model.add_adapter(name, config, autocast_adapter_dtype=False)
        else:
            adapted = get_peft_model(self.model, config, name, autocast_adapter_dtype=False)
            self.policy.model = adapted
        self.model.requires_grad_(False)
        self._switch(self._acting)

    def adapters(self, name: str) -> list[nn.Parameter]:
        """A role's adapters, in the layers' order."""
        found: list[nn.Parameter] = []
        for layer in self._layers():
            for parts in (layer.lora_A, layer.lora_B):
                found += parts[name].parameters() if name in parts else []
        return found

    @contextlib.contextmanager
    def acting(self, name: str | None) -> Iterator[None]:
        """Inside, calls go through these adapters and no others; through none without a name."""
        before = self._acting
        self._switch(name)
        try:
            yield
        finally:
            self._switch(before)

    def recompute_activations(self) -> None:
        """Gradient checkpointing in which a role's forward is worked out again as that role's."""
        self.inner.gradient_checkpointing_enable(
            {"use_reentrant": False, "context_fn": self._contexts}
        )

    def _contexts(self) -> tuple[AbstractContextManager, AbstractContextManager]:
        return contextlib.nullcontext(), self.acting(self._acting)

    def _switch(self, name: str | None) -> None:
        self._acting = name
        for layer in self._layers():
            layer._disable_adapters = name is None
            layer._active_adapter = [] if name is None else [name]

    def _layers(self) -> Iterator[Any]:
        from peft.tuners.lora import LoraLayer

        return (m for m in self.model.modules() if isinstance(m, LoraLayer))


class PolicyRole(PolicyModel):
    """The actor; or, without adapters, the reference."""

    shares_weights = True

    def __init__(self, base: SharedBase, name: str | None, base_path: str) -> None:
        """Args:
        name: of its adapters, which the base has.
        base_path: where the base's weights lie: saved adapters say so.
        """
        nn.Module.__init__(self)
        # No submodule: an engine is to see only what is the role's own.
        object.__setattr__(self, "base", base)
        self.name = name
        self.base_path = base_path
        self.adapters = nn.ParameterList(base.adapters(name) if name else [])
        self.scores_in_head = base.policy.scores_in_head

    @property
    def model(self) -> Any:
        """The base, for generation inside `acting`."""
        return self.base.model

    @property
    def inner(self) -> Any:
        """The base without PEFT's wrapper."""
        return self.base.inner

    def forward(self, *args: Any, **kwargs: Any) -> TokenScores:  # noqa: ANN401
        """See `PolicyModel`."""
        with self.acting():
            return self.base(*args, **kwargs)

    def acting(self) -> AbstractContextManager[None]:
        """See `PolicyModel`."""
        return self.base.acting(self.name)

    def save_pretrained(self, folder: Path) -> None:
        """Writes the adapters' folder."""
        write_adapters(self.base.model, str(self.name), folder, self.base_path)


class ScalarRole(ScalarModel):
    """The critic or the reward model."""

    def __init__(
        self,
        base: SharedBase,
        name: str,
        head: nn.Linear,
        base_path: str,
        layout: CriticLayout | None = None,
    ) -> None:
        """Args:
        name, base_path: see `PolicyRole`.
        layout: of the folder that a critic is saved to; a reward model is not saved.
        """
        nn.Module.__init__(self)
        object.__setattr__(self, "base", base)
        self.name = name
        self.base_path = base_path
        self.layout = layout
        self.adapters = nn.ParameterList(base.adapters(name))
        self.score = head

    @property
    def inner(self) -> Any:
        """The base without PEFT's wrapper."""
        return self.base.inner

    @property
    def head(self) -> nn.Module:
        """See `ScalarModel`."""
        return self.score

    def hidden(self, **inputs: Any) -> Tensor:  # noqa: ANN401
        """See `ScalarModel`."""
        with self.base.acting(self.name):
            return self.base(only_hidden=True, **inputs)

    def save_pretrained(self, folder: Path) -> None:
        """Writes the adapters' folder, with the head where a critic of this architecture has it."""
        self.layout.write(self.base.model, self.name, self.score, folder, self.base_path)
