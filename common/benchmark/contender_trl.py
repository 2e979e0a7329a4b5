"""One of TRL's: `python -m common.benchmark.contender_trl TASK SHAPE STEPS BATCH FILE`."""

import os
import sys
import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer

from common.benchmark.examples import (
    LEARNING_RATE,
    Meter,
    reward_rows,
    sft_rows,
)
from common.benchmark.iteration import scalar
from common.benchmark.shapes import causal_lm
from common.benchmark.supervised import SHAPES
from common.libraries import quiet_libraries


class Steps(TrainerCallback):
    """Notes when each step ended."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
        """A step has ended."""
        self.meter.step()


def main(task: str, shape_name: str, steps: str, batch_size: str, out: str) -> None:
    """Trains for `steps` steps, and writes what they took."""
    meter = Meter()
    shape, count, batch = SHAPES[shape_name], int(steps), int(batch_size)
    common = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": batch,
        "learning_rate": LEARNING_RATE,
        "max_steps": count,
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "max_length": None,
    }
    if task == "sft":
        rows = sft_rows(shape, count, batch)
        data = {
            "input_ids": [p + r for p, r in rows],
            "completion_mask": [[0] * len(p) + [1] * len(r) for p, r in rows],
        }
        trainer: Any = SFTTrainer(
            model=causal_lm(shape, 0).train(),
            args=SFTConfig(completion_only_loss=True, **common),
            train_dataset=Dataset.from_dict(data),
            processing_class=tokenizer(),
            callbacks=[Steps(meter)],
        )
    else:
        pairs = reward_rows(shape, count, batch)
        data = {"chosen_ids": [a for a, _ in pairs], "rejected_ids": [b for _, b in pairs]}
        trainer = RewardTrainer(
            model=scalar(shape, "LlamaForSequenceClassification").stock.train(),
            args=RewardConfig(**common),
            train_dataset=Dataset.from_dict(data),
            processing_class=tokenizer(),
            callbacks=[Steps(meter)],
        )
    collate = trainer.data_collator

    def counted(examples: list[dict[str, Any]]) -> dict[str, Any]:
        """The batch, with its real tokens added up."""
        batch = collate(examples)
        meter.tokens += int(batch["attention_mask"].sum())
        return batch

    trainer.data_collator = counted
    trainer.train()
    meter.write(out)


def tokenizer() -> Any:
    """Only its special tokens matter: the examples are token ids already."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"<pad>": 0, "<s>": 1, "</s>": 2}, "</s>")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


if __name__ == "__main__":
    quiet_libraries()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    main(*sys.argv[1:])
