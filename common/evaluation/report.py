"""`RUN/report.md`: what a run did, whether it is to be believed, and ten answers to read.

    python -m common.evaluation.report RUN

writes `RUN/summary.json`, `RUN/plots/*.png` and `RUN/report.md` from the files of the run, and
prints the table SFT against RLHF. Links are relative, so the folder can be moved.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.evaluation.contenders import title
from common.evaluation.diagnosis import NAMES, diagnose
from common.evaluation.formatting import cell, duration, fact, number
from common.evaluation.plots import make_plots
from common.evaluation.run_files import (
    METRIC_STAGES,
    STAGES,
    UNMISSED,
    Metrics,
    Response,
    read_metrics,
    read_responses,
)
from common.evaluation.side_by_side import side_by_side
from common.evaluation.summary import (
    REWARD_JUDGE_NOTE,
    blocks_of,
    build_summary,
    judged,
    splits_of,
    write_summary,
)
from common.evaluation.terminal import terminal_table
from common.files import write_text

_TITLES = {
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
}
_UNITS = {
    "kl_per_sequence": "nats",
    "accuracy": "share of held-out pairs",
    "length_only_accuracy": "share of held-out pairs",
    "right_minus_wrong": "deviations of the scores of SFT samples",
    "eos_rate": "share of responses",
    "response_length": "tokens",
    "score": "deviations of the reward model's scores",
    "drift": "nats a response",
}
_LEVELS = {True: "ok", False: "⚠ look", None: "not measured"}


def write_report(run: Path) -> tuple[dict[str, Any], Path]:
    """Writes the summary, the plots and the report of a run; gives the summary and report's path.

    Raises:
        UserError: the run holds no result at all, or a file in it is unusable.
    """
    run = Path(run)
    summary = build_summary(run)
    metrics = {stage: read_metrics(run / stage / "metrics.jsonl") for stage in METRIC_STAGES}
    responses, _ = read_responses(run / "evaluation" / "responses.jsonl")
    write_summary(run, summary)
    plots = make_plots(run / "plots", metrics, summary)
    path = run / "report.md"
    links = {name: plot.relative_to(run).as_posix() for name, plot in plots.items()}
    configs = [stage for stage in STAGES if (run / stage / "config.yaml").is_file()]
    name = run.resolve().name
    write_text(path, report_text(name, summary, metrics, links, responses, configs))
    return summary, path


def report_text(
    name: str,
    summary: dict[str, Any],
    metrics: Mapping[str, Metrics],
    plots: Mapping[str, str],
    responses: Sequence[Response],
    configs: Sequence[str] = (),
) -> str:
    """The report as Markdown.

    Args:
        name: of the run.
        summary: of `build_summary`.
        metrics: stage -> what `read_metrics` gave.
        plots: name -> link of a PNG.
        responses: of the evaluation, for the ten prompts.
        configs: the stages that left their settings in `<stage>/config.yaml`.
    """
    notes = summary["notes"] + [note for stage in metrics.values() for note in stage.notes]
    parts = [
        _header(name, summary, configs),
        _results(summary),
        _criteria_table(summary["evaluation"]),
        _health(summary, metrics, notes),
        _stages(summary["stages"], metrics),
        _curves(plots),
        side_by_side(responses, summary["seed"] or 0),
    ]
    return "\n\n".join("\n".join(part) for part in parts if part) + "\n"


def _header(name: str, summary: dict[str, Any], configs: Sequence[str]) -> list[str]:
    stages = summary["stages"]
    missing = [stage for stage in STAGES if stage not in stages and stage not in UNMISSED]
    versions = ", ".join(f"{package} {version}" for package, version in summary["versions"].items())
    lines = [
        f"# Run {cell(name)}",
        "",
        "Supervised fine-tuning, a reward model on ranked samples of that model, and PPO against "
        "it, after the ICE-GRT paper.",
        "",
        f"- stages: {', '.join(stages) or 'none finished'}"
        + (f" (without a result: {', '.join(missing)})" if missing else ""),
        f"- seed: {cell(fact(summary['seed'])) if summary['seed'] is not None else 'not recorded'}",
        f"- versions: {cell(versions) or 'not recorded'}",
        f"- time of all stages: {duration(summary['seconds_total'])}",
    ]
    if configs:
        links = ", ".join(f"[{stage}]({stage}/config.yaml)" for stage in configs)
        lines.append(f"- settings: {links}")
    who = _who_ranked(stages)
    if who["simulated"]:
        nobody = "" if who["people"] or who["unnamed"] else "; no person ranked anything"
        lines.append(f"- rankings: by *simulated* labelers (the rubric with noise){nobody}")
    if who["ai"]:
        names = ", ".join(map(str, who["ai"]))
        lines.append(f"- rankings: *AI feedback* by {cell(names)}, a language model, no person")
    return lines


def _results(summary: dict[str, Any]) -> list[str]:
    evaluation = summary["evaluation"]
    rows = [(name, "sampled", split) for name, split in splits_of(evaluation).items()]
    rows += [(name, "greedy", split) for name, split in evaluation.get("greedy", {}).items()]
    lines = ["## SFT against RLHF", ""]
    if not rows:
        return [*lines, "Left out: the run has no `evaluation/responses.jsonl`."]
    models = list(dict.fromkeys(model for *_, split in rows for model in blocks_of(split)))
    heads = " | ".join(cell(title(model)) for model in models)
    lines += [
        f"| split | decoding | prompts | {heads} | RLHF − SFT | wins / ties / losses | judge |",
        f"|---|---|--:|{'--:|' * len(models)}--:|--:|---|",
    ]
    for name, decoding, split in rows:
        digits = _digits(split["judge"])
        scores = [_score(split, model, digits) for model in models]
        difference, counts = "–", "–"
        if split["difference"] is not None:
            difference = _with_interval(
                split["difference"]["mean"], split["difference"]["ci95"], digits, sign=True
            )
            counts = f"{split['rlhf_wins']} / {split['ties']} / {split['rlhf_losses']}"
        judge = {"rubric": "rubric", "reward_model": "reward model"}.get(split["judge"], "none")
        cells = (cell(name), decoding, str(split["prompts"]), *scores, difference, counts, judge)
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "Rubric scores are 0–100. In brackets: 95% percentile bootstrap over prompts, each "
        "prompt's samples averaged first; the difference is paired by prompt. A win is a prompt "
        "whose mean is strictly higher for RLHF.",
    ]
    if any(split["judge"] == "reward_model" for *_, split in rows):
        lines += ["", f"**{REWARD_JUDGE_NOTE}**"]
    lines += _further(rows)
    lines += ["", "| split | decoding | model | responses | end by themselves | mean tokens |"]
    lines += ["|---|---|---|--:|--:|--:|"]
    for name, decoding, split in rows:
        for model, block in blocks_of(split).items():
            if block is not None:
                lines.append(
                    f"| {cell(name)} | {decoding} | {cell(title(model))} | {block['samples']} "
                    f"| {block['eos_rate']:.1%} | {block['mean_tokens']:.1f} |"
                )
    return lines


def _further(rows: Sequence[tuple[str, str, dict[str, Any]]]) -> list[str]:
    """Further contenders against SFT and RLHF, prompt by prompt."""
    lines, bounds = [], {}
    for split_name, decoding, split in rows:
        for name, block in split.get("further", {}).items():
            if "kl_bound" in block:
                bounds[name] = block["best_of"], block["kl_bound"]
            for model, against in block["against"].items():
                gap = against["difference"]
                shown = _with_interval(gap["mean"], gap["ci95"], _digits(split["judge"]), sign=True)
                counts = " / ".join(str(against[key]) for key in ("wins", "ties", "losses"))
                cells = (cell(split_name), decoding, cell(title(name)), title(model), shown, counts)
                lines.append(f"| {' | '.join(cells)} |")
    if lines:
        head = "| split | decoding | model | against | difference | wins / ties / losses |"
        lines = ["", head, "|---|---|---|---|--:|--:|", *lines]
    for name, (n, bound) in bounds.items():
        lines += [
            "",
            f"*{cell(title(name))}* is the SFT sample of {n} that the reward model scores highest: "
            "its reward is high by choice. Its KL to SFT is at most log n − (n − 1)/n = "
            f"{bound:.2f} nats a sequence, which is a bound and no measurement.",
        ]
    return lines


def _criteria_table(evaluation: dict[str, Any]) -> list[str]:
    """The paper's Table 3: a row a criterion, a column a model, the overall score last."""
    splits = {
        name: split
        for name, split in splits_of(evaluation).items()
        if any(block is not None and block["criteria"] for block in blocks_of(split).values())
    }
    if not splits:
        return []
    columns = [
        (f"{cell(name)} {cell(title(model))}", block or {})
        for name, split in splits.items()
        for model, block in blocks_of(split).items()
    ]
    names = list(dict.fromkeys(n for _, block in columns for n in block.get("criteria") or ()))
    heads = [head for head, _ in columns]
    lines = [
        "## The eight criteria",
        "",
        "Percent of the most points possible (0–2 a criterion), as in the paper's Table 3; sampled "
        "decoding. The overall score weights them with the *reconstructed* weights of "
        "`common/evaluation/criteria.py`.",
        "",
        f"| criterion | {' | '.join(heads)} |",
        f"|---|{'--:|' * len(heads)}",
    ]
    for name in names:
        values = [number((block.get("criteria") or {}).get(name)) for _, block in columns]
        lines.append(f"| {cell(name)} | {' | '.join(values)} |")
    overall = [number(block.get("overall")) for _, block in columns]
    return [*lines, f"| **overall** | {' | '.join(overall)} |"]


