"""The eight criteria and the overall score, for `evaluate.load`."""

from collections.abc import Mapping
from typing import Any

import datasets
import evaluate

from .equation import CRITERIA, MAX_POINTS, RECONSTRUCTED_WEIGHTS, overall_score

DESCRIPTION = (
    "Percent of the most points possible on each of the ICE-GRT paper's eight criteria, and the "
    "overall score that weighs them (Table 3). The default weights are reconstructed from that "
    "table, for the ones that the paper used are lost with its Table 2."
)
INPUTS = """
Args:
    predictions: for each response a mapping of the eight criteria to points from 0 to 2.
    weights: of the overall score, criterion -> weight in any unit; by default the reconstructed.
Returns:
    overall, and each criterion: 0 to 100; responses: their number.
"""


class CriteriaScore(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        points = {name: datasets.Value("float64") for name in CRITERIA}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": points}),
        )

    def _compute(
        self,
        predictions: list[dict[str, float]],
        weights: Mapping[str, float] = RECONSTRUCTED_WEIGHTS,
    ) -> dict[str, Any]:
        for place, row in enumerate(predictions):
            for name in CRITERIA:
                if name not in row:
                    raise ValueError(f"predictions[{place}]: {name} is missing")
                if row[name] is None or not 0 <= row[name] <= MAX_POINTS:
                    raise ValueError(
                        f"predictions[{place}]: {name} is {row[name]}, but must be 0 to "
                        f"{MAX_POINTS:g}"
                    )
        number = len(predictions)
        means = {name: sum(row[name] for row in predictions) / number for name in CRITERIA}
        percents = {name: 100.0 * points / MAX_POINTS for name, points in means.items()}
        return {"overall": overall_score(means, weights), **percents, "responses": number}
