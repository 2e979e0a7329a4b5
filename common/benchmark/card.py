"""Real models' shapes on one card: planned and measured memory, and PPO's time by phase.

Each case is a stage as the launchers start it, but for two things: models are drawn at random on
the card in place of being read from files, and neither they nor checkpoints are saved. Rows are as
long as the settings allow.

    python -m common.benchmark.card --run runs/card [--cases ppo-13b ppo-7b]
"""

import gc
import importlib
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from common.benchmark.measuring import launched
from common.benchmark.one_base import POSITIONS, WORDS
from common.benchmark.roofline import made_on_device
from common.benchmark.shapes import LLAMA_1B, LLAMA_7B, LLAMA_13B, Shape
from common.config.arguments import LoraArguments, ModelArguments, RunArguments, check_range, option
from common.config.pipeline import MODULES
from common.errors import UserError
from common.files import write_json, write_json_lines
from common.models import loading
from common.models.loading import load_tokenizer, remove_folder, save_model, separate_pad
from common.models.lora import add_adapters
from common.models.scalar import ScalarModel
from common.models.tiny import TinyArguments, write_tiny_model
from common.training.metrics import progress_bar
from common.training.resume.checkpoints import Checkpoints
from common.training.run import run_stage
from common.training.stage import Stage

RANK = 16
"""Of adapters."""
PHASES = {
    "generate": ("rollout",),
    "score": ("scoring",),
    "train": ("training the actor", "training the critic"),
}
"""PPO's phases as they are measured -> as they are planned."""


@dataclass(frozen=True)
class Case:
    """A stage on a model of a shape."""

    name: str
    stage: str
    shape: Shape
    options: dict[str, str]
    reward: Shape | None = None
    """Of PPO's reward model, on which the critic starts; None: adapters on the actor's base."""


def _on(switch: bool) -> str:
    return "on" if switch else "off"


def supervised(shape: Shape, zero: str, lora: bool, checkpointing: bool) -> Case:
    """Two optimizer steps of two micro-batches of stage 1."""
    name = f"sft {shape.name}, ZeRO-{zero}, LoRA {_on(lora)}, checkpointing {_on(checkpointing)}"
    options = {
        "zero": zero,
        "lora_rank": str(RANK if lora else 0),
        "gradient_checkpointing": str(checkpointing).lower(),
        **{"max_prompt_tokens": "512", "max_response_tokens": "512"},
        **{"batch_size": "8", "micro_batch_size": "4", "eval_batch_size": "1", "evaluations": "1"},
        **{"eval_fraction": "0.2", "epochs": str(16 / 13), "scrub_pii": "false"},
    }
    return Case(name, "sft", shape, options)


def with_lever(case: Case, **lever: str) -> Case:
    """The same with one more setting."""
    (said,) = (f"{name} {value}" for name, value in lever.items())
    return replace(case, name=f"{case.name}, {said}", options={**case.options, **lever})


ROLLOUT = {
    **{"steps": "3", "critic_warmup_steps": "0", "ppo_epochs": "1", "kl_horizon": "1000"},
    **{"rollout_batch_size": "64", "mini_batch_size": "64", "generation_batch_size": "64"},
    **{"max_prompt_tokens": "256", "max_response_tokens": "256"},
    **{"gradient_checkpointing": "true", "micro_batch_size": "8", "score_batch_size": "16"},
}
"""PPO on 64 prompts of 256 tokens, each with a response of 256."""
ONE_BASE = {"one_base": "true", "lora_rank": str(RANK)}
OFFLOAD = {"zero": "3", "offload_idle": "true", "critic_from": "reward"}

CASES = {
    **{
        f"sft-{shape.name.lower()}-{zero}-{lora:d}-{checkpointing:d}": supervised(
            shape, zero, lora, checkpointing
        )
        for shape, grid in (
            (LLAMA_1B, [(z, a, c) for z in "023" for a in (False, True) for c in (False, True)]),
            (LLAMA_7B, [("0", True, True), ("2", True, False), ("3", False, True)]),
        )
        for zero, lora, checkpointing in grid
    },
    "sft-1.3b-cpu": with_lever(supervised(LLAMA_1B, "3", False, True), offload_optimizer="cpu"),
    "sft-1.3b-weights": with_lever(
        supervised(LLAMA_1B, "3", False, True), offload_parameters="cpu"
    ),
    "ppo-1.3b": Case(
        "PPO 1.3B, full fine-tuning", "rlhf", LLAMA_1B, {**ROLLOUT, "zero": "3"}, LLAMA_1B
    ),
    "ppo-13b": Case("PPO 13B, adapters on one base", "rlhf", LLAMA_13B, {**ROLLOUT, **ONE_BASE}),
    "ppo-13b-graphs": Case(
        "PPO 13B, adapters on one base, CUDA graphs",
        "rlhf",
        LLAMA_13B,
        {**ROLLOUT, **ONE_BASE, "cuda_graphs": "true"},
    ),
    "ppo-7b": Case(
        "PPO 7B, full fine-tuning, what idles is offloaded; critic and reward model 1.3B",
        "rlhf",
        LLAMA_7B,
        {**ROLLOUT, **OFFLOAD},
        LLAMA_1B,
    ),
}


