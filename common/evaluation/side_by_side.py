"""Prompts with the SFT and the RLHF answer beside each other, for reading and not for proof."""

import random
from collections.abc import Sequence

from common.evaluation.formatting import cell
from common.evaluation.run_files import MODELS, Response

PROMPTS_SHOWN = 10
LONGEST_SHOWN = 2000
"""Characters of one text in the report; the whole is in `evaluation/responses.jsonl`."""


def side_by_side(responses: Sequence[Response], seed: int) -> list[str]:
    """The report's lines on `chosen_prompts`; all text of users and models is escaped."""
    chosen = chosen_prompts(responses, seed)
    if not chosen:
        return []
    lines = [
        f"## {len(chosen)} prompts, side by side",
        "",
        "Drawn by the run's seed, not by score; the first sample of each model.",
    ]
    for place, (split, index, sft, rlhf) in enumerate(chosen, start=1):
        lines += [
            "",
            f"### {place}. {cell(split)}, prompt {index}",
            "",
            "| prompt |",
            "|---|",
            f"| {_excerpt(sft.prompt)} |",
            "",
            "| SFT | RLHF |",
            "|---|---|",
            f"| {_excerpt(sft.response)} | {_excerpt(rlhf.response)} |",
            f"| {_remarks(sft)} | {_remarks(rlhf)} |",
        ]
    return lines


def chosen_prompts(
    responses: Sequence[Response], seed: int
) -> list[tuple[str, int, Response, Response]]:
    """Ten (split, index, SFT response, RLHF response), drawn by seed: never by score.

    The first sample of the sampled decoding; a prompt counts if both models answered it. The
    draw does not depend on the order of the rows, nor on anything that the models wrote.
    """
    rows = {
        (row.split, row.index, row.model): row
        for row in responses
        if row.decoding == "sample" and row.sample == 0
    }
    prompts = sorted({(split, index) for split, index, _ in rows})
    both = [prompt for prompt in prompts if all((*prompt, model) in rows for model in MODELS)]
    drawn = random.Random(seed).sample(both, min(PROMPTS_SHOWN, len(both)))
    return [(*prompt, rows[*prompt, "sft"], rows[*prompt, "rlhf"]) for prompt in drawn]


def _excerpt(text: str) -> str:
    if not text.strip():
        return "*(empty)*"
    rest = len(text) - LONGEST_SHOWN
    return cell(text[:LONGEST_SHOWN]) + (f" *… ({rest} more characters)*" if rest > 0 else "")


def _remarks(row: Response) -> str:
    remarks = []
    if row.overall is not None:
        remarks.append(f"overall {row.overall:.1f}")
    if row.reward is not None:
        remarks.append(f"reward score {row.reward:.2f}")
    remarks.append(f"{row.tokens} tokens" + ("" if row.ended else ", cut off"))
    return f"*{', '.join(remarks)}*"
