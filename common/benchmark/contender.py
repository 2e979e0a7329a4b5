"""One of ours: `python -m common.benchmark.contender TASK SHAPE STEPS BATCH FILE`."""

import sys
from typing import Any

import numpy as np
import torch
import transformers  # noqa: F401 - imported before the memory's level is taken
from transformers import LlamaForCausalLM, LlamaForSequenceClassification

from common.benchmark.examples import (
    LEARNING_RATE,
    Meter,
    reward_rows,
    sft_rows,
)
from common.benchmark.iteration import scalar
from common.benchmark.shapes import PAD, causal_lm
from common.benchmark.supervised import SHAPES
from common.config.arguments import OptimizerArguments, ZeroArguments
from common.data.encoding import Comparison, EncodedExample
from common.data.records import Pair
from common.libraries import quiet_libraries
from common.models.policy import PolicyModel
from common.reward.training import PairObjective, RewardArguments
from common.training.ending import leave
from common.training.engine import build_engine, process_group
from common.training.guard import Guard, GuardArguments
from common.training.loop import Loop, Unsaved
from common.training.sft import SFTObjective
from common.training.supervised import Objective, train_supervised

LOADED = (LlamaForCausalLM, LlamaForSequenceClassification)


class Steps:
    """Stands for the metrics file: notes when each step ended."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def write(self, step: int, values: dict[str, float]) -> None:
        """A step has ended."""
        self.meter.step()


def main(task: str, shape_name: str, steps: str, batch_size: str, out: str) -> None:
    """Trains for `steps` steps, and writes what they took."""
    import deepspeed  # noqa: F401

    meter = Meter()
    shape, count, batch = SHAPES[shape_name], int(steps), int(batch_size)
    objective: Objective
    if task == "sft":
        rows = sft_rows(shape, count, batch)
        examples = [EncodedExample(p + r, [False] * len(p) + [True] * len(r), "") for p, r in rows]
        model: torch.nn.Module = PolicyModel(causal_lm(shape, 0).train())
        objective = SFTObjective(examples, PAD, pack_tokens=128)
        lengths = [len(e.input_ids) for e in examples]
    else:
        pairs = reward_rows(shape, count, batch)
        unused = Pair((), "", "", 1.0, "")
        comparisons = [Comparison([list(a), list(b)], [(0, 1)], [unused], 0) for a, b in pairs]
        model = scalar(shape, "LlamaForSequenceClassification").train()
        settings = RewardArguments(loss="logistic", score_penalty=0.0)
        objective = PairObjective(comparisons, PAD, settings, share_prompts=True)
        lengths = [len(a) + len(b) for a, b in pairs]
    loss = objective.loss

    def counted(model: Any, indices: np.ndarray) -> Any:  # noqa: ANN401
        """The loss, with the tokens of its examples added up."""
        meter.tokens += sum(lengths[i] for i in indices)
        return loss(model, indices)

    objective.loss = counted  # type: ignore[method-assign]
    optimizer = OptimizerArguments(
        learning_rate=LEARNING_RATE, batch_size=batch, micro_batch_size=batch, evaluations=1
    )
    engine = build_engine(
        model, zero=ZeroArguments("0"), dtype=torch.float32, optimizer=optimizer, total_steps=count
    )
    steps_noted: Any = Steps(meter)
    loop = Loop(Unsaved(), steps_noted, Guard(GuardArguments()))
    train_supervised(
        loop, engine, objective, optimizer, seed=0, evaluate=dict, title="", shown=False
    )
    meter.write(out)


if __name__ == "__main__":
    quiet_libraries()
    with process_group():
        main(*sys.argv[1:])
    leave(0)
