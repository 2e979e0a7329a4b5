"""`RUN/summary.json`: what each stage reported, and SFT against RLHF on the held-out prompts.

Overall scores are 0–100 (`common.evaluation.criteria`); criteria are percent of the most points
possible, as in the paper's Table 3. The unit of every interval is the prompt.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.evaluation.contenders import kl_bound
from common.evaluation.criteria import CRITERIA, MAX_POINTS
from common.evaluation.results import read_results
from common.evaluation.run_files import (
    DECODINGS,
    METRIC_STAGES,
    MODELS,
    STAGES,
    Response,
    read_responses,
)
from common.evaluation.statistics import (
    bootstrap_ci,
    mean_by_prompt,
    repeated_share,
    same_order,
    win_tie_loss,
)
from common.files import write_json

REWARD_JUDGE_NOTE = (
    "No rubric scored these responses. They are compared by the reward model's score, which is "
    "what PPO was trained to raise: this is no independent evidence that they are better."
)

_FIRST_SPLITS = ("seen", "unseen", "general")

Judge = Callable[[Response], float | None]


def build_summary(
    run: Path,
    answers: tuple[list[Response], list[str]] | None = None,
    outdated: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The run's summary, in the shape of `summary.json`; parts whose files are missing are absent.

    Every number is finite: one that was not in its file is None here, and `notes` says so, and what
    else was damaged. Each split holds `prompts`, `judge` (`rubric`, `reward_model` or None), a
    block for each model that answered (`overall`, `ci95`, `criteria`, `reward`, `reward_ci95`,
    `samples` = responses in all, `eos_rate`, `mean_tokens`, `repeats`, `reward_agrees`) and, where
    both did, `rlhf_wins`, `ties`, `rlhf_losses` and `difference` (RLHF − SFT, paired by prompt, in
    the judge's unit). Where others answered too, `further` has a block for each by name, and in it
    `against`: for SFT and RLHF `wins`, `ties`, `losses` and `difference`, as seen from it;
    best-of-n has `best_of` and `kl_bound` (nats).

    Args:
        answers: what `read_responses` gave of the run, where they are read already.
        outdated: stage -> why it is not of what the run holds now (`common.evaluation.outdated`);
            these are under `outdated`, and their results are left out.

    Raises:
        UserError: the run holds no result at all, or a file in it is unusable.
    """
    found, notes = read_results(run, STAGES)
    responses, response_notes = answers or read_responses(run / "evaluation" / "responses.jsonl")
    has_metrics = any((run / stage / "metrics.jsonl").is_file() for stage in METRIC_STAGES)
    if not found and not responses and not has_metrics:
        raise UserError(
            f"{run / 'sft' / 'result.json'}: not found, nor any other stage's result, metrics "
            "or responses. Give the folder of a run in which at least one stage has finished."
            + "".join(f" {note}" for note in notes + response_notes)
        )
    older = dict(outdated or {})
    found = {stage: result for stage, result in found.items() if stage not in older}

    seeds = [result["seed"] for result in found.values() if result.get("seed") is not None]
    if len(set(seeds)) > 1:
        notes.append(f"The stages ran with different seeds: {', '.join(map(str, seeds))}.")
    versions: dict[str, str] = {}
    for stage, result in found.items():
        for package, version in (result.get("versions") or {}).items():
            if versions.setdefault(package, version) != version:
                notes.append(f"{stage} ran with {package} {version}, not {versions[package]}.")

    seed = seeds[0] if seeds else None
    stages = {
        stage: {key: value for key, value in result.items() if key not in ("seed", "versions")}
        for stage, result in found.items()
    }
    summary = {
        "seed": seed,
        "versions": versions,
        "stages": stages,
        "outdated": older,
        "evaluation": _evaluation(responses, seed or 0, notes),
        "seconds_total": sum(stage.get("seconds") or 0.0 for stage in stages.values()),
        "notes": notes + response_notes,
    }
    return summary


