"""An exponential moving average of the weights that are trained."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from common.training.distributed import device, is_main, rank, world_size
from common.training.engine import gathered_parameters


class WeightAverage:
    """ē ← d·ē + (1 − d)·w after each optimizer step, in float32 in the host's memory.

    Averaged weights forget the noise of single steps (Polyak and Juditsky 1992; InstructGPT decays
    by 0.992, https://arxiv.org/abs/2203.02155, appendix C.4). What is averaged are the optimizer's
    own float32 weights: in bfloat16 most small steps are rounded away.

    Under ZeRO-3 every rank averages its share of each weight; otherwise all ranks hold the same,
    and the first one alone averages. Part of a checkpoint, as whole weights: another number of
    ranks can go on with it.
    """

    def __init__(self, engine: Any, decay: float) -> None:
        """Starts from the weights as they are.

        Args:
            engine: DeepSpeed's; decay: d, in [0, 1).
        """
        self.engine = engine
        self.decay = decay
        self._parameters = [p for p in engine.module.parameters() if p.requires_grad]
        self._masters = masters_of(engine)
        self._parts = [self._held(self._current(p), p) for p in self._parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Takes in the weights after a step. A collective."""
        for part, parameter in zip(self._parts, self._parameters, strict=True):
            current = self._current(parameter)
            if part is not None:
                part.lerp_(current.to(part), 1.0 - self.decay)

    def state_dict(self) -> dict[str, Any]:
        """Whole averages, on the first rank; the others have nothing to say. A collective."""
        return {"weights": [self._whole(*pair) for pair in self._pairs()]}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes back what `state_dict` gave."""
        for (part, parameter), whole in zip(self._pairs(), state["weights"], strict=True):
            if part is not None:
                part.copy_(share_of(whole, parameter))

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the model has the averages for weights, on the rank that saves. A collective."""
        with gathered_parameters(self.engine.module), torch.no_grad():
            kept = []
            for part, parameter in self._pairs():
                whole = self._whole(part, parameter)
                if whole is not None:
                    kept.append(parameter.detach().to("cpu", copy=True))
                    parameter.data.copy_(whole)
            try:
                yield
            finally:
                for parameter, old in zip(self._parameters, kept, strict=False):
                    parameter.data.copy_(old)

    @torch.no_grad()
    def install(self) -> None:
        """Makes the averages the model's weights on every rank, for good. A collective.

        The optimizer's own weights stay as they are: no step can follow.
        """
        import deepspeed

        for part, parameter in self._pairs():
            whole = self._whole(part, parameter)
            with deepspeed.zero.GatheredParameters([parameter], modifier_rank=0):  # if spread
                if whole is not None:
                    parameter.data.copy_(whole)
            if world_size() > 1 and not is_spread(parameter):
                torch.distributed.broadcast(parameter.data, 0)

    def _current(self, parameter: nn.Parameter) -> Tensor:
        """What the optimizer works on: float32, whole or this rank's share. A collective.

        A view of it, or a copy: only to be read.
        """
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_local_fp32_param

        if is_spread(parameter):
            return safe_get_local_fp32_param(parameter)
        if parameter in self._masters:
            return self._masters[parameter].detach()
        if parameter.dtype == torch.float32:
            return parameter.detach()
        return safe_get_full_fp32_param(parameter)

    def _pairs(self) -> Iterator[tuple[Tensor | None, nn.Parameter]]:
        return zip(self._parts, self._parameters, strict=True)

    def _held(self, weights: Tensor, parameter: nn.Parameter) -> Tensor | None:
        if not is_spread(parameter) and not is_main():
            return None
        return weights.detach().to("cpu", torch.float32, copy=True)

    def _whole(self, part: Tensor | None, parameter: nn.Parameter) -> Tensor | None:
        """A whole average on the first rank; None on the others. A collective under ZeRO-3."""
        if part is None or not is_spread(parameter):
            return part
        share = part.to(device())
        shares = [torch.empty_like(share) for _ in range(world_size())]
        if world_size() > 1:
            torch.distributed.all_gather(shares, share)
        else:
            shares = [share]
        if not is_main():
            return None
        return torch.cat(shares)[: parameter.ds_numel].view(parameter.ds_shape).cpu()


def is_spread(parameter: nn.Parameter) -> bool:
    """Whether ZeRO-3 spreads a weight over the ranks."""
    return hasattr(parameter, "ds_id")


def masters_of(engine: Any) -> dict[nn.Parameter, Tensor]:
    """Float32 weights that DeepSpeed's optimizer keeps beside bfloat16 ones without ZeRO."""
    optimizer = getattr(engine, "optimizer", None)
    groups = zip(
        getattr(optimizer, "fp16_groups", []), getattr(optimizer, "fp32_groups", []), strict=False
    )
    return {p: master for low, high in groups for p, master in zip(low, high, strict=True)}


def share_of(whole: Tensor, parameter: nn.Parameter) -> Tensor:
    """This rank's share of a whole weight, filled up as ZeRO-3 does; all of it where not spread."""
    if not is_spread(parameter):
        return whole
    size = parameter.ds_tensor.numel()
    flat = torch.nn.functional.pad(whole.flatten(), (0, size * world_size() - whole.numel()))
    return flat[size * rank() : size * (rank() + 1)]