@dataclass
class CardBenchmark:
    """What is run."""

    cases: list[str] = option(list(CASES), "which of the cases in common/benchmark/card.py")
    at_once: int = option(
        1, "runs of stage 1 side by side, if the card can hold them; their times then mean nothing"
    )

    def __post_init__(self) -> None:
        check_range(self, 1, "at_once")
        unknown = [name for name in self.cases if name not in CASES]
        if unknown:
            raise UserError(f"cases: there is no {unknown[0]}; there are {', '.join(CASES)}")


ARGUMENTS = (RunArguments, CardBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: CardBenchmark) -> None:
    """Writes `rows.json`, and tables of it in Markdown."""
    card = card_name()
    stage.begin_anew()
    chosen = [CASES[name] for name in settings.cases]
    rows: list[dict[str, Any]] = []
    with progress_bar(len(chosen), "shapes on a card", shown=run.progress) as bar:
        for stage_name, shape in dict.fromkeys((c.stage, c.shape) for c in chosen):
            group = [c for c in chosen if (c.stage, c.shape) == (stage_name, shape)]
            write_inputs(stage.folder, group[0])
            workers = settings.at_once if stage_name == "sft" else 1
            with ThreadPoolExecutor(workers) as pool:
                for row in pool.map(lambda case: measure(stage.folder, case), group):
                    rows.append(row)
                    write_json(stage.folder / "rows.json", rows)
                    (stage.folder / "tables.md").write_text(tables(rows, card), "utf-8")
                    stage.say(line(row))
                    bar.update()
    done = [row for row in rows if "planned" in row]
    off = max((abs(row["planned"] / row["measured"] - 1) for row in done), default=0.0)
    stage.finish(
        {"card": card, "largest_error": off},
        f"{len(done)} of {len(rows)} runs done, the plan is off by {off:.0%} at most",
    )


def card_name() -> str:
    """Raises UserError where there is none."""
    if not torch.cuda.is_available():
        raise UserError("this benchmark needs a CUDA card")
    return torch.cuda.get_device_name()


def write_inputs(folder: Path, case: Case) -> None:
    """Configs of models, for one base adapters, and data with rows that are too long."""
    for name in ("model", "reward"):  # of another case
        remove_folder(folder / name)
    write_tiny_model(folder / "tokenizer", [WORDS], TinyArguments(), 0, POSITIONS)
    tokenizer = load_tokenizer(str(folder / "tokenizer"))
    _write_config(case.shape, tokenizer, folder / "model")
    if case.stage == "rlhf":
        padded, path = separate_pad(load_tokenizer(str(folder / "tokenizer"))), folder / "reward"
        if case.reward:
            _write_config(case.reward, padded, path, num_labels=1)
        else:
            _write_adapters(case.shape, padded, path, base=str(folder / "model"))
    text = [f"{WORDS} " * 64 + f"{i}" for i in range(64)]  # of long prompts the end is kept
    write_json_lines(folder / "prompts.jsonl", [{"prompt": t} for t in text])
    write_json_lines(folder / "sft.jsonl", [{"prompt": t, "completion": t} for t in text[:16]])


def _write_config(shape: Shape, tokenizer: Any, folder: Path, **fields: Any) -> None:
    shape.config(positions=2048, **fields).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_adapters(shape: Shape, tokenizer: Any, folder: Path, base: str) -> None:
    """A reward model of adapters of random weights."""
    from transformers import LlamaForSequenceClassification

    with made_on_device(torch.bfloat16):
        model = LlamaForSequenceClassification(shape.config(positions=2048, num_labels=1))
    lora = LoraArguments(lora_rank=RANK)
    adapted = ScalarModel(add_adapters(model, lora, base_path=base, new_modules=["score"]))
    save_model(adapted, tokenizer, folder, None)
    del model, adapted
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def draw_weights(
    auto_class: Any, path: str, config: Any, dtype: torch.dtype, settings: ModelArguments
) -> tuple[Any, dict[str, Any]]:
    """What `common.models.loading.read_weights` answers, drawn at random on the card.

    The same for the same model: PPO checks that actor and reference start alike.
    """
    torch.manual_seed(0)
    with made_on_device(dtype):
        model = auto_class.from_config(config, dtype=dtype)
    return model.eval(), {"missing_keys": [], "mismatched_keys": []}


