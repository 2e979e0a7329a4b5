"""Stage 3 without RL: ICE-Instruct learns from the reward model's pairs directly, by DPO.

An alternative to the reward model and PPO to compare them with (Rafailov et al. 2023,
https://arxiv.org/abs/2305.18290). The reference is the policy before its first step: its
log-probabilities of the pairs are taken once, and no second model is held.
"""

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    RunArguments,
    TextArguments,
    ZeroArguments,
)
from common.data.chat_template import keep_format
from common.data.labelers import limits_of
from common.data.template import Template
from common.dpo.training import DPOArguments, DPOObjective, check_start
from common.models.cards import Card
from common.models.context import check_context
from common.models.loading import load_causal_lm, load_tokenizer, save_model, stop_at
from common.models.merge import reload_to_merge
from common.models.policy import PolicyModel
from common.ppo.invariants import tolerance
from common.training.engine import build_engine
from common.training.guard import GuardArguments
from common.training.preferences import PreferenceArguments, load_comparisons, pair_files
from common.training.resume.arguments import CheckpointArguments
from common.training.run import run_stage
from common.training.stage import Stage
from common.training.supervised import held_out_means, total_steps, train_supervised
from common.training.watchdog import WATCHDOG
from common.zero.config import resolve_dtype

KIND = "A language model that learned from pairs of responses by DPO, from the SFT model."
LIMITS = (
    "Accuracy is over held-out pairs of the same labelers, by the policy's own implicit rewards; "
    "the run's evaluation tells what its answers are worth.",
)

ARGUMENTS = (
    RunArguments,
    PreferenceArguments,
    DPOArguments,
    ModelArguments,
    TextArguments,
    LoraArguments,
    ZeroArguments,
    OptimizerArguments,
    CheckpointArguments,
    GuardArguments,
)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    source: PreferenceArguments,
    dpo: DPOArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    lora: LoraArguments,
    zero: ZeroArguments,
    optimizer: OptimizerArguments,
    saving: CheckpointArguments,
    watching: GuardArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    base = source.model or str(stage.models / "sft")
    stage.begin([base, *pair_files(stage, source)])
    tokenizer = load_tokenizer(base, trust_remote_code=model_settings.trust_remote_code)
    template = Template(tokenizer, text.template)
    keep_format(template)
    sets = load_comparisons(stage, source, template, text, always_ends=False)

    model = load_causal_lm(base, model_settings, lora)
    check_context(model, sets.longest, base)
    stop_at(model, template.end_id)
    objective, held_out_objective = (
        DPOObjective(part, tokenizer.pad_token_id, dpo) for part in (sets.train, sets.held_out)
    )
    dtype = resolve_dtype(model_settings.dtype)
    engine = build_engine(
        PolicyModel(model, model_settings.most_logits),
        zero=stage.resolve_zero(zero),
        dtype=dtype,
        optimizer=optimizer,
        total_steps=total_steps(len(sets.train), optimizer),
    )
    # The policy is the reference here, in a run that goes on too: its checkpoint is loaded below.
    WATCHDOG.at("the evaluation of the pairs by the reference")
    for part in (objective, held_out_objective):
        part.score_reference(engine, optimizer.eval_batch_size)
    check_start(engine, objective, optimizer.micro_batch_size, tolerance(dtype))

    with stage.loop(saving, watching, engines={"model": engine}) as loop:
        final = train_supervised(
            loop,
            engine,
            objective,
            optimizer,
            seed=run.seed,
            evaluate=lambda: held_out_means(engine, held_out_objective, optimizer.eval_batch_size),
            title="stage 3, DPO",
            shown=run.progress,
        )
    folder = stage.models / "dpo"
    measured = {name.removeprefix("eval/"): v for name, v in final.items() if "eval/" in name}
    facts = {**measured, **sets.facts}
    limits, data = [*limits_of(facts["labelers"]), *LIMITS], pair_files(stage, source)
    figures = {name: value for name, value in facts.items() if name != "labelers"}
    card = Card("ICE-Instruct by DPO", KIND, "dpo", stage.settings, data, figures, limits, base)
    save_model(engine, tokenizer, folder, card, reload_to_merge(lora, "policy", model_settings))
    stage.finish(
        facts,
        f"held-out pair accuracy {measured['accuracy']:.3f}, drift {measured['drift']:.2f} nats a "
        f"response, saved in {folder}",
        outputs=[folder],
        checkpoints=loop.checkpoints,
    )


if __name__ == "__main__":
    run_stage("dpo", ARGUMENTS, main)
