"""How long work takes at stated rates, and what goes between ranks.

Multiplications and additions: two for each weight and token in a forward pass, twice as many again
in a backward pass (Kaplan et al. 2020, §2.1; with adapters, no gradients of the weights beneath
them), another forward under gradient checkpointing; attention adds 4 × width for each pair of a
token and one before it, in each layer. Decoding reads all weights and the cache for every token.
Communication is a ring's: an all-reduce of b bytes sends 2 b (N − 1)/N a rank, a gather or a
reduce-scatter half of that.
"""

from dataclasses import dataclass

from common.training.batching import BatchShape
from common.zero.plan.cards import Machines
from common.zero.plan.settings import Job
from common.zero.plan.shapes import Variant, count, kv_elements, read_config

COMPUTED = 0.4
"""Share of a card's multiplications that training reaches: an assumption, of the order of what
Megatron and PaLM report for large models (36 to 57 %); small models and short rows reach less."""
READ = 0.6
"""Share of the memory's rate that decoding reaches: an assumption."""
SENT = 0.7
"""Share of the links' rate that collectives reach: an assumption."""
HIDDEN = 0.0
"""Share of the communication that is not waited for: none is counted on."""


@dataclass(frozen=True)
class Work:
    """What one rank does."""

    flops: float = 0.0
    read_bytes: float = 0.0
    sent_bytes: float = 0.0
    tokens: float = 0.0
    """Of all ranks: trained on, scored or generated."""

    def __add__(self, other: "Work") -> "Work":
        return Work(
            self.flops + other.flops,
            self.read_bytes + other.read_bytes,
            self.sent_bytes + other.sent_bytes,
            self.tokens + other.tokens,
        )

    def times(self, number: float) -> "Work":
        """So often."""
        return Work(
            *(number * v for v in (self.flops, self.read_bytes, self.sent_bytes, self.tokens))
        )

    def seconds(self, machines: Machines) -> float:
        """At the stated shares of the card's rates, one after the other."""
        card = machines.card
        return (
            self.flops / (COMPUTED * card.flops)
            + self.read_bytes / (READ * card.memory_rate)
            + (1 - HIDDEN) * self.sent_bytes / (SENT * machines.link)
        )


def forward_flops(variant: Variant, tokens: float, scored: float, context: float) -> float:
    """Of a forward pass.

    Args:
        tokens: read; scored: of which logits are wanted.
        context: mean number of tokens that a token attends to.
    """
    counts, config = count(variant), read_config(variant.source)
    body = counts.weights - counts.embeddings - counts.apart
    attention = 4.0 * config.num_hidden_layers * config.hidden_size * context
    return tokens * (2.0 * body + attention) + scored * 2.0 * counts.head


def training(job: Job, variant: Variant, shape: BatchShape, width: int, scored: int) -> Work:
    """One optimizer step."""
    rows = shape.micro_batch_size * shape.accumulation
    share = job.values.get("sequence_ranks", 1)
    forward = forward_flops(variant, rows * width / share, rows * scored / share, width / 2)
    passes = 2.0 if variant.lora_rank else 3.0
    passes += 1.0 if variant.checkpointing else 0.0
    return Work(
        passes * forward,
        sent_bytes=sent_per_step(job, variant, shape.accumulation),
        tokens=shape.batch_size * width,
    )


def sent_per_step(job: Job, variant: Variant, accumulation: int) -> float:
    """Bytes that a rank sends in an optimizer step."""
    ranks, stage = job.machines.ranks, job.zero.stage
    if ranks == 1:
        return 0.0
    counts, width = count(variant), job.dtype.itemsize
    part = (ranks - 1) / ranks * width
    gradients, weights = counts.trained * part, counts.weights * part
    if stage == 0:
        return 2 * gradients
    if stage == 1:
        return 2 * gradients + gradients
    if stage == 2:
        return 2 * gradients * accumulation + gradients
    gathers = 2 * accumulation  # for the forward, and for the backward pass
    if job.zero.quantized_communication:  # ZeRO++: 8 bits, none in the backward pass, 4 bits
        return (weights * accumulation + gradients * accumulation / 2) / width
    return weights * gathers + gradients * accumulation


def decoding(job: Job, variant: Variant, responses: int, prompts: int = 1) -> Work:
    """`responses` to each of some prompts of all ranks, as long as they may be."""
    s = job.s
    counts, config = count(variant), read_config(variant.source)
    rows = prompts * responses / job.machines.ranks
    slots = min(s.generation_batch_size, max(rows, 1))
    length, width = s.max_response_tokens, job.dtype.itemsize
    context = s.max_prompt_tokens + length / 2
    flops = forward_flops(variant, rows * length, rows * length, context)
    flops += forward_flops(variant, rows / responses * s.max_prompt_tokens, 0, context / 2)
    read = rows / slots * length * counts.weights * width
    read += rows * length * context * kv_elements(config) * width
    return Work(flops, read, tokens=prompts * responses * length)


def scoring(job: Job, variant: Variant, responses: int, prompts: int = 1) -> Work:
    """One forward over prompts and responses."""
    rows = prompts * responses / job.machines.ranks
    scored = job.s.max_response_tokens if variant.role == "policy" else 0
    return Work(forward_flops(variant, rows * job.width, rows * scored, job.width / 2))
