"""The settings that several stages share, one dataclass per concern.

What only one stage has stands in that stage. Field names are option names:
`learning_rate` is `--learning_rate 1e-5` and `learning_rate: 1e-5` in YAML.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from common.errors import UserError


def option(default: object, text: str) -> object:
    """A dataclass field with its line of help; lists are copied.

    A dataclass names in `HARMLESS` those of its settings that change no result: a resumed run may
    have others than it was begun with.
    """
    line = {"help": text.replace("%", "%%")}  # argparse would take it for a placeholder
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=line)
    return field(default=default, metadata=line)


def check_range(settings: object, low: float, *names: str, above: bool = False) -> None:
    """Refuses settings below `low` (or, with `above`, at it).

    Raises:
        UserError: names the setting and its value.
    """
    for name in names:
        value = getattr(settings, name)
        if not (value > low if above else value >= low):
            relation = "above" if above else "at least"
            raise UserError(f"{name} is {value}, but must be {relation} {low:g}")


@dataclass
class RunArguments:
    """Where results go, what they may depend on, and how a stage goes on."""

    HARMLESS: ClassVar = (
        *("run", "wandb", "wandb_project", "progress"),
        *("fresh", "allow_changes", "on_change", "step_timeout"),
        *("push_to_hub", "hub_name", "hub_private"),
    )

    run: str = option("runs/default", "folder that takes everything this run makes")
    seed: int = option(0, "every random draw derives from it, in a separate stream per purpose")
    wandb: bool = option(False, "also log to Weights & Biases (WANDB_MODE=offline works)")
    wandb_project: str = option("ice-rlhf", "Weights & Biases project")
    progress: bool = option(True, "draw a progress bar")
    fresh: bool = option(False, "delete what this stage has done in this run, and start it over")
    allow_changes: list[str] = option(
        [],
        "settings that may differ from those that the stage was begun with, by name; `inputs` for "
        "changed files, `examples` for pairs that are split otherwise",
    )
    on_change: Literal["refuse", "rerun"] = option(
        "refuse",
        "when settings or inputs changed: stop; or do a finished stage again, and one of which "
        "only inputs changed",
    )
    step_timeout: float = option(
        30.0, "minutes that one step may take before the run is ended as hung"
    )
    push_to_hub: bool = option(False, "upload the finished models, with their cards, to the hub")
    hub_name: str = option("", "`owner/name` on the hub; the model `sft` goes to `owner/name-sft`")
    hub_private: bool = option(True, "for others to see only when this is false")

    def __post_init__(self) -> None:
        check_range(self, 0, "step_timeout", above=True)
        if not self.run:
            raise UserError("run is empty, but must name a folder")
        if self.push_to_hub and self.hub_name.count("/") != 1:
            raise UserError(
                f"push_to_hub needs hub_name as owner/name, but it is '{self.hub_name}'"
            )


@dataclass
class ModelArguments:
    """How models are loaded."""

    HARMLESS: ClassVar = ("most_logits",)

    dtype: Literal["auto", "fp32", "bf16"] = option(
        "auto", "training precision; auto is bf16 on a GPU that has it, fp32 elsewhere"
    )
    trust_remote_code: bool = option(False, "run Python code that a model folder brings along")
    base_4bit: bool = option(
        False,
        "the weights beneath adapters, and the reference's, are held in 4 bits, as QLoRA does; "
        "needs bitsandbytes and lora_rank; not with ZeRO-3 (PPO's reward model stays whole)",
    )
    gradient_checkpointing: bool = option(False, "recompute activations: less memory, more time")
    most_logits: int = option(
        2**24,
        "logits in memory at a time, tokens times vocabulary; more of them are worked out in "
        "pieces, twice when training",
    )

    def __post_init__(self) -> None:
        check_range(self, 1, "most_logits")


@dataclass
class LoraArguments:
    """Low-rank adapters instead of full weights, through PEFT."""

    lora_rank: int = option(0, "rank of the adapters; 0 trains all weights")
    lora_alpha: float = option(16.0, "adapters are scaled by alpha / rank")
    lora_dropout: float = option(0.0, "dropout inside the adapters, while training")
    lora_targets: list[str] = option(
        [], "names of the linear layers to adapt; by default all of the backbone's"
    )
    lora_merge: bool = option(
        False, "save whole weights with the adapters merged into them, instead of adapters"
    )

    def __post_init__(self) -> None:
        if self.lora_rank < 0 or self.lora_alpha <= 0 or not 0 <= self.lora_dropout < 1:
            raise UserError(
                f"lora_rank ({self.lora_rank}) must be 0 or more, lora_alpha ({self.lora_alpha}) "
                f"above 0, lora_dropout ({self.lora_dropout}) in [0, 1)"
            )
        if self.lora_targets and self.lora_rank == 0:
            raise UserError("lora_targets is set, but lora_rank is 0: no adapter would be made")
        if self.lora_merge and self.lora_rank == 0:
            raise UserError("lora_merge is set, but lora_rank is 0: there is nothing to merge")


@dataclass
class ZeroArguments:
    """How DeepSpeed spreads a model over ranks, and what of it waits elsewhere."""

    zero: Literal["auto", "0", "1", "2", "3"] = option(
        "auto",
        "ZeRO stage (common/zero/configs): optimizer states (1), gradients (2) and weights (3) are "
        "spread over the ranks; auto is 3 on several ranks or with offload, else 0",
    )
    offload_optimizer: Literal["none", "cpu", "nvme"] = option(
        "none", "where optimizer states lie, and where they are updated; needs ZeRO"
    )
    offload_parameters: Literal["none", "cpu", "nvme"] = option(
        "none", "where weights lie between their uses; needs ZeRO-3"
    )
    nvme_path: str = option("", "folder on a fast local disk, for nvme")
    quantized_communication: bool = option(
        False,
        "ZeRO++: weights travel as 8 bits and gradients as 4, a copy of the weights stays in each "
        "node; needs ZeRO-3 and GPUs",
    )

    def __post_init__(self) -> None:
        nvme = "nvme" in (self.offload_optimizer, self.offload_parameters)
        if nvme and not self.nvme_path:
            raise UserError("offload to nvme needs nvme_path, a folder on a fast local disk")
        needed = next((why for least, why in self._needs() if not self._spreads(least)), None)
        if needed:
            raise UserError(f"{needed}, but zero is {self.zero}")

    def _needs(self) -> Iterator[tuple[int, str]]:
        """The least ZeRO stage, and why."""
        if self.offload_parameters != "none":
            yield 3, f"offload_parameters {self.offload_parameters} needs ZeRO-3"
        if self.quantized_communication:
            yield 3, "quantized_communication needs ZeRO-3"
        if self.offload_optimizer == "nvme":
            yield 3, "offload_optimizer nvme needs ZeRO-3"
        if self.offload_optimizer == "cpu":
            yield 1, "offload_optimizer cpu needs ZeRO-1, 2 or 3"

    def _spreads(self, least: int) -> bool:
        return self.zero == "auto" or int(self.zero) >= least

    @property
    def asks_for_spreading(self) -> bool:
        """Whether a lever is pulled that does nothing without ZeRO."""
        return any(True for _ in self._needs())

    @property
    def stage(self) -> int:
        """The ZeRO stage, once `auto` is resolved."""
        return int(self.zero)


@dataclass
class OptimizerArguments:
    """AdamW, its schedule, and how a step's batch is cut into micro-batches."""

    learning_rate: float = option(1e-5, "peak learning rate")
    lr_schedule: Literal["constant", "linear", "cosine"] = option("cosine", "after the warm-up")
    lr_floor: float = option(0.0, "share of the peak at which the schedule ends")
    warmup_ratio: float = option(0.03, "share of all steps over which the rate rises")
    weight_decay: float = option(0.0, "decoupled weight decay; not on biases, norms and heads")
    adam_beta2: float = option(0.95, "decay of AdamW's second moment")
    max_grad_norm: float = option(1.0, "gradients are clipped to this norm")
    epochs: float = option(1.0, "passes over the training data")
    batch_size: int = option(32, "examples per optimizer step, over all ranks")
    micro_batch_size: int = option(
        8, "examples per forward, on each rank; at most its share of batch_size"
    )
    eval_batch_size: int = option(
        32,
        "sequences per forward without gradients, on each rank; of pairs: prompts, with all their "
        "responses",
    )
    evaluations: int = option(4, "number of evaluations over the whole training")

    def __post_init__(self) -> None:
        check_range(self, 1, "batch_size", "micro_batch_size", "eval_batch_size", "evaluations")
        check_range(self, 0, "epochs", "max_grad_norm", above=True)
        check_range(self, 0, "learning_rate", "weight_decay", "warmup_ratio", "lr_floor")


