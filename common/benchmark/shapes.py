"""Models of known shape with random weights, and prompts of known lengths."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

PAD, BOS, EOS = 0, 1, 2


@dataclass(frozen=True)
class Shape:
    """A Llama."""

    name: str
    width: int
    layers: int
    heads: int
    vocabulary: int
    feed_forward: int

    @property
    def matrix_elements(self) -> int:
        """Weights that every token is multiplied with: all but the input embeddings and norms."""
        layer = 4 * self.width**2 + 3 * self.width * self.feed_forward
        return self.layers * layer + self.vocabulary * self.width

    def config(self, positions: int, **others: Any) -> Any:  # noqa: ANN401
        """transformers' config of it; others: further fields."""
        from transformers import LlamaConfig

        return LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.width,
            intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            max_position_embeddings=positions,
            tie_word_embeddings=False,
            pad_token_id=PAD,
            bos_token_id=BOS,
            eos_token_id=EOS,
            **others,
        )


QUICKSTART = Shape("quickstart", 128, 3, 4, 1536, 320)
WIDE = Shape("width 256", 256, 4, 4, 1536, 640)
LLAMA_1B = Shape("1.3B", 2048, 24, 16, 32000, 5504)
LLAMA_7B = Shape("7B", 4096, 32, 32, 32000, 11008)
LLAMA_13B = Shape("13B", 5120, 40, 40, 32000, 13824)


@dataclass(frozen=True)
class Lengths:
    """What prompts and responses a rollout has."""

    name: str
    prompts: int
    samples: int
    """Responses a prompt."""
    shortest: int
    longest: int
    """Tokens of a prompt, drawn evenly between the two."""
    new_tokens: int
    """At most."""
    mean: float
    """Mean length of a response; 0: none ends before the limit."""

    def draw(self, vocabulary: int, seed: int = 0) -> list[list[int]]:
        """Prompts as token ids, each `samples` times."""
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(self.prompts):
            count = int(rng.integers(self.shortest, self.longest + 1))
            found += [[BOS, *rng.integers(3, vocabulary, count - 1).tolist()]] * self.samples
        return found


def causal_lm(shape: Shape, mean_length: float, seed: int = 0, positions: int = 512) -> Any:
    """A language model whose responses end after `mean_length` tokens on average.

    Small random weights give nearly even chances to all tokens; a bias of the head sets the end
    token's, so that lengths are geometric as those of a trained actor are broad.
    """
    from transformers import LlamaForCausalLM

    torch.manual_seed(seed)
    model = LlamaForCausalLM(shape.config(positions))
    bias = torch.zeros(shape.vocabulary)
    chance = 1.0 / mean_length if mean_length else 1e-9
    bias[EOS] = math.log(chance / (1.0 - chance) * shape.vocabulary)
    model.lm_head.bias = nn.Parameter(bias)
    return model.eval()
