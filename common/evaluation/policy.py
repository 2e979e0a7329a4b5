"""Responses of a policy to held-out prompts, judged: during PPO, and for the final report."""

from collections.abc import Callable, Sequence
from typing import Any

from common.data.encoding import EncodedPrompt
from common.data.template import Template
from common.evaluation.judge import judge
from common.hybrid_engine.rollout import Rollout
from common.training.distributed import gather_objects, rank, world_size

Generate = Callable[[Sequence[EncodedPrompt], Sequence[int]], Rollout]
"""(this rank's prompts, their places among all prompts) -> responses."""


def respond(
    prompts: Sequence[EncodedPrompt],
    template: Template,
    generate: Generate,
    score: Callable[[Rollout, Sequence[EncodedPrompt]], Sequence[Any]] | None = None,
) -> list[dict[str, Any]]:
    """One judged response for each prompt, on every rank and in the prompts' order. A collective.

    Args:
        score: raw scores of the reward model for each response, or of several.

    Returns:
        rows with prompt, task, response, ids, ended, tokens, criteria, overall, reward (None where
        unknown); `ids` are the response's tokens, end token included.
    """
    padded = own_share([len(p.ids) for p in prompts])
    batch = [prompts[i] for i in padded]
    rollout = generate(batch, padded)
    rewards = score(rollout, batch) if score is not None else [None] * len(batch)
    rows: dict[int, dict[str, Any]] = {}
    for i, prompt, ids, ended, reward in zip(
        padded, batch, rollout.response_ids(), rollout.ended.tolist(), rewards, strict=True
    ):
        rows[i] = _row(template.decode_response(ids), prompt, ids, ended, reward)
    everything: dict[int, dict[str, Any]] = {}
    for part in gather_objects(rows):
        everything |= part  # type: ignore[operator]
    return [everything[i] for i in range(len(prompts))]


def own_share(lengths: Sequence[int]) -> list[int]:
    """This rank's rows: dealt out in order of length, equally many to each rank.

    A rank that runs short repeats its last one, so that all ranks call their models equally often.
    """
    order = sorted(range(len(lengths)), key=lambda i: lengths[i])
    mine = order[rank() :: world_size()]
    most = -(-len(order) // world_size())
    return mine + [mine[-1] if mine else order[-1]] * (most - len(mine))


def _row(
    response: str, prompt: EncodedPrompt, ids: list[int], ended: bool, reward: Any
) -> dict[str, Any]:
    facts = prompt.record.facts
    judged = judge(response, facts)
    task = (facts or {}).get("task")
    return {
        "prompt": "\n".join(m.content for m in prompt.record.messages),
        "task": task if isinstance(task, str) else None,
        "response": response,
        "ids": ids,
        "ended": ended,
        "tokens": len(ids),
        "criteria": judged[0] if judged else None,
        "overall": judged[1] if judged else None,
        "reward": reward,
    }


def mean_of(rows: Sequence[dict[str, Any]], key: str) -> float | None:
    """Mean over the rows in which `key` is known; None where it is nowhere."""
    known = [float(r[key]) for r in rows if r[key] is not None]
    return sum(known) / len(known) if known else None