def run_on_drawn_weights(stage: str) -> None:
    """Runs a stage by the words of the command line; models are drawn, and none is saved."""
    module = importlib.import_module(MODULES[stage])
    loading.read_weights = draw_weights
    module.save_model = lambda *_: None
    Checkpoints.save = lambda *_: None  # type: ignore[method-assign]
    run_stage(stage, module.ARGUMENTS, module.main)


def measure(folder: Path, case: Case) -> dict[str, Any]:
    """One case: planned and measured peaks in megabytes, of PPO also by phase, with seconds."""
    run = folder / case.name.replace(" ", "_").replace(",", "").replace(";", "")
    data = "prompts.jsonl" if case.stage == "rlhf" else "sft.jsonl"
    model = "actor" if case.stage == "rlhf" else "model"
    options = {
        **case.options,
        **{"fresh": "true", "progress": "false", "long_prompts": "truncate"},
        **{model: str(folder / "model"), "data": str(folder / data)},
    }
    if case.stage == "rlhf":
        options["reward"] = str(folder / "reward")
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    row: dict[str, Any] = {"case": case.name}
    try:
        script = ["-m", "common.benchmark.card", "stage", case.stage]
        result = launched(case.stage, run, words, 1, script=script)
        row |= {
            "planned": result["planned"]["megabytes"],
            "worst": result["planned"]["phase"],
            "measured": result["peak_megabytes"],
            "reserved": result.get("reserved_megabytes", 0.0),
            "planned_phases": result["planned"]["phases"],
            "planned_seconds": result["planned"]["seconds"],
        }
    except UserError as error:
        row["failed"] = str(error)[-2000:]
    metrics = run / case.stage / "metrics.jsonl"
    if case.stage == "rlhf" and metrics.is_file():
        row["steps"] = [json.loads(text) for text in metrics.read_text().splitlines()]
    return row


def line(row: dict[str, Any]) -> str:
    """A row of the table of memory."""
    if "failed" in row:
        return f"| {row['case']} | failed: {row['failed'].strip().splitlines()[-1]} | | | | |"
    gib = {name: row[name] / 1024 for name in ("planned", "measured", "reserved")}
    off = row["planned"] / row["measured"] - 1
    return (
        f"| {row['case']} | {gib['planned']:.2f} | {gib['measured']:.2f} | {off:+.1%} | "
        f"{gib['reserved']:.2f} | {row['worst']} |"
    )


def tables(rows: list[dict[str, Any]], card: str) -> str:
    """Memory of all rows, and of PPO the phases of its last step, in Markdown."""
    head = "| GiB | planned | measured | error | reserved | worst phase of the plan |"
    found = [f"On one {card}:", "", head, "| --- |" + " --- |" * 5]
    found += map(line, rows)
    for row in rows:
        steps = row.get("steps")
        if not steps:
            continue
        last = steps[-1]
        found += ["", f"{row['case']}, step {len(steps)}:", ""]
        found += [
            "| phase | seconds | GiB planned | measured | reserved |",
            "| --- |" + " --- |" * 4,
        ]
        for phase, planned in PHASES.items():
            sizes = [row.get("planned_phases", {}).get(name, 0.0) for name in planned]
            kinds = [f"memory/{phase}_{kind}" for kind in ("allocated", "reserved")]
            measured, reserved = (last.get(name, 0.0) / 1024 for name in kinds)
            found.append(
                f"| {phase} | {last[f'time/{phase}']:.1f} | {max(sizes) / 1024:.1f} | "
                f"{measured:.1f} | {reserved:.1f} |"
            )
    return "\n".join(found) + "\n"


if __name__ == "__main__":
    if "stage" in sys.argv[1:3]:  # DeepSpeed's launcher puts a word of its own first
        at = sys.argv.index("stage")
        stage_name = sys.argv[at + 1]
        del sys.argv[at : at + 2]
        run_on_drawn_weights(stage_name)
    else:
        run_stage("card", ARGUMENTS, main, distributed=False)
