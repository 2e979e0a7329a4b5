"""Simulated labelers rank the samples of the embedded domain: its rubric plus noise.

People rank on the page of annotate.py, or elsewhere: give stage 2 their rankings as `data`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from common.config.arguments import RunArguments, option
from common.data.ad_moderation.labelers import rank as simulated_orders
from common.data.ad_moderation.rankings import written_answers
from common.data.ad_moderation.rubric import DOMAINS
from common.errors import UserError
from common.files import read_json_lines, write_json_lines
from common.training.distributed import is_main
from common.training.run import run_stage
from common.training.stage import Stage


@dataclass
class RankArguments:
    """The simulated labelers."""

    samples: str = option("", "file of samples; by default RUN/sample/samples.jsonl")
    writer: Literal["model", "generator"] = option(
        "model",
        "who wrote what is ranked: the model (its samples), or the domain's own generator, another "
        "writer, on the same prompts and with as many responses (paper §5.2.1 compares such)",
    )
    labelers: int = option(3, "simulated labelers per prompt (paper: three people)")
    noise: float = option(
        0.12, "deviation of a simulated labeler's error per criterion, in its points (0 to 2)"
    )


ARGUMENTS = (RunArguments, RankArguments)
"""Every setting of this stage; the order is that of `main`'s parameters."""


def main(stage: Stage, run: RunArguments, settings: RankArguments) -> None:
    """Runs the stage; the arguments' docstrings say what each does."""
    file = Path(settings.samples) if settings.samples else stage.root / "sample" / "samples.jsonl"
    stage.begin([str(file)])
    rows = []
    for number, row in enumerate(read_json_lines(file), start=1):
        check_sample(row, f"{file}:{number}")
        try:
            if settings.writer == "generator":
                row = by_generator(row, run.seed)
            orders = simulated_orders(
                row["responses"],
                row["facts"],
                seed=run.seed,
                labelers=settings.labelers,
                noise=settings.noise,
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{file}:{number}: field 'facts' is not as the embedded domain writes it "
                f"({type(error).__name__}: {error})"
            ) from error
        rows.append({**row, "orders": orders, "labelers": "simulated"})
    if is_main():
        write_json_lines(stage.folder / "rankings.jsonl", rows)
    stage.finish(
        {
            "prompts": len(rows),
            "labelers": "simulated",
            "labelers_per_prompt": settings.labelers,
            "writer": settings.writer,
        },
        f"{settings.labelers} simulated labelers ranked the responses to {len(rows)} prompts",
        outputs=[stage.folder / "rankings.jsonl"],
    )


def by_generator(row: dict[str, Any], seed: int) -> dict[str, Any]:
    """A sample's prompt with answers of the domain's generator, and nothing of the model's."""
    texts = written_answers(row["prompt"], row["facts"], seed=seed, responses=len(row["responses"]))
    return {"prompt": row["prompt"], "facts": row["facts"], "responses": texts}


def check_sample(row: dict[str, Any], origin: str) -> None:
    """Refuses a sample that simulated labelers cannot rank.

    Raises:
        UserError: names the field.
    """
    facts, responses = row.get("facts"), row.get("responses")
    if not isinstance(facts, dict) or facts.get("domain") not in DOMAINS:
        raise UserError(
            f"{origin}: field 'facts' is missing, or not the embedded domain's, which is all that "
            "simulated labelers know; have people rank these samples"
        )
    if not isinstance(responses, list) or not all(isinstance(r, str) for r in responses):
        raise UserError(f"{origin}: field 'responses' is missing, or not a list of texts")


if __name__ == "__main__":
    run_stage("rank", ARGUMENTS, main, distributed=False)
