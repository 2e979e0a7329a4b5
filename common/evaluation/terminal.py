"""The table that ends a run in the terminal."""

from typing import Any

from common.evaluation.formatting import number, visible
from common.evaluation.run_files import MODELS
from common.evaluation.summary import judged, splits_of

WIDTH = 90
_SPLIT_WIDTH = 10


def terminal_table(summary: dict[str, Any]) -> str:
    """SFT against RLHF a split, at most `WIDTH` columns wide; the ± is half the 95% interval."""
    evaluation = summary["evaluation"]
    greedy = evaluation.get("greedy", {})
    names = list(splits_of(evaluation)) + [name for name in greedy if name not in evaluation]
    if not names:
        return "No evaluation in this run: SFT and RLHF were not compared."
    header = ("split", "prompts", "SFT", "RLHF", "difference", "greedy", "win/tie/loss")
    lines = []
    by_reward = False
    for name in names:
        split, greedily = evaluation.get(name), greedy.get(name)
        shown = split or greedily
        by_reward |= shown["judge"] == "reward_model"
        lines.append(
            (
                _clip(visible(name).replace("\n", " "), _SPLIT_WIDTH)
                + ("*" if shown["judge"] == "reward_model" else ""),
                str(shown["prompts"]),
                _plus_minus(split, "sft"),
                _plus_minus(split, "rlhf"),
                _difference(split),
                _greedy(greedily),
                _counts(split),
            )
        )
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    gap = "  " if sum(widths) + 2 * len(widths) <= WIDTH else " "
    table = [
        gap.join(
            text.ljust(width) if column == 0 else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, *lines]
    ]
    table.insert(1, "-" * len(table[0]))
    table.append("Sampled decoding unless it says greedy; ± half of the 95% interval over prompts.")
    if by_reward:
        table.append("* by the reward model that PPO was trained on: no independent evidence.")
    return "\n".join(table)


def _plus_minus(split: dict[str, Any] | None, model: str) -> str:
    if split is None or split[model] is None:
        return "–"
    value, ci95 = judged(split[model], split["judge"])
    if value is None:
        return "–"
    return f"{number(value, _digits(split))} ±{number((ci95[1] - ci95[0]) / 2, _digits(split))}"


def _difference(split: dict[str, Any] | None) -> str:
    if split is None or split["difference"] is None:
        return "–"
    low, high = split["difference"]["ci95"]
    digits = _digits(split)
    return (
        f"{number(split['difference']['mean'], digits, sign=True)} "
        f"±{number((high - low) / 2, digits)}"
    )


def _greedy(split: dict[str, Any] | None) -> str:
    if split is None:
        return "–"
    values = (judged(split[model], split["judge"])[0] if split[model] else None for model in MODELS)
    return " -> ".join(number(value, _digits(split)) for value in values)


def _counts(split: dict[str, Any] | None) -> str:
    if split is None or split["rlhf_wins"] is None:
        return "–"
    return f"{split['rlhf_wins']}/{split['ties']}/{split['rlhf_losses']}"


def _digits(split: dict[str, Any]) -> int:
    """Rubric scores run to 100; reward scores are of the order of 1."""
    return 2 if split["judge"] == "reward_model" else 1


def _clip(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