def _health(
    summary: dict[str, Any], metrics: Mapping[str, Metrics], notes: Sequence[str]
) -> list[str]:
    found = diagnose(summary, metrics)
    culprit = NAMES[found.culprit] if found.culprit else "nobody"
    lines = ["## Diagnosis", "", f"**{cell(found.verdict)}** At fault: **{culprit}**."]
    lines += ["", cell(found.because), "", "| stage | looked at | found | | meaning | try |"]
    lines += ["|---|---|---|---|---|---|"]
    for check in found.checks:
        level = _LEVELS[check.healthy]
        told = (check.value or "–", level, check.why, "" if check.healthy else check.try_)
        lines.append(f"| {' | '.join(map(cell, (NAMES[check.stage], check.name, *told)))} |")
    lines += [line for note in found.notes for line in ("", cell(note))]
    if notes:
        lines += ["", "Odd in the files:", ""]
        lines += [f"- {cell(note)}" for note in notes]
    return lines


def _stages(stages: Mapping[str, dict[str, Any]], metrics: Mapping[str, Metrics]) -> list[str]:
    lines = ["## Stage by stage"]
    for stage in STAGES:
        result = stages.get(stage)
        logged = stage in metrics and metrics[stage].series
        if result is None and stage in UNMISSED:
            continue
        lines += ["", f"### {_TITLES[stage]}", ""]
        if result is None:
            lines.append(
                "Not finished: it has metrics and no `result.json`."
                if logged
                else "Left out: no `result.json`."
            )
            continue
        if stage == "rank" and result.get("labelers") == "simulated":
            lines += ["The labelers are *simulated*: the rubric with noise.", ""]
        lines += ["| | |", "|---|---|"]
        for key, value in result.items():
            if key in ("accuracy_by_gap", "diagnostics"):
                continue
            shown = duration(value) if key == "seconds" and value is not None else fact(value)
            if key in _UNITS and value is not None:
                shown += f" ({_UNITS[key]})"
            label = "time" if key == "seconds" else key.replace("_", " ")
            lines.append(f"| {cell(label)} | {cell(shown)} |")
        if stage == "reward":
            lines += _reward_model(result)
    return lines


