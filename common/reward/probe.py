"""Scores of right and wrong answers to the same prompts, for `right_minus_wrong`."""

from pathlib import Path
from typing import Any

import numpy as np

from common.data.records import Message
from common.data.template import Template
from common.reward.scoring import RewardScorer
from common.training.stage import read_json_lines


def probe_scores(
    engine: Any, template: Template, file: str, batch_size: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Raw scores `[rows]` of the columns `right` and `wrong` of a probe file.

    Every rank scores all rows (they are few).

    Args:
        file: JSON lines with prompt, right, wrong; empty for no probe.

    Returns:
        (None, None) without a file.
    """
    if not file:
        return None, None
    rows = read_json_lines(Path(file))
    scorer = RewardScorer(engine, template, template, 0.0, 1.0)
    prompts = [[Message("user", r["prompt"])] for r in rows]
    engine.eval()
    right, wrong = (
        scorer.score_texts(prompts, [r[side] for r in rows], batch_size).double().cpu().numpy()
        for side in ("right", "wrong")
    )
    engine.train()
    return right, wrong
