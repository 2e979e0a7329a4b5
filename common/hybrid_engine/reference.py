"""Rollouts by transformers' own `generate`: slower, and what the others are held against."""

import contextlib
from collections.abc import Sequence
from typing import Any

import torch

from common.config.arguments import SamplingArguments
from common.hybrid_engine.rollout import Rollout, assemble
from common.models.logprobs import token_logprobs
from common.training.distributed import device
from common.training.padding import in_batches, left_pad
from common.training.seeding import derive_seed


@torch.no_grad()
def generate_responses(
    model: Any,
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
    with_logprobs: bool = True,
) -> Rollout:
    """One response for each prompt, in batches of `sampling.generation_batch_size`.

    Args: as of `common.hybrid_engine.generation.sample_responses`; `model` is anything that has
        transformers' `generate`. A row's draws depend on all rows of its batch here.
        with_logprobs: else they are left at 0, and `generate` has nothing but its own work to do.
    """
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        min_new_tokens=sampling.min_response_tokens or None,
        do_sample=not greedy,
        temperature=1.0 if greedy else sampling.temperature,
        top_k=0 if greedy else sampling.top_k,
        top_p=1.0 if greedy else sampling.top_p,
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=eos_id,
        pad_token_id=pad_id,
        use_cache=True,
        output_logits=with_logprobs,
        return_dict_in_generate=True,
    )
    temperature = 1.0 if greedy else sampling.temperature
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    shape = (len(prompts), max_new_tokens)
    tokens = torch.full(shape, pad_id, device=device())
    logprobs = torch.zeros(shape, device=device())
    batches = [order[part] for part in in_batches(len(order), sampling.generation_batch_size)]
    if together:
        batches += [order[-1:]] * (_most(len(batches)) - len(batches))
    cards = [device()] if device().type == "cuda" else []
    streams = range(len(prompts)) if streams is None else streams
    # `generate` fills in what a config leaves open from the model's own, which may hold anything.
    inner = model.get_base_model() if hasattr(model, "peft_config") else model
    own_defaults, inner.generation_config = inner.generation_config, GenerationConfig()
    with contextlib.ExitStack() as stack:
        stack.callback(setattr, inner, "generation_config", own_defaults)
        stack.enter_context(torch.random.fork_rng(devices=cards))
        for number, rows in enumerate(batches):
            torch.manual_seed(derive_seed(seed, "generate", number, *(streams[i] for i in rows)))
            ids, mask = (x.to(device()) for x in left_pad([prompts[i] for i in rows], pad_id))
            found = model.generate(
                input_ids=ids,
                attention_mask=mask.long(),
                generation_config=settings,
                synced_gpus=together,
            )
            said = found.sequences[:, ids.shape[1] :]
            places = torch.tensor(rows, device=device())
            tokens[places, : said.shape[1]] = said
            for step, logits in enumerate(found.logits or ()):
                logprobs[places, step] = token_logprobs(logits, said[:, step], temperature)
    ids, mask = (x.to(device()) for x in left_pad(prompts, pad_id))
    return assemble(ids, mask, tokens, logprobs, eos_id, pad_id)


def _most(count: int) -> int:
    """The largest `count` of all ranks. A collective."""
    import torch.distributed as dist

    most = torch.tensor(count, device=device())
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    return int(most)
