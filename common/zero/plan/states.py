"""What a DeepSpeed engine holds on each rank, by moments, in bytes.

ZeRO (Rajbhandari et al. 2020, §3) with AdamW in bf16: 2 bytes of weights, 2 of gradients and 12 of
optimizer states for each trained weight, of which 1/N a rank from stage 1 on for the states, 2 for
the gradients, 3 for the weights. What else there is, is read off DeepSpeed 0.19 (files named below,
under deepspeed/runtime): buffers, copies while an engine is made, and torch's AdamW, which works
out the square roots of a whole group at once.
"""

import json
from collections import Counter
from dataclasses import dataclass, field

from common.config.arguments import ZeroArguments
from common.zero.config import CONFIGS
from common.zero.plan.shapes import Counts
from common.zero.plan.trace import ACTIVATIONS, GRADIENTS, LOGITS, Kinds, Trace

WEIGHTS, OPTIMIZER, BUFFERS, CACHE = "weights", "optimizer", "buffers", "cache"
FP32 = 4
WHOLE_BUFFER = 500_000_000
"""Elements that ZeRO-0 reduces at once (engine.py, allreduce_bucket's default)."""
LIVE = 1_000_000_000
"""Elements that ZeRO-3 keeps gathered (zero/config.py, stage3_max_live_parameters and
stage3_max_reuse_distance), and of which it updates as many at once (sub_group_size)."""


def bucket_elements(stage: int) -> int:
    """Gradients that are reduced at once, and under ZeRO-3 weights that are gathered ahead."""
    config = json.loads((CONFIGS / f"{stage}.json").read_text())
    return config["zero_optimization"].get("reduce_bucket_size", WHOLE_BUFFER)


@dataclass(frozen=True)
class Spread:
    """How an engine's model lies over the ranks."""

    zero: ZeroArguments
    """Resolved."""
    ranks: int
    width: int
    """Bytes of a weight in the model's precision."""
    is_gpu: bool = True
    """Else all of the memory is the host's, where what is offloaded lies, too; and of buffers only
    the part that is written to counts."""
    whole: bool = False
    """Under ZeRO-3: every weight stays on each rank."""
    accumulation: int = 1
    """Micro-batches of an optimizer step."""
    in_4_bits: bool = False
    """Whole weights that are not trained."""

    @property
    def alone(self) -> bool:
        """One rank on its card: ZeRO-3 has nothing to put together, and makes no copy."""
        return self.ranks == 1 and self.zero.offload_parameters == "none"


@dataclass
class EngineMemory:
    """Bytes by what takes them."""

    rest: Kinds
    """Between two steps."""
    moments: dict[str, Kinds]
    """What each moment takes beside that."""
    loading: Kinds
    """While the engine is being made; all of it."""
    host: Kinds = field(default_factory=dict)
    """What lies in the host's memory in place of the card's."""


