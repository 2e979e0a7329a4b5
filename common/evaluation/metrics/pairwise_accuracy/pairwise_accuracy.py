"""Pairwise accuracy of a reward model, for `evaluate.load`."""

import datasets
import evaluate
import numpy as np

from .equation import correct

DESCRIPTION = "The share of pairs whose preferred response has the higher score; ties count half."
INPUTS = """
Args:
    predictions: the score of each pair's preferred response.
    references: the score of its other response.
Returns:
    pairwise_accuracy: 0 to 1; pairs: their number.
"""


class PairwiseAccuracy(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
        )

    def _compute(self, predictions: list[float], references: list[float]) -> dict[str, float]:
        scores = np.stack([predictions, references], axis=1)
        if not np.isfinite(scores).all():
            raise ValueError("predictions and references must be finite numbers")
        found = correct(scores)
        return {"pairwise_accuracy": float(found.mean()), "pairs": len(found)}
