"""Sampling responses to prompts with any Hugging Face causal model that has a cache."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from common.config.arguments import SamplingArguments
from common.errors import NotFinite
from common.hybrid_engine.decoding import DecodingLoop
from common.hybrid_engine.graphs import Recorder
from common.hybrid_engine.rollout import Rollout, assemble
from common.training.distributed import any_rank, rank
from common.training.padding import left_pad
from common.training.watchdog import WATCHDOG

CHECK_EVERY = 8
"""Tokens between two looks at which rows have ended: only then does the host wait for the device,
do ended rows leave, and do waiting prompts come in."""


@torch.no_grad()
def sample_responses(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    *,
    eos_id: int,
    pad_id: int,
    max_new_tokens: int,
    sampling: SamplingArguments,
    seed: int,
    streams: Sequence[int] | None = None,
    greedy: bool = False,
    together: bool = False,
    record: Recorder | None = None,
    stop: Callable[[Sequence[int]], bool] | None = None,
) -> Rollout:
    """Generates one response for each prompt.

    A prompt goes through the model once for all its rows that come in together. At most
    `sampling.generation_batch_size` rows are worked on at a time; the others wait, in order of
    length, and take the places of rows that have ended. What a row draws depends on `seed` and
    its stream alone, not on its neighbours.

    Args:
        model: a plain causal language model in eval mode (see `generation_phase`).
        prompts: token ids; a prompt that is given k times gets k independent responses.
        seed: of this call's draws; no global generator is read or changed.
        streams: number of each row's stream of draws, ≥ 0; by default its place in `prompts`.
        greedy: take the likeliest token instead of sampling.
        together: every forward is a collective, so ranks run equally many.
        record: records decode steps, to play them again without the host's work.
        stop: whether a response, its ids so far, is long enough; looked at every `CHECK_EVERY`
            tokens; it then ends there, without an end token.

    Returns:
        a `Rollout` in the order of `prompts`, on the model's device.

    Raises:
        NotFinite: the model gave a token no finite probability.
    """
    loop = DecodingLoop(
        model,
        prompts,
        np.arange(len(prompts)) if streams is None else np.asarray(streams),
        eos_id=eos_id,
        max_new_tokens=max_new_tokens,
        sampling=sampling,
        seed=seed,
        greedy=greedy,
        most_steps=CHECK_EVERY,
        record=record,
        stop=stop,
    )
    agree = any_rank if together else bool
    try:
        while True:
            WATCHDOG.alive()
            loop.drop_ended()
            rows = loop.next_rows()
            if agree(bool(rows)):
                loop.admit(rows)
            if not agree(len(loop.held) > 0):
                break
            loop.advance(CHECK_EVERY if together else min(CHECK_EVERY, loop.longest_rest()))
    finally:
        loop.close()
    check_finite(loop.logprobs)
    ids, mask = (x.to(loop.device) for x in left_pad(prompts, pad_id))
    most = torch.from_numpy(loop.most).to(loop.device) if stop else None
    return assemble(ids, mask, loop.tokens, loop.logprobs, eos_id, pad_id, most)


def check_finite(logprobs: Tensor) -> None:
    """Raises NotFinite where a sampled token had no finite probability.

    Args:
        logprobs: `[prompts, tokens]`.
    """
    bad = ~logprobs.isfinite()
    if bool(bad.any()):
        row, step = (int(x) for x in bad.nonzero()[0])
        raise NotFinite(
            f"the model gave no finite probability to token {step + 1} of its response to prompt "
            f"{row + 1} of the {len(logprobs)} of rank {rank()}: its weights or its logits are NaN "
            "or infinite"
        )
