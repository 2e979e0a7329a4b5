"""Stage 3: ICE-Instruct becomes ICE-GRT by PPO against ICE-Reward (paper §3.3).

Four models: the actor that is trained, the frozen reference it started from, the critic, and the
frozen reward model. Every iteration samples responses, scores them, and updates actor and critic.
"""

from dataclasses import dataclass, replace
from typing import Literal

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
    option,
)
from common.data.chat_template import keep_format
from common.data.encoding import EncodedPrompt, describe, encode_prompts
from common.data.layouts import read_prompts
from common.data.sources import parse_sources, paths_of
from common.data.template import Template
from common.evaluation.benchmarks.watch import BenchmarkWatch, BenchmarkWatchArguments
from common.hybrid_engine.engine import RolloutArguments
from common.models.cards import Card
from common.models.loading import load_tokenizer, save_model
from common.models.merge import reload_to_merge
from common.ppo.arguments import PPOArguments
from common.ppo.build import build_trainer
from common.ppo.held_out import evaluate
from common.ppo.pretraining import PretrainingArguments, PretrainingMix, read_pretraining
from common.ppo.sources import RewardSourceArguments
from common.reward.places import inputs_of, parse_rewards
from common.training.batching import ends_epoch, stream_indices
from common.training.distributed import rank, world_size
from common.training.guard import GuardArguments
from common.training.once_per_node import once_per_node
from common.training.resume.arguments import CheckpointArguments
from common.training.run import run_stage
from common.training.stage import Stage
from common.training.watchdog import WATCHDOG

KIND = "A language model trained by PPO, from the SFT model, on the rewards that its settings name."
CRITIC_KIND = "The critic of that training: the return it expected, at every token."
LIMITS = (
    "The score is what it was trained on, in deviations: it rises even where answers only please "
    "what scores them. The run's evaluation tells more.",
    "The KL divergence is from the SFT model, in nats a sequence, on the training prompts.",
)


@dataclass
class RLHFArguments:
    """Which models and prompts stage 3 works on."""

    actor: str = option("", "model folder of stage 1; by default RUN/models/sft")
    critic_from: Literal["sft", "reward"] = option(
        "sft", "what the critic starts from (paper: sft); reward: the first reward model"
    )
    one_base: bool = option(
        False,
        "actor, reference, critic and reward model share the SFT model's weights, each with "
        "adapters of its own; needs lora_rank, and a reward model of adapters",
    )
    data: list[str] = option([], "prompts: files or hub names, or mappings with path, columns, …")
    eval_data: list[str] = option([], "held-out prompts, answered every evaluate_every rollouts")
    eval_limit: int = option(64, "held-out prompts answered at each of these evaluations")


ARGUMENTS = (
    RunArguments,
    RLHFArguments,
    RewardSourceArguments,
    PPOArguments,
    PretrainingArguments,
    ModelArguments,
    TextArguments,
    SamplingArguments,
    RolloutArguments,
    LoraArguments,
    ZeroArguments,
    CheckpointArguments,
    GuardArguments,
    BenchmarkWatchArguments,
)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    rlhf: RLHFArguments,
    reward: RewardSourceArguments,
    ppo: PPOArguments,
    pretraining: PretrainingArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    sampling: SamplingArguments,
    rollout: RolloutArguments,
    lora: LoraArguments,
    zero: ZeroArguments,
    saving: CheckpointArguments,
    watching: GuardArguments,
    watch: BenchmarkWatchArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    sft_folder = rlhf.actor or str(stage.models / "sft")
    places = parse_rewards(reward.reward, default=str(stage.models / "reward"))
    stage.begin(
        [sft_folder, *inputs_of(places), *paths_of(rlhf.data, rlhf.eval_data, pretraining.ptx_data)]
    )
    tokenizer = load_tokenizer(sft_folder, trust_remote_code=model_settings.trust_remote_code)
    template = Template(tokenizer, text.template)
    keep_format(template)
    prompts, counts = once_per_node(
        lambda: encode_prompts(read_prompts(parse_sources(rlhf.data)), template, text)
    )
    held_out: list[EncodedPrompt] = []
    if rlhf.eval_data:
        sources = parse_sources(rlhf.eval_data)
        held_out, more = once_per_node(
            lambda: encode_prompts(read_prompts(sources), template, text)
        )
        held_out, counts = held_out[: rlhf.eval_limit], counts + more
    examples, more = once_per_node(lambda: read_pretraining(pretraining, template, text, run.seed))
    counts += more
    stage.say(", ".join(filter(None, [f"{len(prompts)} prompts", describe(counts)])))

    trainer = build_trainer(
        sft_folder,
        places,
        reward,
        rlhf.critic_from,
        rlhf.one_base,
        template,
        text,
        ppo,
        sampling,
        rollout,
        model_settings,
        lora,
        stage.resolve_zero(zero),
        run.seed,
    )
    if examples:
        trainer.pretraining = PretrainingMix(
            examples, tokenizer.pad_token_id, pretraining, run.seed
        )
    general = BenchmarkWatch(watch, trainer.rollouts, tokenizer, run.seed)

    def take_step(step: int) -> dict[str, float]:
        indices = stream_indices(len(prompts), ppo.rollout_batch_size, run.seed, step - 1)
        values = trainer.iterate(step, [prompts[i] for i in indices[rank() :: world_size()]])
        if held_out and (step % ppo.evaluate_every == 0 or step == ppo.steps):
            WATCHDOG.at(f"the evaluation after step {step}")
            values |= evaluate(trainer, held_out, sampling.generation_batch_size)
        return values | general.after(step, ppo.steps)

    engines = {"actor": trainer.actor, "critic": trainer.critic}
    with stage.loop(saving, watching, engines=engines, shared=trainer.states()) as loop:
        latest = loop.run(
            ppo.steps,
            take_step,
            title="stage 3, PPO",
            caption=lambda values: (
                f"score {values['reward/score']:+.2f}, KL {values['kl/sequence_k1']:.2f}"
            ),
            ends_epoch=lambda step: ends_epoch(step, ppo.rollout_batch_size, len(prompts)),
            shown=run.progress,
        )
    facts = {
        "kl_per_sequence": latest["kl/sequence_k1"],
        "eos_rate": latest["response/eos_rate"],
        "score": latest["reward/score"],
        "response_length": latest["response/length"],
        "steps": ppo.steps,
        "prompts": len(prompts),
        "left_out": dict(counts),
    }
    card = Card("ICE-GRT", KIND, "rlhf", stage.settings, rlhf.data, facts, LIMITS, sft_folder)
    merge = reload_to_merge(lora, "policy", model_settings)
    outputs = [stage.models / "actor", stage.models / "critic"]
    save_model(trainer.actor, tokenizer, outputs[0], card, merge)
    of_critic = replace(card, title="Critic", kind=CRITIC_KIND)
    merge_critic = reload_to_merge(lora, "critic", model_settings)
    save_model(trainer.critic, tokenizer, outputs[1], of_critic, merge_critic)
    if trainer.average:
        outputs.append(stage.models / "actor_ema")
        averaged = replace(card, title="ICE-GRT, averaged over its updates")
        with trainer.average.in_place():
            save_model(trainer.actor, tokenizer, outputs[2], averaged, merge)
    stage.finish(
        facts,
        f"score {latest['reward/score']:+.2f} deviations, KL {latest['kl/sequence_k1']:.2f} nats "
        f"a sequence, saved in {stage.models / 'actor'}",
        outputs=outputs,
        checkpoints=loop.checkpoints,
    )


if __name__ == "__main__":
    run_stage("rlhf", ARGUMENTS, main)
