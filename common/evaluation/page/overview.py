"""What was run: stages, settings, versions, who ranked."""

from collections.abc import Mapping
from typing import Any

from common.data.labelers import in_words
from common.evaluation.formatting import duration, fact
from common.evaluation.page.facts import RunFacts
from common.evaluation.run_files import STAGES, UNMISSED
from common.pages.html import Markup, element, joined, notes, table

TITLES = {
    "data": "Files of the embedded domain",
    "sft": "SFT (ICE-Instruct)",
    "sample": "Sampling of responses to rank",
    "rank": "Ranking",
    "ai_rank": "Ranking by a language model (AI feedback)",
    "import": "Import of rankings made elsewhere",
    "pairs": "Pairs",
    "reward": "Reward model (ICE-Reward)",
    "rlhf": "PPO (ICE-GRT)",
    "dpo": "DPO, in place of reward model and PPO",
    "evaluation": "Evaluation",
    "benchmarks": "Benchmarks",
}
UNITS = {
    "kl_per_sequence": "nats a response",
    "accuracy": "share of held-out pairs",
    "length_only_accuracy": "share of held-out pairs",
    "right_minus_wrong": "deviations of the scores of SFT samples",
    "length_score_correlation": "of −1 to 1",
    "eos_rate": "share of responses",
    "response_length": "tokens",
    "score": "deviations of the reward model's scores",
    "drift": "nats a response",
    "eval_perplexity": "per token",
    "best_of_kl_bound": "nats a response",
}
ENDINGS = {"_overall": "points of 100", "_reward": "raw score"}
"""Units of what each contender got: "sft_overall", "best_of_8_reward"."""
ELSEWHERE = (
    *("seconds", "checkpoint_seconds", "peak_megabytes", "reserved_megabytes", "planned"),
    *("outputs", "diagnostics", "accuracy_by_gap", "scores", "scores_preferred", "scores_other"),
    *("changed_settings",),
)
"""What a stage's result says and another part of the page shows."""


def overview(run: RunFacts) -> Markup:
    """A few facts, and for each stage what it reported and what was set."""
    stages = run.stages
    missing = [s for s in STAGES if s not in {*stages, *run.outdated, *UNMISSED}]
    versions = ", ".join(f"{name} {v}" for name, v in run.summary["versions"].items())
    done = ", ".join(stages) or "none"
    seed = run.summary["seed"]
    facts = [
        ("stages finished", done + (f" (without a result: {', '.join(missing)})" * bool(missing))),
        ("time", f"{duration(run.summary['seconds_total'])} for all stages"),
        ("seed", "not recorded" if seed is None else fact(seed)),
        ("versions", versions or "not recorded"),
    ]
    facts += [("rankings", words) for words in who_ranked(run)]
    items = [joined([element("dt", name), element("dd", text)]) for name, text in facts]
    parts = [element("dl", joined(items), class_="facts")]
    for stage in STAGES:
        if stage in stages or stage in run.settings or _has_metrics(run, stage):
            parts.append(_stage(run, stage))
    if run.notes:
        odd = [element("li", note) for note in run.notes]
        parts += [element("h3", "Odd in the files"), element("ul", joined(odd))]
    return joined(parts)


def left_out(run: RunFacts) -> list[str]:
    """What the page does not show: what is older than what it was made from, what is damaged."""
    lines = [
        f"Left out, being of an earlier state of the run: {TITLES[stage]} ({why}). "
        f"Run {stage} again."
        for stage, why in run.outdated.items()
    ]
    return [*lines, *(f"Odd: {note}" for note in run.notes)]


def who_ranked(run: RunFacts) -> list[str]:
    """Whose preferences the reward model learned; simulated labelers are always called that."""
    who = _labelers(run.stages)
    if not any(who.values()):
        return []
    told = in_words(who)
    if who["simulated"]:
        told += " (the rubric with noise)"
        told += "" if who["people"] or who["unnamed"] else "; no person ranked anything"
    return [told]


def ranked_by(run: RunFacts) -> list[str]:
    """The same in a sentence."""
    return [f"The reward model's labelers: {words}." for words in who_ranked(run)]


def _labelers(stages: Mapping[str, dict[str, Any]]) -> Mapping[str, Any]:
    """Who ranked the pairs that were trained on, as `common.data.labelers` has it.

    Runs of earlier code noted only which stages ranked.
    """
    for stage in ("reward", "dpo"):
        if "labelers" in stages.get(stage, {}):
            return stages[stage]["labelers"]
    made = stages.get("pairs", {}).get("labelers", {}).get("of_pairs")
    if made:
        return made
    ranked = stages.get("rank", {})
    played = ranked.get("labelers_per_prompt", 1) * (ranked.get("labelers") == "simulated")
    asked = stages.get("ai_rank", {}).get("labelers") or []
    return {"people": [], "simulated": ["simulated"] * played, "ai": asked, "unnamed": 0}


def _has_metrics(run: RunFacts, stage: str) -> bool:
    return stage in run.metrics and bool(run.metrics[stage].series)


def _stage(run: RunFacts, stage: str) -> Markup:
    result = run.stages.get(stage)
    settings = run.settings.get(stage, {})
    if stage in run.outdated:
        state = f"left out: {run.outdated[stage]}"
    elif result is None:
        state = "not finished"
    else:
        state = duration(result["seconds"]) if result.get("seconds") is not None else "finished"
    head = element(
        "summary",
        joined([TITLES[stage], element("span", state, class_="note")], " "),
    )
    parts: list[str] = [head]
    shown = {k: v for k, v in (result or {}).items() if k not in ELSEWHERE}
    if shown:
        rows = [(name.replace("_", " "), _with_unit(name, value)) for name, value in shown.items()]
        parts.append(table(f"What {TITLES[stage]} reported", ("", "value"), rows, text=(1,)))
    changed = (result or {}).get("changed_settings")
    if changed is not None:
        parts.append(_settings(f"Settings that differ from the defaults: {stage}", changed))
    if settings:
        every = _settings(f"All settings: {stage}", settings)
        parts.append(element("details", joined([element("summary", "All settings"), every])))
    if result is not None and changed is None:
        parts.append(notes("Which settings differ from their defaults was not recorded."))
    return element("details", joined(parts), class_="stage-facts")


def _settings(caption: str, settings: Mapping[str, Any]) -> Markup:
    if not settings:
        return notes(f"{caption}: none.")
    rows = [(name, "not set" if v is None else fact(v)) for name, v in settings.items()]
    return table(caption, ("setting", "value"), rows, text=(1,))


def _with_unit(name: str, value: Any) -> str:  # noqa: ANN401
    found = [unit for ending, unit in ENDINGS.items() if name.endswith(ending)]
    unit = UNITS.get(name) or next(iter(found), "")
    return fact(value) + (f" ({unit})" if unit and value is not None else "")
