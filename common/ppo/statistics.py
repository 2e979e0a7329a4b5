"""The numbers that are logged at every PPO step, as sums over rows and tokens of all ranks."""

from torch import Tensor

from common.hybrid_engine.rollout import Rollout
from common.ppo.experience import Experience
from common.ppo.kl import kl_k1, kl_k2, kl_k3


def rollout_sums(experience: Experience, rollout: Rollout) -> dict[str, Tensor | float]:
    """Sums over this rank's rows and unmasked tokens; `rollout_values` turns them into means."""
    mask = experience.mask
    new, ref = experience.logprobs, experience.ref_logprobs
    returns, values = experience.returns, experience.values
    error = returns - values
    return {
        "rows": float(len(experience)),
        "tokens": mask.sum(),
        "k1": kl_k1(new, ref).masked_fill(~mask, 0).sum(),
        "k2": kl_k2(new, ref).masked_fill(~mask, 0).sum(),
        "k3": kl_k3(new, ref).masked_fill(~mask, 0).sum(),
        "entropy": experience.entropy.sum(),
        "ended": rollout.ended.sum(),
        "sampler_gap": (new - rollout.logprobs).abs().masked_fill(~mask, 0).sum(),
        "score": experience.scores.sum(),
        "score_squared": (experience.scores.double() ** 2).sum(),
        **{f"raw_score/{name}": x.sum() for name, x in experience.raw_scores.items()},
        "penalty": experience.penalties.sum(),
        "reward": experience.rewards.sum(),
        "return": returns.double().sum(),
        "return_squared": (returns.double() ** 2).sum(),
        "error": error.masked_fill(~mask, 0).double().sum(),
        "error_squared": (error.masked_fill(~mask, 0).double() ** 2).sum(),
    }


def rollout_values(sums: dict[str, float]) -> dict[str, float]:
    """Means for `metrics.jsonl`, and "tokens": response tokens of this rollout over all ranks.

    Args:
        sums: over all ranks, of `rollout_sums` and of the updates.
    """
    rows, tokens = sums["rows"], max(sums["tokens"], 1.0)
    trained = max(sums["update_tokens"], 1.0)
    updates = max(sums["updates"], 1.0)
    values = {
        "tokens": sums["tokens"],
        "reward/score": sums["score"] / rows,
        "reward/score_std": _deviation(sums["score"], sums["score_squared"], rows),
        **_raw_scores(sums, rows),
        "reward/penalty": sums["penalty"] / rows,
        "reward/total": sums["reward"] / rows,
        "policy/entropy": sums["entropy"] / tokens,
        "policy/loss": sums.get("policy_loss", 0.0) / trained,
        "policy/clip_fraction": sums.get("clipped", 0.0) / trained,
        "policy/approx_kl": sums.get("approx_kl", 0.0) / trained,
        "policy/early_stops": sums["early_stops"],
        "value/loss": sums["value_loss"] / trained,
        "value/clip_fraction": sums["value_clipped"] / trained,
        "value/explained_variance": _explained(sums, tokens),
        "rollout/logprob_gap": sums["sampler_gap"] / tokens,
        "response/length": sums["tokens"] / rows,
        "response/eos_rate": sums["ended"] / rows,
    }
    if "ptx_loss" in sums:
        values["policy/ptx_loss"] = sums["ptx_loss"] / sums["ptx_tokens"]
    for k in ("k1", "k2", "k3"):
        values[f"kl/token_{k}"] = sums[k] / tokens
        values[f"kl/sequence_{k}"] = sums[k] / rows
    for name in ("policy", "value"):
        values[f"{name}/grad_norm"] = sums[f"{name}/grad_norm"] / updates
        values[f"{name}/learning_rate"] = sums[f"{name}/learning_rate"]
    return values


def _raw_scores(sums: dict[str, float], rows: float) -> dict[str, float]:
    """Each source's mean raw score, under its name where there are several."""
    found = {name: total / rows for name, total in sums.items() if name.startswith("raw_score/")}
    if len(found) == 1:
        return {"reward/raw_score": next(iter(found.values()))}
    return {f"reward/{name}": mean for name, mean in sorted(found.items())}


def _deviation(total: float, squares: float, count: float) -> float:
    return max(squares / count - (total / count) ** 2, 0.0) ** 0.5


def _explained(sums: dict[str, float], tokens: float) -> float:
    """1 − Var(returns − values) / Var(returns), over all ranks; 0 where returns do not vary."""
    variance = _deviation(sums["return"], sums["return_squared"], tokens) ** 2
    residual = _deviation(sums["error"], sums["error_squared"], tokens) ** 2
    return 1.0 - residual / variance if variance > 1e-12 else 0.0
