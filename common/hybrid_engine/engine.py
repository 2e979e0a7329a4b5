"""Rollouts behind DeepSpeed's own interface, by one of two backends.

`native` is this project's decoding loop; `generate` is transformers' own, the reference.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from deepspeed.runtime.rollout import (
    RolloutBatch,
    RolloutEngine,
    RolloutRequest,
    SamplingConfig,
)
from torch import Tensor, nn

from common.config.arguments import SamplingArguments, TextArguments, check_range, option
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.check import check_rollout, default_limit, first_rows
from common.hybrid_engine.generation import sample_responses
from common.hybrid_engine.graphs import cuda_recorder
from common.hybrid_engine.phases import gathers_whole, generation_phase
from common.hybrid_engine.reference import generate_responses
from common.hybrid_engine.rollout import Rollout
from common.models.attention import takes_masks_over_pairs
from common.models.context import check_context
from common.models.policy import acting, language_model, shares_weights
from common.training.distributed import device, rank, world_size
from common.training.seeding import derive_seed

Backend = Literal["native", "generate"]

DEEPSPEED_LAYERS = (
    "rollout: deepspeed cannot run: the layers that DeepSpeed's hybrid engine injects exist for "
    "CUDA only, keep a cache of their own and return tuples, as the layers of transformers 4 did; "
    "those of transformers 5 return hidden states and fill the cache that they are given. Use "
    "--rollout native, or generate, which is slower"
)
"""Tried with DeepSpeed 0.19.8 and transformers 5.23, as far as a CPU goes: it leaves OPT out,
refuses BLOOM, and fails on GPT-NeoX for a name that is gone; for Llama and GPT-2 it builds layers
whose answers do not fit. A test watches for versions in which that has changed."""


@dataclass
class RolloutArguments:
    """What generates responses, and how it is watched."""

    HARMLESS: ClassVar = ("rollout_check_every", "rollout_check_limit")

    rollout: Literal["auto", "native", "generate", "deepspeed"] = option(
        "auto",
        "native: this project's loop; generate: transformers'; auto: native where it fits the "
        "model, else generate; deepspeed: always refused, the message says why",
    )
    gather: Literal["auto", "all", "layers"] = option(
        "auto",
        "under ZeRO-3, gather all weights for a rollout, or layer by layer at every token; auto: "
        "all where they fit into free memory",
    )
    merge_adapters: Literal["auto", "always", "never"] = option(
        "auto",
        "adapters become part of the weights for the length of a rollout: faster, but a copy of "
        "these weights is kept meanwhile; auto: always, but not with one_base",
    )
    cuda_graphs: bool = option(
        False,
        "on a GPU, record decode steps as CUDA graphs, where all weights are gathered; "
        "experimental: tested by recordings on a CPU, not on a card yet",
    )
    rollout_check_every: int = option(
        10, "rollouts between comparisons of the sampler with the training forward; 0: first only"
    )
    rollout_check_limit: float | None = option(
        None,
        "largest gap of a token's two log-probabilities, nats (a tenth of it in the mean); by "
        "default 0.001, in bf16 1",
    )

    def __post_init__(self) -> None:
        if self.rollout == "deepspeed":
            raise UserError(DEEPSPEED_LAYERS)
        if self.cuda_graphs and not torch.cuda.is_available():
            warnings.warn(
                "cuda_graphs: this machine has no CUDA card; steps are launched as usual",
                stacklevel=2,
            )
        check_range(self, 0, "rollout_check_every")
        if self.rollout_check_limit is not None:
            check_range(self, 0, "rollout_check_limit", above=True)


@dataclass
class ScoredRolloutBatch(RolloutBatch):
    """DeepSpeed's batch, and what it has no field for."""

    logprobs: Tensor | None = None
    """`[B', T_r]` float32: see `Rollout.logprobs`."""
    ended: Tensor | None = None
    """`[B']` bool: whether the response has its end token."""


