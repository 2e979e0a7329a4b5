"""How far labelers agree on one prompt: its equation is among the metrics for others."""

from common.evaluation.metrics.kendalls_w.equation import kendalls_w

__all__ = ["kendalls_w"]