@dataclass
class TextArguments:
    """How text becomes tokens."""

    template: Literal["ice", "chat"] = option(
        "ice", "prompt format: the paper's (§3.1), or the tokenizer's own chat template"
    )
    max_prompt_tokens: int = option(512, "prompts are limited to this many tokens")
    max_response_tokens: int = option(512, "responses are limited to this many tokens")
    long_prompts: Literal["skip", "truncate", "error"] = option(
        "skip", "what to do with a longer prompt: leave it out, keep its end, or stop"
    )

    def __post_init__(self) -> None:
        check_range(self, 1, "max_prompt_tokens", "max_response_tokens")


@dataclass
class SamplingArguments:
    """How responses are drawn from a model."""

    temperature: float = option(1.0, "logits are divided by it; PPO's log-probabilities too")
    top_k: int = option(0, "keep only the k likeliest tokens; 0 keeps all")
    top_p: float = option(1.0, "keep the likeliest tokens of this total probability")
    repetition_penalty: float = option(
        1.0, "above 1: tokens that the prompt or response has already get less likely"
    )
    min_response_tokens: int = option(0, "the end token is barred before so many tokens")
    generation_batch_size: int = option(64, "responses generated at a time, on each rank")

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise UserError(
                f"temperature is {self.temperature}, but must be above 0: PPO and the sampling of "
                "distinct responses need exploration"
            )
        if not 0 < self.top_p <= 1 or self.top_k < 0:
            raise UserError(f"top_p ({self.top_p}) must lie in (0, 1], top_k ({self.top_k}) >= 0")
        check_range(self, 0, "repetition_penalty", above=True)
        check_range(self, 0, "min_response_tokens")
        check_range(self, 1, "generation_batch_size")
