"""How PPO's actor answers held-out prompts."""

from collections.abc import Sequence
from typing import Any

from common.data.encoding import EncodedPrompt
from common.evaluation.policy import mean_of, respond
from common.hybrid_engine.rollout import Rollout
from common.ppo.trainer import PPOTrainer


def evaluate(
    trainer: PPOTrainer, prompts: Sequence[EncodedPrompt], batch_size: int
) -> dict[str, Any]:
    """Sampled answers to held-out prompts: the score, the rubric's where it applies. A collective.

    The score is the weighted sum of all sources' by their fixed scales (see `Scale`), not clipped.

    Args:
        batch_size: responses that are scored at a time.
    """

    def score(rollout: Rollout, batch: Sequence[EncodedPrompt]) -> list[tuple[float, ...]]:
        scores = [trainer.score(r, rollout, batch, batch_size).tolist() for r in trainer.rewards]
        return list(zip(*scores, strict=True))

    rows = respond(
        prompts,
        trainer.template,
        lambda batch, places: trainer.generate(batch, "evaluation", 0, places),
        score,
    )
    columns = zip(*(row["reward"] for row in rows), strict=True)
    means = {
        r.name: sum(column) / len(rows) for r, column in zip(trainer.rewards, columns, strict=True)
    }
    scales = {r.name: r.scale for r in trainer.rewards}
    values = {
        "eval/score": sum(
            s.weight * ((means[name] - s.mean) / s.std) for name, s in scales.items()
        ),
        "eval/overall": mean_of(rows, "overall"),
        "eval/response_length": mean_of(rows, "tokens"),
        "eval/eos_rate": mean_of(rows, "ended"),
    }
    if len(means) > 1:
        values |= {f"eval/raw_score/{name}": mean for name, mean in means.items()}
    return {name: value for name, value in values.items() if value is not None}
