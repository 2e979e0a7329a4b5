"""The table that ends a run in the terminal."""

from collections.abc import Sequence
from typing import Any

from common.evaluation.contenders import title
from common.evaluation.formatting import number, visible
from common.evaluation.run_files import HOW_TO_EVALUATE, MODELS
from common.evaluation.summary import judged, splits_of

WIDTH = 90
_SPLIT_WIDTH, _NAME_WIDTH = 10, 16


def terminal_table(summary: dict[str, Any]) -> str:
    """SFT against RLHF a split, at most `WIDTH` columns wide; the ± is half the 95% interval.

    Below it, where there are any, further contenders against SFT.
    """
    evaluation = summary["evaluation"]
    greedy = evaluation.get("greedy", {})
    names = list(splits_of(evaluation)) + [name for name in greedy if name not in evaluation]
    if not names and "evaluation" in summary.get("outdated", {}):
        return "The evaluation in this run is of an earlier model: SFT and RLHF were not compared."
    if not names:
        return f"No evaluation in this run: SFT and RLHF were not compared. {HOW_TO_EVALUATE}"
    header = ("split", "prompts", "SFT", "RLHF", "difference", "greedy", "win/tie/loss")
    lines = []
    further = []
    by_reward = False
    for name in names:
        split, greedily = evaluation.get(name), greedy.get(name)
        shown = split or greedily
        by_reward |= shown["judge"] == "reward_model"
        label = _clip(name, _SPLIT_WIDTH) + ("*" if shown["judge"] == "reward_model" else "")
        counts = [(split or {}).get(key) for key in ("rlhf_wins", "ties", "rlhf_losses")]
        lines.append(
            (
                label,
                str(shown["prompts"]),
                *(_plus_minus(split and split[model], shown["judge"]) for model in MODELS),
                _difference(split and split["difference"], shown["judge"]),
                _greedy(greedily),
                _counts(counts),
            )
        )
        further += _further(label, split or {}, greedily or {}, shown["judge"])
    table = _aligned([header, *lines])
    if further:
        heads = ("split", "", "mean", "against SFT", "greedy", "win/tie/loss")
        table += ["", *_aligned([heads, *further])]
    table.append("Sampled decoding unless it says greedy; ± half of the 95% interval over prompts.")
    if by_reward:
        table.append("* by the reward model that PPO was trained on: no independent evidence.")
    return "\n".join(table)


def _further(
    label: str, split: dict[str, Any], greedily: dict[str, Any], judge: str | None
) -> list[tuple[str, ...]]:
    """A line for each further contender in a split."""
    sampled, greedy = split.get("further", {}), greedily.get("further", {})
    lines = []
    for name in dict.fromkeys([*sampled, *greedy]):
        against = sampled.get(name, {}).get("against", {}).get("sft", {})
        lines.append(
            (
                label,
                _clip(title(name), _NAME_WIDTH),
                _plus_minus(sampled.get(name), judge),
                _difference(against.get("difference"), judge),
                number(judged(greedy[name], judge)[0] if name in greedy else None, _digits(judge)),
                _counts([against.get(key) for key in ("wins", "ties", "losses")]),
            )
        )
    return lines


def _aligned(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A table's lines with a rule below the first; the first column to the left, others right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    gap = "  " if sum(widths) + 2 * len(widths) <= WIDTH else " "
    table = [
        gap.join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    return [table[0], "-" * len(table[0]), *table[1:]]


def _plus_minus(model: dict[str, Any] | None, judge: str | None) -> str:
    if model is None:
        return "–"
    value, ci95 = judged(model, judge)
    if value is None:
        return "–"
    return f"{number(value, _digits(judge))} ±{number((ci95[1] - ci95[0]) / 2, _digits(judge))}"


def _difference(difference: dict[str, Any] | None, judge: str | None) -> str:
    if difference is None:
        return "–"
    low, high = difference["ci95"]
    digits = _digits(judge)
    return f"{number(difference['mean'], digits, sign=True)} ±{number((high - low) / 2, digits)}"


def _greedy(split: dict[str, Any] | None) -> str:
    if split is None:
        return "–"
    judge = split["judge"]
    values = (judged(split[model], judge)[0] if split[model] else None for model in MODELS)
    return " -> ".join(number(value, _digits(judge)) for value in values)


def _counts(counts: Sequence[int | None]) -> str:
    return "–" if None in counts else "/".join(map(str, counts))


def _digits(judge: str | None) -> int:
    """Rubric scores run to 100; reward scores are of the order of 1."""
    return 2 if judge == "reward_model" else 1


def _clip(text: str, width: int) -> str:
    text = visible(text).replace("\n", " ")
    return text if len(text) <= width else text[: width - 1] + "…"
