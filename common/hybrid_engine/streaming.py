"""One response, token by token: for people who wait for it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from common.config.arguments import SamplingArguments
from common.hybrid_engine.decoding import DecodingLoop
from common.hybrid_engine.generation import check_finite
from common.hybrid_engine.reference import generate_responses
from common.models.attention import takes_masks_over_pairs


@torch.no_grad()
def stream_response(
    model: Any,
    prompt: Sequence[int],
    *,
    eos_id: int,
    pad_id: int,
    max_new_tokens: int,
    sampling: SamplingArguments,
    seed: int,
    greedy: bool = False,
) -> Iterator[int]:
    """The tokens of a response as they are drawn, the end token included.

    They are those that `sample_responses` gives the same prompt. Where the decoding loop does not
    fit the model, transformers' `generate` works, and they all come at its end.

    Args: as of `common.hybrid_engine.generation.sample_responses`.

    Raises:
        NotFinite: the model gave a token no finite probability.
    """
    common = {"max_new_tokens": max_new_tokens, "sampling": sampling, "seed": seed}
    common |= {"eos_id": eos_id, "greedy": greedy}
    if not takes_masks_over_pairs(model):
        yield from generate_responses(model, [prompt], pad_id=pad_id, **common).response_ids()[0]
        return
    loop = DecodingLoop(model, [prompt], np.zeros(1, dtype=np.int64), most_steps=1, **common)
    try:
        loop.admit(loop.next_rows())
        for step in range(max_new_tokens):
            if step > 0:
                loop.advance(1)
            check_finite(loop.logprobs[:, step : step + 1])
            token = int(loop.tokens[0, step])
            yield token
            if token == eos_id:
                return
    finally:
        loop.close()
