"""How near decoding and training come to what the machine can do.

Decoding at one token a row is bounded by memory: every step reads all weights and the cache.
Training is bounded by arithmetic. Both are held against rates that the same machine reaches in the
same run, for a plain copy and for a plain matrix product.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from common.benchmark.measuring import timed
from common.benchmark.shapes import (
    EOS,
    LLAMA_1B,
    LLAMA_7B,
    PAD,
    QUICKSTART,
    WIDE,
    Lengths,
    Shape,
    causal_lm,
)
from common.config.arguments import RunArguments, SamplingArguments, option
from common.files import write_json
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.policy import PolicyModel
from common.training.distributed import device
from common.training.metrics import progress_bar
from common.training.peak import PeakMemory
from common.training.run import run_stage
from common.training.stage import Stage
from common.zero.config import resolve_dtype


@dataclass(frozen=True)
class Work:
    """What a shape is measured on; all rows have full length."""

    rows: int
    prompt: int
    new_tokens: int
    train_rows: int
    train_length: int


CPU_CASES = ((QUICKSTART, Work(64, 32, 57, 64, 88)), (WIDE, Work(64, 64, 65, 32, 128)))
GPU_CASES = tuple(
    (shape, Work(rows, 256, 257, train_rows, 1024))
    for shape, train_rows in ((LLAMA_1B, 8), (LLAMA_7B, 2))
    for rows in (64, 128)
)


@dataclass
class RooflineBenchmark:
    """What is measured."""

    repeats: int = option(3, "measurements of each, of which the best counts")


ARGUMENTS = (RunArguments, RooflineBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: RooflineBenchmark) -> None:
    """Writes a row for each shape and number of rows."""
    cases = GPU_CASES if torch.cuda.is_available() else CPU_CASES
    stage.begin_anew()
    rows = []
    with progress_bar(len(cases), "rooflines", shown=run.progress) as bar:
        for shape, work in cases:
            try:
                rows.append(measure(shape, work, settings.repeats))
            except torch.OutOfMemoryError:
                stage.say(f"{shape.name} with {work.rows} rows does not fit, and is left out")
            bar.update()
    write_json(stage.folder / "rows.json", rows)
    shares = ", ".join(
        f"{r['shape']} decoding {r['decode_share']:.0%}, training {r['train_share']:.0%}"
        for r in rows
    )
    stage.finish({}, f"of what the machine can do: {shares}")


def measure(shape: Shape, work: Work, repeats: int) -> dict[str, Any]:
    """Rates of one shape, and their shares of the machine's."""
    dtype = resolve_dtype("auto")
    copied, multiplied = copy_rate(repeats), matrix_rate(dtype, repeats)
    with made_on_device(dtype):
        model = causal_lm(shape, 0, positions=4096)
    memory = PeakMemory()
    step, moved = decode(model, shape, work, repeats), decode_bytes(shape, work, dtype.itemsize)
    decode_memory = memory.megabytes()
    memory = PeakMemory()
    seconds, flops = train(model, shape, work, repeats), train_flops(shape, work)
    return {
        "shape": shape.name,
        "dtype": str(dtype).removeprefix("torch."),
        "rows": work.rows,
        "copy_gigabytes_per_second": copied / 1e9,
        "matrix_teraflops": multiplied / 1e12,
        "decode_tokens_per_second": work.rows / step,
        "decode_gigabytes_per_step": moved / 1e9,
        "decode_share": moved / step / copied,
        "decode_megabytes": decode_memory,
        "train_tokens_per_second": work.train_rows * work.train_length / seconds,
        "train_teraflop_per_step": flops / 1e12,
        "train_share": flops / seconds / multiplied,
        "train_megabytes": memory.megabytes(),
    }


def decode(model: Any, shape: Shape, work: Work, repeats: int) -> float:
    """Seconds of one step of all rows: a long rollout's less a short one's, by the steps more."""
    prompts = Lengths("", work.rows, 1, work.prompt, work.prompt, 0, 0).draw(shape.vocabulary)
    engine = HybridRollout(
        model,
        SamplingArguments(generation_batch_size=work.rows),
        RolloutArguments(rollout="native"),
        eos_id=EOS,
        pad_id=PAD,
        max_new_tokens=work.new_tokens,
    )
    long = timed(lambda: engine.respond(prompts, 0), repeats)
    short = timed(lambda: engine.respond(prompts, 0, max_new_tokens=1), repeats)
    return (long - short) / (work.new_tokens - 1)


def decode_bytes(shape: Shape, work: Work, width: int) -> float:
    """Bytes that one step must read: all weights but the input embeddings, and the cache.

    Args:
        width: bytes of a number.
    """
    seen = work.prompt + work.new_tokens / 2  # tokens in the cache, in the mean over the steps
    cache = 2 * shape.layers * shape.width * seen * work.rows
    return width * (shape.matrix_elements + cache)


def train(model: Any, shape: Shape, work: Work, repeats: int) -> float:
    """Seconds of a forward and a backward pass, without an optimizer's step."""
    policy = PolicyModel(model).train()
    if torch.cuda.is_available():
        model.gradient_checkpointing_enable({"use_reentrant": False})
    ids = torch.randint(3, shape.vocabulary, (work.train_rows, work.train_length), device=device())
    mask = torch.ones_like(ids).bool()
    wanted = mask.clone()
    wanted[:, 0] = False

    def step() -> None:
        policy(ids, mask, wanted).logprobs.mean().backward()
        policy.zero_grad()

    return timed(step, repeats)


def train_flops(shape: Shape, work: Work) -> float:
    """Operations of the model itself: two a weight and token forward, four backward, and attention.

    What checkpointing works out again is not counted: it is not the model's.
    """
    tokens = work.train_rows * work.train_length
    attention = 2 * 2 * shape.layers * shape.width * work.train_length / 2  # scores, sums; causal
    return 3.0 * tokens * (2 * shape.matrix_elements + attention)


def copy_rate(repeats: int) -> float:
    """Bytes a second that a plain copy reads and writes."""
    size = 2**30 if torch.cuda.is_available() else 2**27
    source = torch.ones(size, dtype=torch.uint8, device=device())
    target = torch.empty_like(source)
    return 2 * size / timed(lambda: target.copy_(source), 3 * repeats)


def matrix_rate(dtype: torch.dtype, repeats: int) -> float:
    """Operations a second of a plain matrix product."""
    size = 8192 if torch.cuda.is_available() else 1536
    one, two = (torch.randn(size, size, device=device(), dtype=dtype) for _ in range(2))
    return 2.0 * size**3 / timed(lambda: one @ two, 3 * repeats)


@contextlib.contextmanager
def made_on_device(dtype: torch.dtype) -> Iterator[None]:
    """New tensors are on this rank's device, in `dtype`: a 7B model would not pass by the host."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device():
            yield
    finally:
        torch.set_default_dtype(before)


if __name__ == "__main__":
    run_stage("roofline", ARGUMENTS, main)