def write_summary(run: Path, summary: dict[str, Any]) -> Path:
    """Writes `RUN/summary.json` (strict JSON, replaced as a whole) and gives its path."""
    path = run / "summary.json"
    write_json(path, summary)
    return path


def splits_of(block: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The splits of `summary["evaluation"]` or of its `greedy` part, by name."""
    return {name: part for name, part in block.items() if name not in ("decoding", "greedy")}


def compared(evaluation: dict[str, Any]) -> tuple[str, dict[str, dict[str, Any]]]:
    """The decoding by which a run is judged, and its splits: sampled, else greedy."""
    splits = splits_of(evaluation)
    return ("sample", splits) if splits else ("greedy", evaluation.get("greedy", {}))


def blocks_of(split: dict[str, Any]) -> dict[str, dict[str, Any] | None]:
    """The block of each contender in a split, SFT and RLHF first; None for one that is missing."""
    return {model: split[model] for model in MODELS} | split.get("further", {})


def judged(model: dict[str, Any], judge: str | None) -> tuple[float | None, list[float] | None]:
    """The number by which a model's block is judged, and its interval: rubric or reward."""
    if judge == "reward_model":
        return model["reward"], model["reward_ci95"]
    return model["overall"], model["ci95"]


def _evaluation(responses: list[Response], seed: int, notes: list[str]) -> dict[str, Any]:
    evaluation: dict[str, Any] = {}
    if not responses:
        return evaluation
    names = {row.split for row in responses}
    ordered = [name for name in _FIRST_SPLITS if name in names]
    ordered += sorted(names.difference(_FIRST_SPLITS))
    for decoding in DECODINGS:
        splits = {}
        for name in ordered:
            rows = [row for row in responses if row.decoding == decoding and row.split == name]
            if rows:
                splits[name] = _split(rows, seed, f"{name}, {decoding}", notes)
        if decoding == "sample":
            evaluation = {"decoding": "sample", **splits}
        elif splits:
            evaluation["greedy"] = splits
    return evaluation


def _split(rows: list[Response], seed: int, where: str, notes: list[str]) -> dict[str, Any]:
    """One split under one decoding: both models, and their comparison prompt by prompt."""
    judge, value = _judge(rows)
    unjudged = sum(value(row) is None for row in rows)
    if judge is not None and unjudged:
        notes.append(f"{where}: {unjudged} responses have no score and count in no mean of scores.")
    by_model = {model: [row for row in rows if row.model == model] for model in MODELS}
    means = {model: _prompt_means(by_model[model], value) for model in MODELS}
    common = [prompt for prompt in means["sft"] if prompt in means["rlhf"]]

    split: dict[str, Any] = {
        "prompts": len(common) or len({row.index for row in rows}),
        "judge": judge,
    }
    if judge == "reward_model":
        split["judge_note"] = REWARD_JUDGE_NOTE
    for model in MODELS:
        split[model] = _model(by_model[model], seed) if by_model[model] else None
    if others := sorted({row.model for row in rows}.difference(MODELS)):
        split["further"] = {name: _further(rows, name, value, seed) for name in others}
    if not common:
        return split | {"rlhf_wins": None, "ties": None, "rlhf_losses": None, "difference": None}

    if alone := len(set(means["sft"]) ^ set(means["rlhf"])):
        notes.append(f"{where}: {alone} prompts have one model's scores only; not compared.")
    wins, ties, losses = win_tie_loss(means["rlhf"], means["sft"])
    pair = by_model["rlhf"], by_model["sft"]
    difference = _paired(*pair, value, seed)
    if judge == "rubric":
        difference["criteria"] = {
            name: _paired(*pair, _points(name), seed) for name in _criteria(rows)
        }
    return split | {
        "rlhf_wins": wins,
        "ties": ties,
        "rlhf_losses": losses,
        "difference": difference,
    }


def _further(rows: list[Response], name: str, value: Judge, seed: int) -> dict[str, Any]:
    """A further contender's block, and how it compares with the two models prompt by prompt."""
    own = [row for row in rows if row.model == name]
    block = _model(own, seed) | {"against": {}}
    if own[0].best_of is not None:
        block |= {"best_of": own[0].best_of, "kl_bound": kl_bound(own[0].best_of)}
    for model in MODELS:
        other = [row for row in rows if row.model == model]
        counts = win_tie_loss(_prompt_means(own, value), _prompt_means(other, value))
        if any(counts):
            difference = _paired(own, other, value, seed)
            block["against"][model] = {**counts._asdict(), "difference": difference}
    return block


def _judge(rows: list[Response]) -> tuple[str | None, Judge]:
    """The rubric wherever it scored anything; else the reward model; else nobody."""
    if any(row.overall is not None for row in rows):
        return "rubric", lambda row: row.overall
    if any(row.reward is not None for row in rows):
        return "reward_model", lambda row: row.reward
    return None, lambda row: None


def _model(rows: list[Response], seed: int) -> dict[str, Any]:
    overall, ci95 = _mean_and_ci(rows, lambda row: row.overall, seed)
    reward, reward_ci95 = _mean_and_ci(rows, lambda row: row.reward, seed)
    criteria = {name: _mean_and_ci(rows, _points(name), seed)[0] for name in _criteria(rows)}
    return {
        "overall": overall,
        "ci95": ci95,
        "criteria": criteria or None,
        "reward": reward,
        "reward_ci95": reward_ci95,
        "samples": len(rows),
        "eos_rate": float(np.mean([row.ended for row in rows])),
        "mean_tokens": float(np.mean([row.tokens for row in rows])),
        "repeats": float(np.mean([repeated_share(row.response) for row in rows])),
        "reward_agrees": _reward_agrees(rows),
    }


def _reward_agrees(rows: list[Response]) -> float | None:
    """How often reward model and judge order two answers to one prompt alike, over prompts."""
    by_prompt: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        if row.overall is not None and row.reward is not None:
            by_prompt.setdefault(row.index, []).append((row.overall, row.reward))
    shares = [same_order(scores) for scores in by_prompt.values()]
    known = [share for share in shares if share is not None]
    return float(np.mean(known)) if known else None


def _criteria(rows: list[Response]) -> list[str]:
    """The criteria that were rated: the paper's eight in its order, then any others by name."""
    names = {name for row in rows for name in row.criteria or ()}
    ordered = [name for name in CRITERIA if name in names]
    return ordered + sorted(names.difference(CRITERIA))


def _points(criterion: str) -> Judge:
    """Points on one criterion as percent of the most possible (Table 3)."""

    def percent(row: Response) -> float | None:
        points = (row.criteria or {}).get(criterion)
        return None if points is None else 100.0 * points / MAX_POINTS

    return percent


def _prompt_means(rows: list[Response], value: Judge) -> dict[int, float]:
    scored = ((row.index, value(row)) for row in rows)
    return mean_by_prompt((index, score) for index, score in scored if score is not None)


def _mean_and_ci(
    rows: list[Response], value: Judge, seed: int
) -> tuple[float | None, list[float] | None]:
    means = _prompt_means(rows, value)
    return _interval(list(means.values()), seed)


def _paired(
    first: list[Response], second: list[Response], value: Judge, seed: int
) -> dict[str, Any]:
    """Mean of first − second over the prompts that both have, and its interval."""
    a, b = (_prompt_means(rows, value) for rows in (first, second))
    gaps = [a[prompt] - b[prompt] for prompt in b if prompt in a]
    mean, ci95 = _interval(gaps, seed)
    return {"mean": mean, "ci95": ci95}


def _interval(values: list[float], seed: int) -> tuple[float | None, list[float] | None]:
    if not values:
        return None, None
    return float(np.mean(values)), list(bootstrap_ci(values, seed))