def _reward_model(result: Mapping[str, Any]) -> list[str]:
    lines = []
    if gaps := result.get("accuracy_by_gap"):
        rows = {
            gap: value if isinstance(value, dict) else {"accuracy": value}
            for gap, value in gaps.items()
        }
        columns = list(dict.fromkeys(column for row in rows.values() for column in row))
        lines += ["", f"| rank gap of the pair | {' | '.join(map(cell, columns))} |"]
        lines += [f"|--:|{'--:|' * len(columns)}"]
        for gap, row in rows.items():
            values = (cell(fact(row.get(column))) for column in columns)
            lines.append(f"| {cell(str(gap))} | {' | '.join(values)} |")
        lines += [
            "",
            "A pair's gap is how far apart the labelers' mean ranks put its two responses: wide "
            "gaps should be the easier ones.",
        ]
    if "diagnostics" in result:
        lines += [
            "",
            "[The diagnostics page](reward/diagnostics.html) shows its accuracy beside that of "
            "length alone and of the labelers themselves, its calibration, and its worst mistakes.",
        ]
    if "right_minus_wrong" in result:
        measured = result["right_minus_wrong"] is not None
        lines += [
            "",
            "*Right minus wrong* is the mean score of right answers minus that of wrong ones to "
            "the same prompts, over the deviation of the scores of SFT samples: it shows a reward "
            "model that rewards form over being right, which pair accuracy does not show."
            + ("" if measured else " It was not measured: it needs prompts whose truth is known."),
        ]
    return lines


def _curves(plots: Mapping[str, str]) -> list[str]:
    if not plots:
        return ["## Curves", "", "Left out: no metrics and no evaluation to draw."]
    lines = ["## Curves"]
    for name, link in plots.items():
        lines += ["", f"![{name.replace('_', ' ')}]({link})"]
    return lines


def _score(split: dict[str, Any], model: str, digits: int) -> str:
    block = blocks_of(split).get(model)
    if block is None:
        return "–"
    value, ci95 = judged(block, split["judge"])
    return _with_interval(value, ci95, digits)


def _with_interval(
    value: float | None, ci95: list[float] | None, digits: int, sign: bool = False
) -> str:
    if value is None or ci95 is None:
        return "–"
    low, high = (number(end, digits, sign) for end in ci95)
    return f"{number(value, digits, sign)} [{low}, {high}]"


def _digits(judge: str | None) -> int:
    return 2 if judge == "reward_model" else 1


def _who_ranked(stages: Mapping[str, dict[str, Any]]) -> Mapping[str, Any]:
    """Who ranked the pairs that were trained on, as `common.data.labelers` has it.

    Runs of earlier code noted only which stages ranked.
    """
    for stage in ("reward", "dpo"):
        if "labelers" in stages.get(stage, {}):
            return stages[stage]["labelers"]
    made = stages.get("pairs", {}).get("labelers", {}).get("of_pairs")
    if made:
        return made
    played = stages.get("rank", {}).get("labelers") == "simulated"
    asked = stages.get("ai_rank", {}).get("labelers") or []
    return {"people": [], "simulated": ["simulated"] * played, "ai": asked, "unnamed": 0}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m common.evaluation.report", description=__doc__)
    parser.add_argument("run", type=Path, help="the run directory")
    options = parser.parse_args(arguments)
    try:
        summary, path = write_report(options.run)
    except UserError as error:
        print(f"report: error: {error}", file=sys.stderr)
        return 2
    print(terminal_table(summary))
    print(f"report: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
