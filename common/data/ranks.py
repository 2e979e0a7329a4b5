"""One labeler's ranks of the responses to one prompt, as Kendall's W takes them."""

from common.evaluation.metrics.kendalls_w.equation import Ranks, judges, ranks_of_scores

__all__ = ["Ranks", "judges", "ranks_of_scores"]
