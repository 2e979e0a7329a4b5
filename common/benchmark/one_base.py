"""Memory of PPO with adapters: four models on one base against four with weights of their own.

Each side is a process of its own that builds the trainer and takes two PPO steps. Memory is the
peak above the level after the imports: of the card where there is one, else of the process.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
    check_range,
    option,
)
from common.data.encoding import EncodedPrompt
from common.data.records import Message, Prompt
from common.data.template import Template
from common.errors import UserError
from common.files import write_json
from common.hybrid_engine.engine import RolloutArguments
from common.models.loading import load_tokenizer, save_model, separate_pad
from common.models.scalar import load_scalar_model
from common.models.tiny import TinyArguments, write_tiny_model
from common.ppo.arguments import PPOArguments
from common.ppo.build import build_trainer
from common.ppo.sources import RewardSourceArguments
from common.reward.places import RewardPlace
from common.training.engine import process_group
from common.training.peak import PeakMemory
from common.training.run import run_stage
from common.training.stage import Stage

STEPS = 2
POSITIONS = 256
WORDS = "which policy does this ad break and may it run with another audience or channel"


@dataclass
class OneBaseBenchmark:
    """The model that is measured with."""

    width: int = option(512, "hidden size")
    layers: int = option(12, "decoder layers")
    rank: int = option(8, "rank of the adapters")
    responses: int = option(8, "responses of a rollout")

    def __post_init__(self) -> None:
        check_range(self, 1, "width", "layers", "rank", "responses")


ARGUMENTS = (RunArguments, OneBaseBenchmark)
"""Every setting; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: OneBaseBenchmark) -> None:
    """Writes `rows.json`: the peaks of both, in megabytes, and their ratio."""
    stage.begin_anew()
    sft, reward = (str(stage.folder / name) for name in ("sft", "reward"))
    _run("prepare", sft, reward, settings)
    apart, shared = (_run(side, sft, reward, settings) for side in ("apart", "shared"))
    row = {"separate_megabytes": apart, "one_base_megabytes": shared, "ratio": shared / apart}
    write_json(stage.folder / "rows.json", [row])
    stage.finish(
        row, f"peak memory {shared:.0f} MB on one base, {apart:.0f} MB apart: {shared / apart:.1%}"
    )


def _run(what: str, sft: str, reward: str, settings: OneBaseBenchmark) -> float:
    """One process; what it measured."""
    shape = [str(getattr(settings, name)) for name in ("width", "layers", "rank", "responses")]
    command = [sys.executable, "-m", "common.benchmark.one_base", what, sft, reward, *shape]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UserError(f"{' '.join(command)} ended with code {done.returncode}:\n{done.stderr}")
    return float(json.loads(done.stdout.splitlines()[-1]))


def prepare(sft: str, reward: str, settings: OneBaseBenchmark) -> None:
    """Writes an SFT model of random weights, and a reward model of adapters on it."""
    shape = TinyArguments(
        tiny_layers=settings.layers, tiny_width=settings.width, tiny_heads=settings.width // 64
    )
    write_tiny_model(Path(sft), [WORDS], shape, 0, POSITIONS)
    tokenizer = separate_pad(load_tokenizer(sft))
    model = load_scalar_model(
        sft,
        "reward",
        ModelArguments(),
        new_head=True,
        tokenizer=tokenizer,
        lora=LoraArguments(lora_rank=settings.rank),
    )
    save_model(model, tokenizer, Path(reward), "")


def peak_of_training(sft: str, reward: str, settings: OneBaseBenchmark, one_base: bool) -> float:
    """Megabytes at the peak of building a trainer and of two PPO steps with it."""
    import peft  # noqa: F401 - what is imported on the way is no part of the measurement
    import transformers.models.llama.modeling_llama  # noqa: F401

    rows = settings.responses
    with process_group():
        memory = PeakMemory()
        template = Template(load_tokenizer(sft), "ice")
        trainer = build_trainer(
            sft,
            [RewardPlace(reward, name="reward")],
            RewardSourceArguments(),
            "sft",
            one_base,
            template,
            TextArguments(max_response_tokens=32),
            PPOArguments(
                steps=STEPS, rollout_batch_size=rows, mini_batch_size=rows, micro_batch_size=1
            ),
            SamplingArguments(generation_batch_size=rows),
            RolloutArguments(),
            ModelArguments(gradient_checkpointing=True),
            LoraArguments(lora_rank=settings.rank),
            ZeroArguments("0"),
            0,
        )
        messages = [(Message("user", f"{WORDS} {i}"),) for i in range(rows)]
        prompts = [
            EncodedPrompt(template.encode_prompt(m), Prompt(m, "benchmark")) for m in messages
        ]
        for step in range(1, STEPS + 1):
            trainer.iterate(step, prompts)
        return memory.megabytes()


if __name__ == "__main__":
    if sys.argv[1:2] and sys.argv[1] in ("prepare", "apart", "shared"):
        what, sft, reward, *shape = sys.argv[1:]
        settings = OneBaseBenchmark(*map(int, shape))
        if what == "prepare":
            prepare(sft, reward, settings)
            print(0.0)
        else:
            print(peak_of_training(sft, reward, settings, what == "shared"))
    else:
        run_stage("one_base", ARGUMENTS, main, distributed=False)
