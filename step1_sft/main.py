"""Stage 1: a base model becomes ICE-Instruct by supervised fine-tuning (paper §3.1).

Reads question–answer data, blends in-domain with general sets, trains on the responses only, and
writes the model folder that every later model starts from.
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
from common.data.blending import blend, split_by_prompt
from common.data.chat_template import keep_format
from common.data.encoding import describe, encode_conversations
from common.data.layouts import read_conversations
from common.data.pii import scrub_conversations
from common.data.records import Conversation
from common.data.sources import parse_sources, paths_of
from common.data.template import Template
from common.errors import UserError
from common.models.cards import Card
from common.models.context import check_context
from common.models.loading import load_causal_lm, load_tokenizer, save_model, stop_at
from common.models.merge import reload_to_merge
from common.models.policy import PolicyModel
from common.models.tiny import TinyArguments, tiny_base
from common.training.engine import build_engine
from common.training.guard import GuardArguments
from common.training.once_per_node import once_per_node
from common.training.packing import check_packing
from common.training.resume.arguments import CheckpointArguments
from common.training.run import run_stage
from common.training.sequence import share_sequences
from common.training.sft import SFTObjective, perplexity
from common.training.stage import Stage
from common.training.supervised import evaluate_supervised, total_steps, train_supervised
from common.zero.config import resolve_dtype

TINY = "tiny"
"""Stands for a small model of random weights, made here."""

KIND = "A language model fine-tuned to answer instructions, on the answers only."
LIMITS = (
    "Perplexity is over held-out prompts of the same sources, and says nothing of other ones.",
    "It imitates its data: nothing was done yet to prefer better answers, or to refuse.",
)


@dataclass
class SFTArguments:
    """What only stage 1 has."""

    model: str = option(TINY, "base model: hub name, folder, or `tiny` (random weights)")
    data: list[str] = option(
        [], "training data: files or hub names, or mappings with path, weight, columns, …"
    )
    eval_data: list[str] = option([], "held-out data; by default a share of the training data")
    eval_fraction: float = option(0.02, "share of prompts held out when eval_data is not given")
    scrub_pii: bool = option(
        True, "replace e-mail addresses, phone numbers and user names (not in the embedded domain)"
    )
    sequence_ranks: int = option(
        1, "ranks that share each row of tokens, for long ones (DeepSpeed's sequence parallelism)"
    )
    pack_tokens: int = option(
        0, "put whole examples into rows of this many tokens, unseen by each other; 0: a row each"
    )

    def __post_init__(self) -> None:
        check_range(self, 1, "sequence_ranks")
        if self.pack_tokens and self.sequence_ranks > 1:
            raise UserError(
                "pack_tokens and sequence_ranks are set, but packed rows cannot be shared"
            )


ARGUMENTS = (
    RunArguments,
    SFTArguments,
    ModelArguments,
    TinyArguments,
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
    sft: SFTArguments,
    model_settings: ModelArguments,
    tiny: TinyArguments,
    text: TextArguments,
    lora: LoraArguments,
    zero: ZeroArguments,
    optimizer: OptimizerArguments,
    saving: CheckpointArguments,
    watching: GuardArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    stage.begin([*paths_of(sft.data, sft.eval_data), *([sft.model] * (sft.model != TINY))])
    train, held_out, replaced = once_per_node(lambda: prepare_data(sft, run.seed))
    base = sft.model
    if base == TINY:
        base = tiny_base(stage.models / "base", train, tiny, text, run.seed)
    tokenizer = load_tokenizer(base, trust_remote_code=model_settings.trust_remote_code)
    template = Template(tokenizer, text.template)
    keep_format(template)
    (train_set, counts), (held_out_set, more) = once_per_node(
        lambda: (
            encode_conversations(train, template, text),
            encode_conversations(held_out, template, text, "held-out example"),
        )
    )
    counts += more
    stage.say(
        f"{len(train_set)} examples, {len(held_out_set)} held out"
        + "".join(f", {c}" for c in (describe(counts), describe(replaced)) if c)
    )

    model = load_causal_lm(base, model_settings, lora)
    check_context(model, max(len(e.input_ids) for e in [*train_set, *held_out_set]), base)
    stop_at(model, template.end_id)
    check_packing(model, sft.pack_tokens)
    policy = PolicyModel(model, model_settings.most_logits, sft.sequence_ranks)
    eval_rows = share_sequences(policy, sft.sequence_ranks, optimizer)
    objective, held_out_objective = (
        SFTObjective(part, tokenizer.pad_token_id, sft.pack_tokens)
        for part in (train_set, held_out_set)
    )
    engine = build_engine(
        policy,
        zero=stage.resolve_zero(zero),
        dtype=resolve_dtype(model_settings.dtype),
        optimizer=optimizer,
        total_steps=total_steps(len(train_set), optimizer),
        sequence_ranks=sft.sequence_ranks,
    )

    def evaluate() -> dict[str, float]:
        sums, tokens = evaluate_supervised(
            engine, held_out_objective, eval_rows, sft.sequence_ranks
        )
        mean = sums["loss"] / max(tokens, 1.0)
        return {"eval/loss": mean, "eval/perplexity": perplexity(sums["loss"], tokens)}

    with stage.loop(saving, watching, engines={"model": engine}) as loop:
        final = train_supervised(
            loop,
            engine,
            objective,
            optimizer,
            seed=run.seed,
            evaluate=evaluate,
            title="stage 1, SFT",
            shown=run.progress,
            sequence_ranks=sft.sequence_ranks,
        )
    folder = stage.models / "sft"
    facts = {
        "eval_perplexity": final["eval/perplexity"],
        "examples": len(train_set),
        "pii_replaced": dict(replaced),
        "left_out": dict(counts),
    }
    card = Card("ICE-Instruct", KIND, "sft", stage.settings, sft.data, facts, LIMITS, sft.model)
    save_model(engine, tokenizer, folder, card, reload_to_merge(lora, "policy", model_settings))
    stage.finish(
        facts,
        f"held-out perplexity {final['eval/perplexity']:.2f}, saved in {folder}",
        outputs=[folder],
        checkpoints=loop.checkpoints,
    )


def prepare_data(
    sft: SFTArguments, seed: int
) -> tuple[list[Conversation], list[Conversation], dict[str, int]]:
    """Reads, scrubs, splits by prompt and blends; returns (training, held out, PII counts)."""
    sources = parse_sources(sft.data)
    held_out = read_conversations(parse_sources(sft.eval_data)) if sft.eval_data else []
    # Held-out text is scrubbed too: a prompt must not count as another for its placeholders.
    (*sets, held_out), replaced = scrub_conversations(
        [*(read_conversations([s]) for s in sources), held_out], enabled=sft.scrub_pii
    )
    if not held_out:
        _, held_out = split_by_prompt(
            [c for items in sets for c in items], fraction=sft.eval_fraction, seed=seed
        )
    taken = {c.prompt_key for c in held_out}
    sets = [[c for c in items if c.prompt_key not in taken] for items in sets]
    return blend(sets, [s.weight for s in sources], seed=seed), held_out, replaced


if __name__ == "__main__":
    run_stage("sft", ARGUMENTS, main)
