"""What a chat is started with, and what can be changed while it goes on."""

from dataclasses import dataclass, fields, replace
from typing import Literal

from common.config.arguments import SamplingArguments, check_range, option
from common.errors import UserError, nearest


@dataclass
class ChatArguments:
    """Who talks, and where."""

    models: list[str] = option(
        [], "model folders, hub names, or a run's folder for its SFT model and its actor"
    )
    reward: str = option("", "reward model that scores each answer; a run's own by default")
    template: Literal["ice", "chat"] = option(
        "ice", "prompt format: the paper's (§3.1), or the tokenizer's own chat template"
    )
    system: str = option("", "a system message at the conversation's beginning")
    dtype: Literal["auto", "fp32", "bf16"] = option(
        "auto", "precision; auto is bf16 on a GPU that has it, fp32 elsewhere"
    )
    trust_remote_code: bool = option(False, "run Python code that a model folder brings along")
    serve: bool = option(False, "a page in the browser, on this machine only, not the terminal")
    port: int = option(8770, "port of the page; 0 takes any that is free")

    def __post_init__(self) -> None:
        check_range(self, 0, "port")
        if not self.models:
            raise UserError(
                "no model is named: bash launch/chat.sh MODEL [MODEL…], each a model folder, a hub "
                "name, or a run's folder"
            )


@dataclass(frozen=True)
class ChatSampling:
    """How answers are drawn; `/set NAME VALUE` changes it."""

    temperature: float = option(1.0, "logits are divided by it; 0 takes the likeliest tokens")
    top_p: float = option(1.0, "keep the likeliest tokens of this total probability")
    top_k: int = option(0, "keep only the k likeliest tokens; 0 keeps all")
    max_response_tokens: int = option(512, "the longest answer, in tokens")
    seed: int = option(0, "every draw derives from it")

    def __post_init__(self) -> None:
        check_range(self, 0, "temperature")
        check_range(self, 1, "max_response_tokens")
        self.arguments()

    @property
    def greedy(self) -> bool:
        """Whether the likeliest tokens are taken."""
        return self.temperature == 0

    def arguments(self) -> SamplingArguments:
        """As the rollout takes them; of a greedy one the temperature is not read."""
        temperature = 1.0 if self.greedy else self.temperature
        return SamplingArguments(temperature=temperature, top_p=self.top_p, top_k=self.top_k)

    def changed(self, name: str, value: str) -> "ChatSampling":
        """With another value of one setting.

        Raises:
            UserError: an unknown name, or a value that it cannot have.
        """
        kinds = {f.name: type(getattr(self, f.name)) for f in fields(self)}
        name = name.lower().replace("-", "_")
        if name not in kinds:
            raise UserError(f"there is no setting '{name}'{nearest(name, list(kinds))}")
        try:
            number = kinds[name](value)
        except ValueError:
            number = float("nan")
        if number != number or abs(number) == float("inf"):
            whole = "a whole number" if kinds[name] is int else "a number"
            raise UserError(f"{name} must be {whole}, not '{value}'")
        return replace(self, **{name: number})

    def line(self) -> str:
        """All of them on one line."""
        return ", ".join(f"{f.name} {getattr(self, f.name):g}" for f in fields(self))
