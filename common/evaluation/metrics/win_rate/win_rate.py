"""Win rate with ties, by scores or by a judge's verdicts in both orders, for `evaluate.load`."""

from math import isfinite
from typing import Any

import datasets
import evaluate

from .equation import count_both_orders, count_gaps, win_rate

DESCRIPTION = (
    "How often a model is better than another: ties count half. The configuration `scores` (the "
    "default) compares two scores; `both_orders` takes the verdicts of a judge that was asked "
    "twice, and counts as a tie what it decided differently with the answers exchanged."
)
INPUTS = """
Args (scores):
    predictions: the model's score on each prompt.
    references: the other model's.
Args (both_orders), each verdict `model`, `tie` or `other`:
    predictions: the verdict with the model's answer shown first.
    references: the verdict with it shown second.
Returns:
    win_rate: 0 to 1; wins, ties, losses: counts; in `both_orders` consistent: the share of
    comparisons whose two verdicts are the same.
"""
CITATION = """@article{zheng2023judging,
  title={Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena},
  author={Zheng, Lianmin and others}, journal={arXiv:2306.05685}, year={2023}}"""


class WinRate(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in ("default", "scores", "both_orders"):
            raise ValueError(f"{self.config_name}: the configuration is scores or both_orders")
        kind = datasets.Value("string" if self.config_name == "both_orders" else "float64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": kind, "references": kind}),
        )

    def _compute(self, predictions: list[Any], references: list[Any]) -> dict[str, float]:
        pairs = list(zip(predictions, references, strict=True))
        if self.config_name == "both_orders":
            counts = count_both_orders(predictions, references)
            more = {"consistent": sum(a == b for a, b in pairs) / len(pairs)}
        else:
            if not all(isfinite(a - b) for a, b in pairs):  # NaN would count as a tie
                raise ValueError("predictions and references must be finite numbers")
            counts, more = count_gaps(a - b for a, b in pairs), {}
        return {"win_rate": win_rate(counts), **counts._asdict(), **more}
