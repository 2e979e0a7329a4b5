"""Expected calibration error of a reward model, for `evaluate.load`."""

import datasets
import evaluate
import numpy as np

from .equation import BINS, calibration_error

DESCRIPTION = (
    "Expected calibration error of a reward model: σ(|difference of a pair's scores|) is taken for "
    "the probability that the higher one is preferred, as the logistic loss has it."
)
INPUTS = """
Args:
    predictions: the score of each pair's preferred response.
    references: the score of its other response.
    bins: of equal width, from a half to 1; by default 10.
Returns:
    calibration_error: 0 to 1/2.
"""
CITATION = """@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q},
  booktitle={ICML}, year={2017}}"""


class CalibrationError(evaluate.Metric):
    """See `DESCRIPTION` and `INPUTS`."""

    def _info(self) -> evaluate.MetricInfo:
        number = datasets.Value("float64")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": number, "references": number}),
            reference_urls=["https://arxiv.org/abs/1706.04599"],
        )

    def _compute(
        self, predictions: list[float], references: list[float], bins: int = BINS
    ) -> dict[str, float]:
        differences = np.subtract(predictions, references)
        if not np.isfinite(differences).all():
            raise ValueError("predictions and references must be finite numbers")
        return {"calibration_error": float(calibration_error(differences, bins))}
