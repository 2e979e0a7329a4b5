"""Kendall's coefficient of concordance, corrected for ties, for `evaluate.load`."""

from math import isnan

import datasets
import evaluate

from .equation import kendalls_w

DESCRIPTION = (
    "Kendall's W, corrected for ties: how far labelers agree on the order of the same responses, "
    "from 0 (not at all) to 1 (all give the same order)."
)
INPUTS = """
Args:
    predictions: for each labeler the ranks (or scores) of all responses, in the same order;
        None or NaN for a response that was not ranked.
Returns:
    kendalls_w: 0 to 1; NaN with fewer than two labelers or responses, or where all are tied.
"""
CITATION = """@book{kendall1948rank,
  title={Rank Correlation Methods}, author={Kendall, Maurice G}, year={1948}}"""


class KendallsW(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        rows = datasets.Sequence(datasets.Value("float64"))
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": rows}),
        )

    def _compute(self, predictions: list[list[float | None]]) -> dict[str, float]:
        ranks = [[None if x is None or isnan(x) else x for x in row] for row in predictions]
        found = kendalls_w(ranks)
        return {"kendalls_w": float("nan") if found is None else found}
