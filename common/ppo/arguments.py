"""Settings of PPO; what the paper states is in the preset `ice_grt`."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from common.config.arguments import OptimizerArguments, check_range, option
from common.errors import UserError
from common.training.batching import BatchShape


@dataclass
class PPOArguments:
    """The algorithm: rollouts, rewards, advantages, updates."""

    HARMLESS: ClassVar = ("offload_idle",)

    steps: int = option(100, "rollouts, each followed by its updates")
    rollout_batch_size: int = option(64, "prompts per rollout, over all ranks")
    mini_batch_size: int = option(32, "sequences per optimizer step, over all ranks")
    micro_batch_size: int = option(
        8, "sequences per training forward, on each rank; at most its share of mini_batch_size"
    )
    score_batch_size: int = option(32, "sequences per forward without gradients, on each rank")
    reuse_scoring: bool = option(
        True,
        "the first micro-batch is trained on the forward that scored it; actor's and critic's "
        "activations of it are then in memory together",
    )
    offload_idle: bool = option(
        False,
        "what is not at work waits in the host's memory: optimizer states while responses are "
        "generated and scored, reference and reward model at all other times; of use on a GPU",
    )
    ppo_epochs: int = option(2, "passes over each rollout, each in a fresh order")
    gamma: float = option(1.0, "discount per token (the paper: 0.95)")
    lam: float = option(0.95, "lambda of generalized advantage estimation")
    normalize_advantages: bool = option(True, "the paper's advantage normalization (§3.3.4)")
    clip_range: float = option(0.2, "epsilon of the clipped policy objective")
    dual_clip: float | None = option(
        None,
        "at negative advantages, the objective is no lower than this many times the advantage "
        "(3 is usual)",
    )
    entropy_coefficient: float = option(
        0.0, "weight of the policy's mean entropy per token, in nats, in its objective"
    )
    value_clip_range: float = option(0.2, "epsilon of the clipped value loss")
    kl_coefficient: float = option(0.05, "beta of the KL penalty per token, in the reward")
    kl_target: float | None = option(None, "adapt beta to this KL per sequence, in nats")
    kl_horizon: float = option(10_000.0, "sequences over which beta adapts")
    early_stop_kl: float | None = option(
        None, "skip a rollout's remaining updates above this approximate KL per token, in nats"
    )
    score_clip: float = option(3.0, "normalized scores are clipped to +- this")
    score_scaling: Literal["reference", "running"] = option(
        "reference",
        "scores are normalized by their mean and deviation over the reward model's reference "
        "responses, or over all rollouts so far (functions and endpoints: always these, unless "
        "mean and std are given)",
    )
    length_penalty: float = option(0.0, "taken off the score for each response token")
    repeat_penalty: float = option(
        0.0, "taken off the score times the share of n-grams that repeat earlier ones"
    )
    repeat_size: int = option(4, "tokens of such an n-gram")
    no_end_score: float | None = option(
        None, "score of a response without end token; by default minus score_clip"
    )
    actor_learning_rate: float = option(1e-6, "peak learning rate of the actor")
    critic_learning_rate: float = option(5e-6, "peak learning rate of the critic")
    value_head_learning_rate: float | None = option(
        None, "peak learning rate of the critic's head; by default the critic's"
    )
    lr_schedule: Literal["constant", "linear", "cosine"] = option("linear", "after the warm-up")
    lr_floor: float = option(0.1, "share of the peak at which the schedule ends")
    warmup_ratio: float = option(0.03, "share of all updates over which the rates rise")
    weight_decay: float = option(0.0, "decoupled weight decay")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    ema_decay: float | None = option(
        None,
        "also average the actor's weights over its updates, decaying by this factor at each "
        "(0.99 to 0.999); saved as models/actor_ema",
    )
    critic_warmup_steps: int = option(1, "first rollouts that train the critic only")
    evaluate_every: int = option(10, "rollouts between evaluations on held-out prompts")

    def __post_init__(self) -> None:
        check_range(self, 1, "steps", "ppo_epochs", "score_batch_size", "evaluate_every")
        check_range(self, 1, "rollout_batch_size", "mini_batch_size", "micro_batch_size")
        check_range(self, 0, "clip_range", "value_clip_range", "score_clip", above=True)
        check_range(self, 0, "kl_coefficient", "critic_warmup_steps", "entropy_coefficient")
        check_range(self, 0, "length_penalty", "repeat_penalty")
        check_range(self, 1, "repeat_size")
        if self.dual_clip is not None:
            check_range(self, 1, "dual_clip", above=True)
        if self.value_head_learning_rate is not None:
            check_range(self, 0, "value_head_learning_rate")
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise UserError(f"ema_decay is {self.ema_decay}, but must lie between 0 and 1")
        if self.critic_warmup_steps >= self.steps:
            raise UserError(
                f"critic_warmup_steps is {self.critic_warmup_steps} of {self.steps} steps: the "
                "actor would never be trained"
            )
        if self.kl_target is not None:
            check_range(self, 0, "kl_target", above=True)
        if self.early_stop_kl is not None:
            check_range(self, 0, "early_stop_kl", above=True)
        if self.rollout_batch_size % self.mini_batch_size:
            raise UserError(
                f"rollout_batch_size {self.rollout_batch_size} is not a multiple of "
                f"mini_batch_size {self.mini_batch_size}"
            )
        if self.kl_target is not None and self.kl_horizon < self.rollout_batch_size:
            raise UserError(
                f"kl_horizon {self.kl_horizon} is below rollout_batch_size "
                f"{self.rollout_batch_size}: the KL coefficient would leap, or turn negative"
            )
        if not (0 <= self.gamma <= 1 and 0 <= self.lam <= 1):
            raise UserError(f"gamma ({self.gamma}) and lam ({self.lam}) must lie in [0, 1]")
        if self.no_end_score is None:
            self.no_end_score = -self.score_clip

    def shape(self, world_size: int) -> BatchShape:
        """How a mini-batch is cut into micro-batches on each rank."""
        return BatchShape(self.mini_batch_size, self.micro_batch_size, world_size)

    @property
    def updates(self) -> int:
        """Optimizer steps of the critic over the whole training."""
        return self.steps * self.updates_per_rollout

    @property
    def updates_per_rollout(self) -> int:
        """Optimizer steps after each rollout."""
        return self.ppo_epochs * (self.rollout_batch_size // self.mini_batch_size)

    def optimizer(self, learning_rate: float) -> OptimizerArguments:
        """The engine's settings for the actor or the critic."""
        return OptimizerArguments(
            learning_rate=learning_rate,
            lr_schedule=self.lr_schedule,
            lr_floor=self.lr_floor,
            warmup_ratio=self.warmup_ratio,
            weight_decay=self.weight_decay,
            max_grad_norm=self.max_grad_norm,
            batch_size=self.mini_batch_size,
            micro_batch_size=self.micro_batch_size,
        )
