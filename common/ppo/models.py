"""Loads the four models of PPO, apart or on one base, and checks that they fit together."""

import filecmp
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from common.config.arguments import LoraArguments, ModelArguments, ZeroArguments
from common.errors import UserError
from common.models.loading import (
    HEAD_NAMES,
    config_changes,
    disable_dropout,
    load_causal_lm,
)
from common.models.lora import (
    adapter_base,
    adapter_config,
    fill_adapters,
    noted_base,
    read_adapters,
)
from common.models.policy import PolicyModel
from common.models.roles import PolicyRole, ScalarRole, SharedBase
from common.models.scalar import (
    CriticLayout,
    ScalarModel,
    copy_reward_head,
    initialize_head,
    load_scalar_model,
    new_value_head,
)
from common.ppo.invariants import check_embeddings, check_vocabulary
from common.reward.places import RewardPlace
from common.reward.scoring import score_scale
from common.training.distributed import device
from common.training.engine import build_frozen


@dataclass(frozen=True)
class Wanted:
    """What the models are loaded from, and how."""

    sft_path: str
    reward: RewardPlace | None
    """The (first) reward model among the sources, which a critic may start from."""
    critic_from: Literal["sft", "reward"]
    tokenizer: Any
    """The actor's."""
    reward_tokenizer: Any
    settings: ModelArguments
    lora: LoraArguments
    zero: ZeroArguments
    """Resolved; for the models that are not trained."""
    dtype: torch.dtype

    @property
    def reward_path(self) -> str:
        """Folder or hub name of the reward model; "" where there is none."""
        return self.reward.path if self.reward else ""

    def critic_scale(self, mean: float | None, std: float | None) -> tuple[float, float, float]:
        """Mean, deviation and weight of the reward model's scores: what they count at first.

        A critic that starts from it predicts what they come to: weight × (score − mean) / std.
        Where they are scaled as training goes, it learns the rest.

        Args:
            mean, std: of its scores, as its folder says.

        Raises:
            UserError: neither the folder nor the setting says.
        """
        place = self.reward or RewardPlace("")
        if place.mean is not None and place.std is not None:
            mean, std = place.mean, place.std
        if mean is None or std is None:
            raise UserError(
                f"critic_from is reward, but {place.path} does not say the mean and deviation of "
                "its scores; give them with the path: "
                f'--reward \'{{"path": "{place.path}", "mean": …, "std": …}}\' (score_scaling '
                "does not apply to it then), or use --critic_from sft"
            )
        return mean, std, place.weight


class FourModels(NamedTuple):
    """What PPO works with."""

    actor: PolicyModel
    critic: ScalarModel
    reference: nn.Module
    """Frozen, and where it is to stay; the reward model, too."""
    reward: nn.Module | None
    score_mean: float | None
    """Of the reward model's raw scores over reference responses; None where it does not say."""
    score_std: float | None


class RewardModel(NamedTuple):
    """A reward model, and its raw scores over reference responses, where its folder has them."""

    model: ScalarModel
    mean: float | None
    std: float | None


def load_reward(path: str, tokenizer: Any, settings: ModelArguments) -> RewardModel:
    """A reward model of a folder, on the CPU.

    Raises:
        UserError: missing files or weights; a tokenizer that does not fit.
    """
    whole = replace(settings, base_4bit=False)  # it may be adapters, which are merged
    model = load_scalar_model(path, "reward", whole, new_head=False)
    check_embeddings(model.inner, tokenizer, path)
    return RewardModel(model, *score_scale(model.inner.config.to_dict()))


def load_separate(wanted: Wanted) -> FourModels:
    """Four models with weights of their own; three without a reward model.

    Raises:
        UserError: missing files or weights; tokenizers and models that do not agree.
    """
    reward = None
    if wanted.reward_path:
        reward = load_reward(wanted.reward_path, wanted.reward_tokenizer, wanted.settings)
    elif wanted.critic_from == "reward":
        raise UserError(
            "critic_from is reward, but no source of rewards is a model: use --critic_from sft"
        )
    if wanted.critic_from == "reward":
        check_vocabulary(
            wanted.tokenizer, wanted.reward_tokenizer, "critic (from the reward model)"
        )
    critic = load_scalar_model(
        wanted.sft_path if wanted.critic_from == "sft" else wanted.reward_path,
        "critic",
        wanted.settings,
        new_head=True,
        lora=wanted.lora,
        head_from=(reward.model, *wanted.critic_scale(reward.mean, reward.std))
        if reward and wanted.critic_from == "reward"
        else None,
    )
    actor = load_causal_lm(wanted.sft_path, wanted.settings, wanted.lora)
    check_embeddings(actor, wanted.tokenizer, wanted.sft_path)
    reference = PolicyModel(
        load_causal_lm(wanted.sft_path, wanted.settings), wanted.settings.most_logits
    )
    return FourModels(
        PolicyModel(actor, wanted.settings.most_logits),
        critic,
        build_frozen(reference, zero=wanted.zero, dtype=wanted.dtype),
        build_frozen(reward.model, zero=wanted.zero, dtype=wanted.dtype) if reward else None,
        reward.mean if reward else None,
        reward.std if reward else None,
    )


