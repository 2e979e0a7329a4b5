"""Draws k distinct responses a prompt from ICE-Instruct, for labelers (paper §3.2, §4.1)."""

from dataclasses import dataclass
from typing import Any

from common.config.arguments import (
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    option,
)
from common.data.encoding import EncodedPrompt, describe, encode_prompts
from common.data.layouts import read_prompts
from common.data.sources import parse_sources
from common.data.template import Template
from common.errors import UserError
from common.files import write_json_lines
from common.hybrid_engine.engine import HybridRollout, RolloutArguments
from common.models.loading import load_causal_lm, load_tokenizer
from common.training.distributed import device, gather_objects, is_main, rank, world_size
from common.training.metrics import progress_bar
from common.training.padding import in_batches
from common.training.seeding import derive_seed
from common.training.stage import Stage, run_stage
from common.zero.config import resolve_dtype


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
) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    path = sample.model or str(stage.models / "sft")
    tokenizer = load_tokenizer(path, trust_remote_code=model_settings.trust_remote_code)
    template = Template(tokenizer, text.template)
    prompts, counts = encode_prompts(read_prompts(parse_sources(sample.data)), template, text)
    stage.say(", ".join(filter(None, [f"{len(prompts)} prompts", describe(counts)])))
    model = load_causal_lm(path, model_settings).to(device(), resolve_dtype(model_settings.dtype))
    rollouts = HybridRollout.for_template(model.eval(), template, text, sampling, rollout)

    # Where there are more ranks than prompts, some repeat the last one, and draw the same.
    mine = list(range(rank(), len(prompts), world_size())) or [len(prompts) - 1]
    found: dict[int, list[dict[str, Any]]] = {i: [] for i in mine}
    drawn = 0
    with progress_bar(len(mine) * sample.responses, "stage 2, sampling", shown=run.progress) as bar:
        for attempt in range(1 + sample.redraws):
            wanted = [
                (i, i * sample.responses + n)
                for i in sorted(mine, key=lambda i: len(prompts[i].ids))
                for n in range(len(found[i]), sample.responses)
            ]
            for part in in_batches(len(wanted), WAVE * sampling.generation_batch_size):
                rows = [i for i, _ in wanted[part]]
                rolled = rollouts.respond(
                    [prompts[i].ids for i in rows],
                    derive_seed(run.seed, "sample", attempt),
                    streams=[stream for _, stream in wanted[part]],
                    check=attempt == 0 and part.start == 0,
                )
                responses = [
                    {"text": template.decode_response(ids), "ended": ended}
                    for ids, ended in zip(rolled.response_ids(), rolled.ended.tolist(), strict=True)
                ]
                drawn += len(rows)
                bar.update(
                    sum(add_distinct(found[i], r) for i, r in zip(rows, responses, strict=True))
                )

    merged: dict[int, list[dict[str, Any]]] = {}
    for part in gather_objects(found):
        merged |= part  # type: ignore[operator]
    total = sum(gather_objects(drawn))  # type: ignore[arg-type]
    rankable = [i for i in range(len(prompts)) if len(merged[i]) >= 2]
    counts["prompts without two distinct responses"] = len(prompts) - len(rankable)
    if not rankable:
        raise UserError(
            f"{path}: it has no two distinct responses to any of {len(prompts)} prompts; raise "
            "temperature or redraws, or train it longer"
        )
    rows = [sample_row(prompts[i], merged[i], path, sampling, run.seed) for i in rankable]
    if is_main():
        write_json_lines(stage.folder / "samples.jsonl", rows)
    kept = sum(len(r["responses"]) for r in rows)
    short = sum(len(r["responses"]) < sample.responses for r in rows)
    stage.finish(
        {
            "prompts": len(rows),
            "responses": kept,
            "drawn": total,
            "empty_or_repeated": total - sum(map(len, merged.values())),
            "prompts_with_fewer": short,
            "left_out": dict(+counts),
        },
        f"{kept} distinct responses to {len(rows)} prompts"
        + (f" ({short} prompts have fewer than {sample.responses})" if short else ""),
    )


def add_distinct(kept: list[dict[str, Any]], response: dict[str, Any]) -> bool:
    """Keeps a response if it is neither empty nor among those kept; says whether it was."""
    if not response["text"] or any(k["text"] == response["text"] for k in kept):
        return False
    kept.append(response)
    return True


def sample_row(
    prompt: EncodedPrompt,
    responses: list[dict[str, Any]],
    model: str,
    sampling: SamplingArguments,
    seed: int,
) -> dict[str, Any]:
    """A row of samples.jsonl, with its provenance."""
    messages = [{"role": m.role, "content": m.content} for m in prompt.record.messages]
    return {
        "prompt": messages[0]["content"] if len(messages) == 1 else messages,
        "responses": [r["text"] for r in responses],
        "ended": [r["ended"] for r in responses],
        "facts": prompt.record.facts,
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": seed,
    }


if __name__ == "__main__":
    run_stage("sample", ARGUMENTS, main)
