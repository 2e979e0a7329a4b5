"""What fits into a model's context: prompts as plain text, and room for the answers."""

from dataclasses import dataclass
from typing import Any

from common.config.arguments import ModelArguments
from common.models.lora import adapter_base


@dataclass(frozen=True)
class Context:
    """A model's tokenizer, and how many tokens the model sees."""

    tokenizer: Any
    length: int

    @classmethod
    def of(cls, config: Any, tokenizer: Any) -> "Context":
        """As lm-evaluation-harness finds it in a model's config."""
        from lm_eval.models.utils import resolve_max_length

        return cls(tokenizer, resolve_max_length(config, tokenizer))

    @classmethod
    def of_folder(cls, path: str, tokenizer: Any, settings: ModelArguments) -> "Context":
        """Of a model's folder or hub name, or of adapters'; no weights are read."""
        from transformers import AutoConfig

        base = adapter_base(path) or path
        config = AutoConfig.from_pretrained(base, trust_remote_code=settings.trust_remote_code)
        return cls.of(config, tokenizer)

    def encode(self, text: str, add_special_tokens: bool | None = None) -> list[int]:
        """Ids of plain text, by default with what the tokenizer puts around it by itself.

        Of a benchmark's text nothing becomes a special token, unlike in the harness's own models.
        """
        chosen = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(text, split_special_tokens=True, **chosen)

    def room(self, new_tokens: int) -> int:
        """Tokens that an answer may have: as asked for, but at most half of the context."""
        return max(1, min(new_tokens, self.length // 2))

    def fits(self, prompt: str, new_tokens: int) -> bool:
        """Whether a prompt and an answer of this length (see `room`) fit."""
        return len(self.encode(prompt)) + self.room(new_tokens) <= self.length