def load_one_base(wanted: Wanted) -> FourModels:
    """Four roles on the weights of the SFT model (see `common.models.roles`).

    A critic from the reward model starts as a copy of its adapters, and has their rank.

    Raises:
        UserError: what `load_separate` raises; no adapters asked for; a reward model that is not
            adapters on the SFT model.
    """
    check_one_base(wanted.sft_path, wanted.reward_path, wanted.lora)
    check_vocabulary(wanted.tokenizer, wanted.reward_tokenizer, "reward model")
    # Activations that are worked out again must be so for the same role: that comes below.
    model = load_causal_lm(wanted.sft_path, replace(wanted.settings, gradient_checkpointing=False))
    check_embeddings(model, wanted.tokenizer, wanted.sft_path)
    base = SharedBase(model, wanted.settings.most_logits)
    frozen = build_frozen(base, zero=wanted.zero, dtype=wanted.dtype)
    if frozen is not base:
        base.sharding = frozen.optimizer

    of_reward = read_adapters(wanted.reward_path)
    new = adapter_config(base.inner, wanted.lora, new_modules=())
    base.add_adapters("reward", of_reward.config)
    base.add_adapters("actor", new)
    base.add_adapters("critic", of_reward.config if wanted.critic_from == "reward" else new)
    for name in ("reward", "critic") if wanted.critic_from == "reward" else ("reward",):
        fill_adapters(base.model, name, of_reward.weights, wanted.reward_path)
    disable_dropout(base)
    base.train()  # only for gradient checkpointing, which works in this mode alone
    if wanted.settings.gradient_checkpointing:
        base.recompute_activations()

    mean, std = score_scale(config_changes(wanted.reward_path))
    head = head_from_weights(of_reward.whole, wanted.reward_path)
    reward = (
        ScalarRole(base, "reward", head, wanted.sft_path)
        .to(device(), wanted.dtype)
        .requires_grad_(False)
    )
    value_head = new_value_head(base.inner.config)
    initialize_head(value_head, "critic", seed=0)
    if wanted.critic_from == "reward":
        copy_reward_head(value_head, reward, *wanted.critic_scale(mean, std))
    critic = ScalarRole(
        base,
        "critic",
        value_head,
        wanted.sft_path,
        CriticLayout.of(wanted.sft_path, wanted.settings),
    )
    actor = PolicyRole(base, "actor", wanted.sft_path)
    for role in (actor, critic):
        role.requires_grad_(True)
    return FourModels(actor, critic, PolicyRole(base, None, wanted.sft_path), reward, mean, std)


def check_one_base(sft_path: str, reward_path: str, lora: LoraArguments) -> None:
    """Raises UserError where the four models cannot be one base with adapters."""
    if lora.lora_rank < 1:
        raise UserError("one_base needs adapters: set lora_rank, or --one_base false")
    base = adapter_base(reward_path)
    if base is None:
        raise UserError(
            f"one_base: {reward_path} is a whole model, but must be adapters on {sft_path}; train "
            "the reward model with --lora_rank, without --lora_merge, or use --one_base false"
        )
    if noted_base(base) != noted_base(sft_path) and not same_weights(Path(base), Path(sft_path)):
        raise UserError(
            f"one_base: {reward_path} holds adapters on {base}, which is not {sft_path}; train "
            "the reward model from the actor's folder, or use --one_base false"
        )


def same_weights(one: Path, other: Path) -> bool:
    """Whether two folders hold files of weights that are equal byte for byte."""
    names = [sorted(p.name for p in folder.glob("*.safetensors")) for folder in (one, other)]
    return (
        bool(names[0])
        and names[0] == names[1]
        and all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])
    )


def head_from_weights(whole: dict[str, dict[str, torch.Tensor]], path: str) -> nn.Linear:
    """A reward model's head from what its adapter folder holds in full.

    Raises:
        UserError: the folder holds no head, or something else.
    """
    heads = [whole[name] for name in HEAD_NAMES if name in whole]
    if len(heads) != 1 or len(whole) != 1 or heads[0]["weight"].shape[0] != 1:
        raise UserError(f"{path}: these adapters have no head with one output, as a reward model")
    weight = heads[0]["weight"]
    head = nn.Linear(weight.shape[1], 1, bias="bias" in heads[0])
    head.load_state_dict(heads[0])
    return head
