"""Draws k distinct responses a prompt from ICE-Instruct, for labelers (paper §3.2, §4.1)."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.config.arguments import (
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
    option,
)
from common.data.encoding import EncodedPrompt, describe, encode_prompts
from common.data.labeled import prompt_column
from common.data.layouts import read_prompts
from common.data.sources import parse_sources, paths_of
from common.data.template import Template
from common.errors import UserError
from common.files import write_json_lines
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.hub import hub_commit
from common.models.loading import load_causal_lm, load_tokenizer
from common.models.policy import PolicyModel
from common.training.distributed import is_main
from common.training.engine import build_frozen
from common.training.metrics import progress_bar
from common.training.once_per_node import once_per_node
from common.training.resume.arguments import CheckpointArguments
from common.training.resume.identity import content_hashes
from common.training.run import run_stage
from common.training.seeding import derive_seed
from common.training.stage import Stage
from common.training.watchdog import WATCHDOG
from common.zero.config import resolve_dtype
from step2_reward.samples import Samples


@dataclass
class SampleArguments:
    """What is sampled."""

    model: str = option("", "model to sample from; by default RUN/models/sft")
    data: list[str] = option([], "prompts: files or hub names, or mappings with path, columns, …")
    responses: int = option(5, "distinct responses a prompt (paper: 5)")
    redraws: int = option(3, "how often missing distinct responses are drawn again")


WAVE = 16
"""Batches of responses that are asked for at a time: as rows end, waiting ones take their places,
and only at the end of a wave do places stay empty."""

ARGUMENTS = (
    RunArguments,
    SampleArguments,
    ModelArguments,
    TextArguments,
    SamplingArguments,
    RolloutArguments,
    ZeroArguments,
    CheckpointArguments,
)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(
    stage: Stage,
    run: RunArguments,
    sample: SampleArguments,
    model_settings: ModelArguments,
    text: TextArguments,
    sampling: SamplingArguments,
    rollout: RolloutArguments,
    zero: ZeroArguments,
    saving: CheckpointArguments,
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    path = sample.model or str(stage.models / "sft")
    stage.begin([path, *paths_of(sample.data)])
    tokenizer = load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
    template = Template(tokenizer, text.template)
    prompts, counts = once_per_node(
        lambda: encode_prompts(read_prompts(parse_sources(sample.data)), template, text)
    )
    stage.say(", ".join(filter(None, [f"{len(prompts)} prompts", describe(counts)])))
    model = build_frozen(
        PolicyModel(load_causal_lm(path, model_settings), model_settings.most_logits),
        zero=stage.resolve_zero(zero),
        dtype=resolve_dtype(model_settings.dtype),
    )
    rollouts = HybridRollout.for_template(model, template, text, sampling, rollout)

    samples = Samples([len(p.ids) for p in prompts], sample.responses, sample.redraws)
    width = WAVE * sampling.generation_batch_size
    with (
        stage.checkpoints(saving, shared={"samples": samples}) as checkpoints,
        progress_bar(
            len(samples.mine) * sample.responses, "stage 2, sampling", shown=run.progress
        ) as bar,
    ):
        checkpoints.restore()
        bar.update(sum(map(len, samples.found.values())))
        more = samples.more()
        while more:
            WATCHDOG.at(f"sampling, batch {checkpoints.step + 1}")
            part = samples.take(width)
            asked = part or [(samples.mine[0], 0)]  # under ZeRO-3 no rank may stay away
            rolled = rollouts.respond(
                [prompts[i].ids for i, _ in asked],
                derive_seed(run.seed, "sample", samples.attempt),
                streams=[stream for _, stream in asked],
                check=checkpoints.step == 0,
            )
            answers = zip(rolled.response_ids(), rolled.ended.tolist(), strict=True)
            for (i, _), (ids, ended) in zip(part, answers, strict=False):
                found = {"text": template.decode_response(ids), "ended": ended}
                bar.update(samples.keep(i, found))
            more = samples.more()
            checkpoints.after(checkpoints.step + 1, {}, last=not more)

    merged, (draws, empty) = samples.merged(), samples.tally()
    rankable = [i for i in range(len(prompts)) if len(merged[i]) >= 2]
    counts["prompts without two distinct responses"] = len(prompts) - len(rankable)
    if not rankable:
        raise UserError(
            f"{path}: it has no two distinct responses to any of {len(prompts)} prompts; raise "
            "temperature or redraws, or train it longer"
        )
    if is_main():
        source = provenance(path, stage.root, sampling, text, run.seed)
        rows = [{**sample_row(prompts[i], merged[i], draws[i]), **source} for i in rankable]
        write_json_lines(stage.folder / "samples.jsonl", rows)
    kept = sum(len(merged[i]) for i in rankable)
    short = sum(len(merged[i]) < sample.responses for i in rankable)
    total, blank = sum(draws.values()), sum(empty.values())
    repeated = total - blank - sum(map(len, merged.values()))
    stage.finish(
        {
            "prompts": len(rankable),
            "responses": kept,
            "drawn": total,
            "empty": blank,
            "repeated": repeated,
            "prompts_with_fewer": short,
            "left_out": dict(+counts),
        },
        f"{kept} distinct responses to {len(rankable)} prompts, of {total} drawn"
        + f", {repeated} repeated others" * bool(repeated)
        + f", {blank} were empty" * bool(blank)
        + f"; after {sample.redraws} redraws {short} prompts have fewer than {sample.responses}"
        * bool(short),
        outputs=[stage.folder / "samples.jsonl"],
        checkpoints=checkpoints,
    )


def sample_row(
    prompt: EncodedPrompt, responses: list[dict[str, Any]], drawn: int
) -> dict[str, Any]:
    """A row of samples.jsonl, without its provenance."""
    return {
        "prompt": prompt_column(prompt.record.messages),
        "responses": [r["text"] for r in responses],
        "ended": [r["ended"] for r in responses],
        "drawn": drawn,
        "facts": prompt.record.facts,
    }


def provenance(
    path: str,
    run: Path,
    sampling: SamplingArguments,
    text: TextArguments,
    seed: int,
) -> dict[str, Any]:
    """Where samples come from: the model and a hash of it, how it was sampled, the seed.

    Args:
        path: of the model, a folder (then the hash is of its files' content, the card aside) or a
            hub name (then of the commit).
        run: directory, in which hashes are cached.
    """
    (hashed,) = content_hashes([path], run).values()
    return {
        "model": path,
        "model_hash": f"hub:{hub_commit(path)}" if hashed == "hub" else f"sha256:{hashed}",
        "sampling": {
            "temperature": sampling.temperature,
            "top_k": sampling.top_k,
            "top_p": sampling.top_p,
            "repetition_penalty": sampling.repetition_penalty,
            "min_response_tokens": sampling.min_response_tokens,
            "max_response_tokens": text.max_response_tokens,
            "max_prompt_tokens": text.max_prompt_tokens,
            "template": text.template,
        },
        "seed": seed,
    }


if __name__ == "__main__":
    run_stage("sample", ARGUMENTS, main)
