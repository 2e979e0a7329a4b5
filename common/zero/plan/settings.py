"""A stage's settings as the planner reads them, whatever dataclass each is a field of."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from common.config.arguments import ZeroArguments
from common.training.batching import BatchShape
from common.zero.plan.cards import Machines
from common.zero.plan.shapes import Source, Variant
from common.zero.plan.states import Spread

WHOLE_SHARE = 0.05
"""See `common.training.engine.WHOLE_SHARE`."""


@dataclass(frozen=True)
class Job:
    """Settings of a stage, and the machines it is planned for."""

    values: Mapping[str, Any]
    """All settings of the stage by name."""
    machines: Machines

    def with_values(self, **changes: Any) -> "Job":
        """The same with other settings."""
        return replace(self, values={**self.values, **changes})

    @property
    def s(self) -> SimpleNamespace:
        """The settings as attributes."""
        return SimpleNamespace(**self.values)

    @property
    def dtype(self) -> torch.dtype:
        """What `auto` is on these machines."""
        named = self.values.get("dtype", "auto")
        bf16 = named == "bf16" or (named == "auto" and self.machines.card.is_gpu)
        return torch.bfloat16 if bf16 else torch.float32

    @property
    def width(self) -> int:
        """Tokens of the longest row."""
        return self.values["max_prompt_tokens"] + self.values["max_response_tokens"]

    @property
    def zero(self) -> ZeroArguments:
        """What `auto` is on these machines; see `common.zero.config.resolve_zero`."""
        names = [f.name for f in fields(ZeroArguments)]
        zero = ZeroArguments(**{n: self.values[n] for n in names if n in self.values})
        if zero.zero != "auto":
            return zero
        spread = self.machines.ranks > 1 or zero.asks_for_spreading
        return replace(zero, zero="3" if spread else "0")

    def shape(self, batch_size: int, micro_batch_size: int) -> BatchShape:
        """How a step is cut up. Raises UserError where it cannot be."""
        readers = self.machines.ranks // self.values.get("sequence_ranks", 1)
        return BatchShape(batch_size, micro_batch_size, max(readers, 1))

    def spread(self, accumulation: int = 1, whole: bool = False) -> Spread:
        """How an engine's model lies over the ranks."""
        card = self.machines.card
        offloaded = self.zero.offload_parameters != "none"
        return Spread(
            self.zero,
            self.machines.ranks,
            self.dtype.itemsize,
            card.is_gpu,
            whole and self.zero.stage == 3 and not offloaded,
            accumulation,
            bool(self.values.get("base_4bit")),
        )

    def fits_whole(self, weights: int) -> bool:
        """See `common.training.engine.fits_whole`."""
        return weights * self.dtype.itemsize <= WHOLE_SHARE * self.machines.card.memory

    def variant(
        self, path: str, role: str, *, adapters: bool = True, train: bool = True
    ) -> Variant:
        """A model of this stage in a role."""
        s = self.s
        rank = self.values.get("lora_rank", 0) if adapters else 0
        return Variant(
            self.source(path),
            role,  # type: ignore[arg-type]
            self.dtype,
            rank,
            tuple(self.values.get("lora_targets", ())) if rank else (),
            s.gradient_checkpointing and train,
            s.most_logits,
        )

    def source(self, path: str) -> Source:
        """Where a model's config comes from: its folder, or what stands for one to be made."""
        s = self.s
        if path and path != "tiny" and is_there(path):
            return Source(path, s.trust_remote_code)
        path = self.values.get("plan_model") or path
        if path == "tiny":
            names = ("tiny_layers", "tiny_width", "tiny_heads", "tiny_vocabulary")
            shape = [self.values.get(n, d) for n, d in zip(names, (3, 128, 4, 1536), strict=True)]
            return Source("tiny", tiny=(*shape, self.width))
        return Source(path, s.trust_remote_code)


def is_there(path: str) -> bool:
    """Whether a model can be read from a folder, or is one of a hub."""
    folder = Path(path)
    if (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file():
        return True
    looks_local = path.startswith((".", "/", "~")) or path.count("/") != 1
    return not looks_local and not folder.parent.is_dir()


MOST_BYTES = 2**28
"""Of data files whose lines are counted: a second's reading."""


def examples_of(job: Job) -> int:
    """Examples or prompts of a stage: as given, or lines of its data; 0 where that is not cheap."""
    if given := job.values.get("plan_examples", 0):
        return given
    files = [Path(str(entry)) for entry in job.values.get("data", ())]
    if not files or not all(f.suffix == ".jsonl" and f.is_file() for f in files):
        return 0
    if sum(f.stat().st_size for f in files) > MOST_BYTES:
        return 0
    return sum(line.strip() != b"" for f in files for line in f.open("rb"))
