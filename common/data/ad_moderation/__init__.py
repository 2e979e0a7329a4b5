"""The embedded domain: moderation of invented ads, the paper's own example (Table 4, §5.3).

`splits.write_splits` writes all files from a seed, `rubric.score` rates a response against the
ground truth on the eight criteria, `labelers.rank` gives *simulated* labelers' rankings.
"""

from common.data.ad_moderation.labelers import rank
from common.data.ad_moderation.rubric import overall, score
from common.data.ad_moderation.splits import Sizes, write_splits

__all__ = ["Sizes", "overall", "rank", "score", "write_splits"]
