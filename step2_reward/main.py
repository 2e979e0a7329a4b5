"""Stage 2: ICE-Instruct becomes ICE-Reward by ranking loss on pairs (paper §3.2).

Starts from any model folder: the reward model's size is independent of the actor's.
"""

from dataclasses import dataclass

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    OptimizerArguments,
    RunArguments,
    TextArguments,
    ZeroArguments,
    check_range,
    option,
)
from common.data.chat_template import keep_format
from common.data.labelers import in_words, limits_of
from common.data.sources import paths_of
from common.data.template import Template
from common.models.cards import Card
from common.models.context import check_context
from common.models.loading import load_tokenizer, save_model, separate_pad
from common.models.merge import reload_to_merge
from common.models.scalar import load_scalar_model
from common.reward.diagnostics import diagnose
from common.reward.page import write_page
from common.reward.probe import read_probe
from common.reward.scoring import set_normalization
from common.reward.training import PairObjective, RewardArguments
from common.training.distributed import is_main
from common.training.early_stop import EarlyStop
from common.training.engine import build_engine
from common.training.guard import GuardArguments
from common.training.packing import can_pack
from common.training.preferences import (
    PreferenceArguments,
    load_comparisons,
    pair_files,
    ranking_files,
)
from common.training.resume.arguments import CheckpointArguments
from common.training.run import run_stage
from common.training.stage import Stage
from common.training.supervised import held_out_means, total_steps, train_supervised
from common.zero.config import resolve_dtype

KIND = "A reward model: one score for a prompt and a response, from rankings of responses."
LIMITS = [
    "Scores compare responses to one prompt; across prompts they mean little.",
    "Accuracy is over held-out pairs of the same labelers: how often it agrees with them, not how "
    "often it is right.",
    "What PPO's responses exploit in it shows only after PPO: read its scores with the evaluation.",
]
CHOSEN = (
    "The held-out pairs chose these weights among several: their accuracy is a little too good."
)


@dataclass
class RewardStageArguments(PreferenceArguments):
    """Where the reward model starts, what it learns from, and what it is tested with."""

    probe: str = option("", "file of right and wrong answers to the same prompts, to test it with")
    rankings: list[str] = option(
        [],
        "rankings that ready-made pairs came from, for the diagnostics alone; by default those "
        "that the run's own pairs were made from",
    )
    patience: int = option(
        0,
        "evaluations without a better held-out accuracy after which training ends; the weights of "
        "the best one are kept; 0: the last weights, after all epochs",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, 0, "patience")


ARGUMENTS = (
    RunArguments,
    RewardStageArguments,
    RewardArguments,
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
    source: RewardStageArguments,
    reward: RewardArguments,
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
    extra = [*paths_of(source.rankings), *filter(None, [source.probe])]
    stage.begin([base, *pair_files(stage, source), *extra])
    tokenizer = separate_pad(
        load_tokenizer(base, trust_remote_code=model_settings.trust_remote_code)
    )
    template = Template(tokenizer, text.template)
    keep_format(template)
    probe = read_probe(source.probe)  # a mistake in it must not cost a training
    rankings = source.rankings or ranking_files(stage, source)
    sets = load_comparisons(stage, source, template, text, always_ends=True, rankings=rankings)

    model = load_scalar_model(
        base,
        "reward",
        model_settings,
        new_head=True,
        seed=run.seed,
        tokenizer=tokenizer,
        lora=lora,
    )
    check_context(model.inner, sets.longest, base)
    objective, held_out_objective = (
        PairObjective(part, tokenizer.pad_token_id, reward, share_prompts=can_pack(model.inner))
        for part in (sets.train, sets.held_out)
    )
    engine = build_engine(
        model,
        zero=stage.resolve_zero(zero),
        dtype=resolve_dtype(model_settings.dtype),
        optimizer=optimizer,
        total_steps=total_steps(len(sets.train), optimizer),
        new_modules=("score",),
    )

    early_stop = EarlyStop(engine, source.patience) if source.patience else None
    shared = {"early_stop": early_stop} if early_stop else {}
    with stage.loop(saving, watching, engines={"model": engine}, shared=shared) as loop:
        train_supervised(
            loop,
            engine,
            objective,
            optimizer,
            seed=run.seed,
            evaluate=lambda: held_out_means(engine, held_out_objective, optimizer.eval_batch_size),
            early_stop=early_stop,
            title="stage 2, reward model",
            shown=run.progress,
        )
    if early_stop:
        early_stop.go_back(stage.say)
    diagnosis = diagnose(
        engine,
        objective,
        held_out_objective,
        template,
        text,
        rankings=sets.rankings,
        probe=probe,
        batch_size=optimizer.eval_batch_size,
        seed=run.seed,
    )
    facts = diagnosis.facts | sets.facts
    set_normalization(engine, facts["scores"])
    folder = stage.models / "reward"
    gap = facts["right_minus_wrong"]
    data = pair_files(stage, source)
    limits = limits_of(facts["labelers"]) + LIMITS + [CHOSEN] * bool(early_stop)
    figures = {n: value for n, value in facts.items() if n not in ("diagnostics", "labelers")}
    card = Card("ICE-Reward", KIND, "reward", stage.settings, data, figures, limits, base)
    save_model(engine, tokenizer, folder, card, reload_to_merge(lora, "reward", model_settings))
    if is_main():
        page = stage.folder / "diagnostics.html"
        write_page(
            page,
            diagnosis,
            loss=reward.loss,
            chosen_by_accuracy=bool(early_stop),
            labelers=in_words(facts["labelers"]),
        )
    stage.finish(
        facts,
        f"held-out pair accuracy {facts['accuracy']:.3f}, by length alone "
        f"{facts['length_only_accuracy']:.3f}"
        + (f", right minus wrong {gap:.2f} deviations" if gap is not None else "")
        + f", saved in {folder}; how far to trust it: {stage.folder}/diagnostics.html",
        outputs=[folder],
        checkpoints=loop.checkpoints,
    )


if __name__ == "__main__":
    run_stage("reward", ARGUMENTS, main)
