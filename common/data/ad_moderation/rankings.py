"""Rankings of the embedded domain without a model: answers of mixed quality, *simulated* labelers.

For trying out reward training where nothing has been sampled yet. Stage 2 proper ranks what the
model that is to be improved has said.
"""

import random
from collections.abc import Iterator, Mapping
from typing import Any

from common.data.ad_moderation.answers import draw_answer
from common.data.ad_moderation.general import draw_general_answer
from common.data.ad_moderation.labelers import rank
from common.data.ad_moderation.splits import split_rows

DRAWS = 40
"""For the distinct answers to a prompt; some have only few."""


def ranked_answers(
    prompts: int, *, seed: int, responses: int = 5, labelers: int = 3
) -> Iterator[dict[str, Any]]:
    """Rows of rankings: `prompt`, `responses`, one of `orders` a labeler, and `facts`.

    Args:
        prompts: how many; the first ones stay the same when there are more.
        seed: of prompts, answers and labelers.
        responses: distinct answers a prompt, or as many as were drawn; fewer than two leave it out.
    """
    for row, _ in zip(split_rows(seed, "reward_prompts"), range(prompts), strict=False):
        facts = row["facts"]
        texts = written_answers(row["prompt"], facts, seed=seed, responses=responses)
        if len(texts) >= 2:
            orders = rank(texts, facts, seed=seed, labelers=labelers)
            yield {**row, "responses": texts, "orders": orders, "labelers": "simulated"}


def written_answers(
    prompt: str, facts: Mapping[str, Any], *, seed: int, responses: int
) -> list[str]:
    """Distinct answers by the domain's own generator, or as many as were drawn.

    Args:
        facts: the prompt's ground truth.
        responses: how many at most.
    """
    draw = random.Random(f"{seed}/ranked answers/{prompt}")
    answer = draw_general_answer if facts["domain"] == "general" else draw_answer
    texts: list[str] = []
    for _ in range(DRAWS):
        text = answer(draw, facts)[1]
        if text not in texts and len(texts) < responses:
            texts.append(text)
    return texts