def added(*parts: Kinds) -> Kinds:
    """Sums, by kind."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return {kind: size for kind, size in total.items() if size}


def size_of(part: Kinds) -> int:
    """All of it."""
    return sum(part.values())


def weight_bytes(counts: Counts, spread: Spread) -> int:
    """Of whole weights; with 4 bits, those of frozen layers between embeddings and head take 4.127
    bits each (NF4, its scales quantized too: Dettmers et al. 2023, QLoRA, §3)."""
    if not spread.in_4_bits:
        return counts.weights * spread.width
    inner = counts.weights - counts.trained - counts.embeddings - counts.apart
    return (counts.weights - inner) * spread.width + round(inner * 4.127 / 8)


def frozen_memory(counts: Counts, spread: Spread) -> Kinds:
    """A model that only scores: whole, or a shard and what is gathered for a forward."""
    if spread.zero.stage < 3 or spread.whole or spread.ranks == 1:
        frozen = counts if counts.trained < counts.weights else counts._replace(trained=0)
        return {WEIGHTS: weight_bytes(frozen, spread)}
    share = -(-counts.weights // spread.ranks) * spread.width
    if spread.zero.offload_parameters != "none" and spread.is_gpu:
        return {}
    return {WEIGHTS: share}


def loaded(counts: Counts, spread: Spread) -> Kinds:
    """A model on its way into an engine; it is read in its precision."""
    return {WEIGHTS: weight_bytes(counts, spread)}


def copied(counts: Counts, spread: Spread) -> int:
    """Bytes of an fp32 copy of what is trained (`common.training.average`), which lies on the host:
    a share on each rank under ZeRO-3, otherwise all of it on one."""
    return FP32 * -(-counts.trained // (spread.ranks if spread.zero.stage == 3 else 1))


def gathered(weights: int, spread: Spread) -> Kinds:
    """What ZeRO-3 puts together for a pass (zero/partition_parameters.py): weights in use, and the
    buffer that the next ones come in by."""
    if spread.zero.stage < 3 or spread.whole or spread.alone:
        return {}
    ahead = min(weights, bucket_elements(3))
    return {BUFFERS: (min(weights, LIVE) + ahead) * spread.width}


def engine_memory(counts: Counts, spread: Spread, trace: Trace) -> EngineMemory:
    """An engine that trains.

    Args:
        trace: of a micro-batch's passes.
    """
    stage = spread.zero.stage
    if stage == 0:
        memory = _without_zero(counts, spread, trace)
    elif stage == 3:
        memory = _stage_3(counts, spread, trace)
    else:
        memory = _stages_1_and_2(counts, spread, trace)
    if memory.host and not spread.is_gpu:
        memory.rest, memory.host = added(memory.rest, memory.host), {}
    return memory


def _without_zero(counts: Counts, spread: Spread, trace: Trace) -> EngineMemory:
    """engine.py; in bf16 with an fp32 copy beside the weights (fp16/unfused_optimizer.py)."""
    own, width = counts.trained, spread.width
    gradients = {GRADIENTS: own * width}
    masters = own * FP32 if width < FP32 else 0
    kept = gradients if spread.accumulation > 1 else {}
    moments = {
        "forward": added(trace.forward, kept),
        **_backward(trace, gradients, kept),
        "optimizer step": added(gradients, {GRADIENTS: masters, OPTIMIZER: own * FP32}),
        # On one rank, too, gradients are put together for it.
        "reduction": added(gradients, {BUFFERS: min(own, WHOLE_BUFFER) * width}),
    }
    rest = {WEIGHTS: weight_bytes(counts, spread), OPTIMIZER: 2 * own * FP32 + masters}
    return EngineMemory(rest, moments, added(loaded(counts, spread), {OPTIMIZER: masters}))


def _stages_1_and_2(counts: Counts, spread: Spread, trace: Trace) -> EngineMemory:
    """zero/stage_1_and_2.py."""
    own, width = counts.trained, spread.width
    share = -(-own // spread.ranks)
    bucket = bucket_elements(spread.zero.stage)
    touched = bucket if spread.is_gpu else min(bucket, own)
    averaged = {GRADIENTS: share * width}
    offloads = spread.zero.offload_optimizer != "none"
    states = {OPTIMIZER: 3 * share * FP32}
    if spread.zero.stage == 1:
        gradients = {GRADIENTS: own * width}
        kept = gradients if spread.accumulation > 1 else {}
        reduction = added(gradients, averaged, {BUFFERS: 2 * touched * width})
        backward = _backward(trace, gradients, kept)
    else:
        gradients = {BUFFERS: touched * width}  # each goes into the bucket as it comes
        kept = averaged if spread.accumulation > 1 else {}
        reduction = added(kept, gradients, {BUFFERS: min(bucket, own) * width})
        if own > bucket:  # within the backward pass, and not at its end
            reduction = added(reduction, trace.alone)
            backward = {"backward": added(trace.alone, gradients, kept)}
        else:
            backward = _backward(trace, gradients, {}, kept)
    flat = {GRADIENTS: share * FP32}
    moments = {
        "forward": added(trace.forward, kept),
        **backward,
        "reduction": reduction,
        "optimizer step": averaged
        if offloads
        else added(averaged, flat, {OPTIMIZER: share * FP32}),
    }
    loading = added(
        loaded(counts, spread),
        {WEIGHTS: own * width, OPTIMIZER: share * FP32 * (not (offloads and spread.is_gpu))},
    )
    host: Kinds = {}
    if offloads:  # fp32 gradients, and a copy in the model's precision on its way back
        host = added(states, {GRADIENTS: share * (FP32 + width)})
        if not spread.is_gpu:
            host = added(host, {BUFFERS: _largest(counts) * width * 2})
            moments["optimizer step"] = {OPTIMIZER: share * FP32}
        states = {}
    if not spread.is_gpu:
        moments["saving"] = {BUFFERS: own * width}
    weights = {WEIGHTS: weight_bytes(counts, spread)}
    return EngineMemory(added(weights, states), moments, loading, host)


def _stage_3(counts: Counts, spread: Spread, trace: Trace) -> EngineMemory:
    """zero/stage3.py, zero/partition_parameters.py."""
    own, width = counts.trained, spread.width
    share, part = -(-own // spread.ranks), -(-counts.weights // spread.ranks)
    bucket = bucket_elements(3)
    touched = bucket if spread.is_gpu else min(bucket, own)
    offloads = spread.zero.offload_optimizer != "none"
    shard = {WEIGHTS: part * width}
    states = {OPTIMIZER: 3 * share * FP32, GRADIENTS: share * width}
    rest = {BUFFERS: touched * width}
    copied = spread.whole and not spread.alone
    if copied:
        rest = added(rest, {BUFFERS: counts.weights * width})
    here = gathered(counts.weights, spread)
    back = {BUFFERS: min(counts.weights, LIVE) * width} if here else {}
    concatenated = {BUFFERS: min(bucket, own) * width}
    if own > bucket:
        back = added(back, concatenated)
    group = min(share, LIVE) * FP32
    moments = {
        "forward": added(trace.forward, here),
        "backward": added(trace.alone, back),
        "reduction": concatenated,
        "optimizer step": {} if offloads else {GRADIENTS: group, OPTIMIZER: group},
        # One weight at a time; on the host what is saved (`common.training.engine.whole_on_host`).
        "saving": {}
        if spread.whole
        else {BUFFERS: (_largest(counts) + (0 if spread.is_gpu else own)) * width},
    }
    loading = {WEIGHTS: (part + share) * width, OPTIMIZER: share * FP32}
    if not spread.is_gpu:  # shard by shard, while the file that all come from is in memory
        loading = added(loaded(counts, spread), {WEIGHTS: part * width})
    host: Kinds = {}
    if offloads:
        host, states = added(states, {GRADIENTS: share * FP32}), {}  # of all groups
        if not spread.is_gpu:
            moments["optimizer step"] = {OPTIMIZER: group}
    if spread.zero.offload_parameters != "none":
        host, shard = added(host, shard), {}
    if copied:  # all weights at once, after a step
        moments["gathering"] = {BUFFERS: counts.weights * width}
    return EngineMemory(added(rest, shard, states), moments, loading, host)


def _backward(
    trace: Trace, gradients: Kinds, kept: Kinds, beside: Kinds | None = None
) -> dict[str, Kinds]:
    """The backward pass, in which gradients grow where `kept` does not hold them already."""
    if kept and beside is None:
        return {"backward": added(trace.alone, gradients)}
    (name,) = gradients
    halves = {}
    for label, half in (("backward", trace.early), ("end of backward", trace.late)):
        grown = half.get(GRADIENTS, 0)
        rest = {k: v for k, v in half.items() if k in (ACTIVATIONS, LOGITS)}
        halves[label] = added(rest, {name: min(grown, gradients[name])}, beside or {})
    return halves


def _largest(counts: Counts) -> int:
    """About the elements of the largest weight."""
    return max(counts.embeddings, counts.head)