class HybridRollout(RolloutEngine):
    """Generates from a model that is being trained, or from a plain one."""

    def __init__(
        self,
        engine: Any,
        sampling: SamplingArguments,
        settings: RolloutArguments,
        *,
        eos_id: int,
        pad_id: int,
        max_new_tokens: int,
        seed: int = 0,
    ) -> None:
        """Args:
        engine: a DeepSpeed engine around a causal language model, or such a model.
        seed: of `generate`, DeepSpeed's entry, which brings none.

        Raises:
            UserError: a backend that does not work for this model, or no room for an end token.
        """
        if sampling.min_response_tokens >= max_new_tokens:
            raise UserError(
                f"min_response_tokens is {sampling.min_response_tokens}, but a response has at "
                f"most {max_new_tokens}, its end token included: none could end"
            )
        self.engine = engine
        self.sampling = sampling
        self.settings = settings
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.max_new_tokens = max_new_tokens
        self.seed = seed
        self.model: nn.Module = language_model(engine)
        self.backend = self.name = resolve_backend(settings.rollout, self.model)
        self._merges = settings.merge_adapters == "always"
        if settings.merge_adapters == "auto":
            self._merges = not shares_weights(engine)
        self._whole: bool | None = None
        self._step = self._calls = 0

    @classmethod
    def for_template(
        cls,
        engine: Any,
        template: Template,
        text: TextArguments,
        sampling: SamplingArguments,
        settings: RolloutArguments,
    ) -> "HybridRollout":
        """With the end and pad tokens of a template, and the length limit of a stage.

        Raises:
            UserError: rows may be longer than the model can see.
        """
        longest = text.max_prompt_tokens + text.max_response_tokens
        check_context(language_model(engine), longest, "the model that answers")
        return cls(
            engine,
            sampling,
            settings,
            eos_id=template.end_id,
            pad_id=template.tokenizer.pad_token_id,
            max_new_tokens=text.max_response_tokens,
        )

    def respond(
        self,
        prompts: Sequence[Sequence[int]],
        seed: int,
        *,
        streams: Sequence[int] | None = None,
        greedy: bool = False,
        check: bool = False,
        sampling: SamplingArguments | None = None,
        max_new_tokens: int | None = None,
        stop: Callable[[Sequence[int]], bool] | None = None,
    ) -> Rollout:
        """One response a prompt from the model as it is now. A collective under ZeRO-3.

        Args:
            prompts: token ids; at least one, and not necessarily equally many on every rank.
            seed: of this call's draws, the same on every rank.
            streams: each row's stream of draws (see `sample_responses`); rows of all ranks have
                different ones. By default its place in `prompts`.
            check: compare a few rows with a plain forward of the model.
            sampling, max_new_tokens: instead of the engine's own.
            stop: see `sample_responses`; transformers' `generate` goes on to the end.
        """
        sampling = sampling or self.sampling
        limit = max_new_tokens or self.max_new_tokens
        common = {"eos_id": self.eos_id, "pad_id": self.pad_id, "max_new_tokens": limit}
        common |= {"sampling": sampling, "seed": seed, "greedy": greedy}
        with self.phase() as model:
            if self.backend == "native":
                records = self.settings.cuda_graphs and self._whole
                rollout = sample_responses(
                    model,
                    prompts,
                    streams=streams,
                    together=self.together,
                    record=cuda_recorder() if records else None,
                    stop=stop,
                    **common,
                )
            else:
                rollout = generate_responses(
                    model, prompts, streams=streams, together=self.together, **common
                )
            if check:
                temperature = 1.0 if greedy else sampling.temperature
                self.check(rollout, first_rows(model, rollout, 4, temperature))
        return rollout

    @contextlib.contextmanager
    def phase(self) -> Iterator[nn.Module]:
        """The language model as rollouts have it: in eval mode, its weights there. A collective."""
        with (
            acting(self.engine),
            generation_phase(self.engine, whole=self._gathers_whole(), merge=self._merges) as model,
        ):
            yield model

    @property
    def together(self) -> bool:
        """Whether every forward of a phase is a collective."""
        return not self._gathers_whole()

    def _gathers_whole(self) -> bool:
        """See `gathers_whole`; decided at the first call, which is a collective."""
        if self._whole is None:
            gather = self.settings.gather
            self._whole = gathers_whole(self.model, gather, merge=self._merges)
        return self._whole

    def check(self, rollout: Rollout, logprobs: Tensor) -> None:
        """Stops the run when the backend is not true to the policy. A collective.

        Args:
            logprobs: `[rows, R]` of the training forward, for the rollout's first rows.
        """
        dtype = next(self.model.parameters()).dtype
        limit = self.settings.rollout_check_limit or default_limit(dtype)
        check_rollout(rollout, logprobs, self.backend, limit)

    def is_due(self, rollout: int) -> bool:
        """Whether rollout number `rollout`, counted from 1, is to be checked."""
        every = self.settings.rollout_check_every
        return rollout == 1 or (every > 0 and rollout % every == 0)

    def generate(self, request: RolloutRequest, sampling: SamplingConfig) -> ScoredRolloutBatch:
        """DeepSpeed's entry: `n_samples_per_prompt` rows for each prompt, one behind the other.

        A temperature of 0 or less takes the likeliest tokens.
        """
        mask = request.prompt_attention_mask.bool()
        copies = sampling.n_samples_per_prompt
        prompts = [
            ids[kept].tolist()
            for ids, kept in zip(request.prompt_ids, mask, strict=True)
            for _ in range(copies)
        ]
        greedy = sampling.temperature <= 0
        rows = sampling.continuous_batch_size or self.sampling.generation_batch_size
        self._calls += 1
        rollout = self.respond(
            prompts,
            derive_seed(self.seed, "rollout", self._step, self._calls),
            streams=[rank() + world_size() * i for i in range(len(prompts))],
            greedy=greedy,
            sampling=replace(
                self.sampling,
                temperature=1.0 if greedy else sampling.temperature,
                top_p=sampling.top_p,
                top_k=max(sampling.top_k, 0),
                generation_batch_size=rows,
            ),
            max_new_tokens=sampling.max_new_tokens,
        )
        width = rollout.response_width
        prompt_ids = request.prompt_ids.repeat_interleave(copies, dim=0).to(device())
        prompt_mask = request.prompt_attention_mask.repeat_interleave(copies, dim=0).to(device())
        response_mask = rollout.response_mask.to(prompt_mask.dtype)
        return ScoredRolloutBatch(
            input_ids=torch.cat([prompt_ids, rollout.input_ids[:, -width:]], dim=1),
            attention_mask=torch.cat([prompt_mask, response_mask], dim=1),
            response_start_idx=torch.full((len(prompts),), prompt_ids.shape[1], device=device()),
            logprobs=rollout.logprobs,
            ended=rollout.ended,
        )

    def sync_weights(self, step: int) -> None:
        """Nothing to push: the weights are the trained ones. Draws of later calls are new."""
        self._step, self._calls = step, 0


def resolve_backend(name: str, model: nn.Module) -> Backend:
    """What `auto` stands for, and whether the chosen backend works here.

    Raises:
        UserError: it does not.
    """
    fits = takes_masks_over_pairs(model)
    if name == "auto":
        return "native" if fits else "generate"
    if name == "native" and not fits:
        config = model.config  # type: ignore[union-attr]
        raise UserError(
            f"rollout: native needs attention layers that obey a mask (sdpa attention, full or "
            f"with a sliding window); {config.model_type} with {config._attn_implementation} "
            "attention has others. Use --rollout generate"
        )
    return name  # type: ignore[return-value]
