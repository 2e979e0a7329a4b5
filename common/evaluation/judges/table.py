"""`RUN/evaluation/criteria.json` and `.md`: the paper's Table 3 of a run, by each of its judges."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data.encoding import describe
from common.errors import UserError
from common.evaluation.contenders import in_order, title
from common.evaluation.criteria import CRITERIA, MAX_POINTS
from common.evaluation.formatting import cell, fact, number
from common.evaluation.judges.answers import mark_of, responses_of
from common.evaluation.judges.judgements import (
    Judged,
    Judgement,
    Rating,
    read_judgements,
    still_there,
    title_of,
)
from common.evaluation.judges.paper import SOURCE, table_3
from common.evaluation.judges.scores import block_of
from common.evaluation.run_files import DECODINGS, Response
from common.files import write_json, write_text

SCALE = f"percent of the most points possible, of 0 to {MAX_POINTS:g} on each criterion"
INTERVAL = (
    "95% percentile bootstrap over prompts; where all prompts have the same value, by the share of "
    "others that so many prompts can have missed"
)
RUBRIC = "rubric"
ROWS = (*CRITERIA, "overall")


def write_criteria(run: Path, weights_name: str, weights: Mapping[str, float], seed: int) -> Path:
    """Writes both files, out of all judgements of the run; the path of the Markdown.

    Raises:
        UserError: the run has no answers, or nobody judged them.
    """
    content = build_criteria(run, weights_name, weights, seed)
    folder = run / "evaluation"
    write_json(folder / "criteria.json", content)
    write_text(folder / "criteria.md", markdown(content))
    return folder / "criteria.md"


def build_criteria(
    run: Path, weights_name: str, weights: Mapping[str, float], seed: int
) -> dict[str, Any]:
    """The content of `criteria.json`.

    `weights` (`name`, `values`), `scale`, `interval`, `paper` (`source`, `models`), and `judges`, a
    list. Each judge has `title`, `kind`, `name`, `labelers`, `decoding`, `prompts` (judged, over
    all splits), `facts`, `told` (the facts in words), `notes`, and `splits`: name -> what
    `block_of` returns, with all of them pooled under `all` where there are several.

    Raises:
        UserError: as `write_criteria`.
    """
    responses = responses_of(run)
    marks: dict[tuple[str, int, str], set[str]] = defaultdict(set)
    for row in responses:
        marks[row.split, row.index, row.model].add(mark_of(row.response))
    judgements = [*rubric_judgement(responses), *read_judgements(run)]
    judges = []
    for judgement in judgements:
        prompts, notes = list(judgement.prompts), []
        if judgement.kind != "rubric":
            prompts = still_there(judgement, marks)
        if gone := len(judgement.prompts) - len(prompts):
            notes.append(
                f"{gone} of {len(judgement.prompts)} judged prompts are left out: the evaluation "
                "was done anew, and has other answers to them now"
            )
        judges.append(_judge(judgement, prompts, notes, weights, seed))
    if not judges:
        raise UserError(
            f"{run}: nobody has judged its answers: the embedded rubric knows none of the prompts, "
            "and there are no judgements of people or of an AI judge (launch/judge.sh makes them)"
        )
    return {
        "weights": {"name": weights_name, "values": dict(weights)},
        "scale": SCALE,
        "interval": INTERVAL,
        "paper": {"source": SOURCE, "models": table_3(weights)},
        "judges": judges,
    }


def rubric_judgement(responses: Sequence[Response]) -> list[Judgement]:
    """The embedded domain's rubric, which scored the answers when they were made; or none.

    All sampled answers count, a prompt's samples averaged first; greedy ones where none are
    sampled.
    """
    for decoding in reversed(sorted(DECODINGS)):
        rows = [r for r in responses if r.decoding == decoding and r.criteria]
        if rows:
            by_prompt: dict[tuple[str, int], list[Rating]] = defaultdict(list)
            for row in rows:
                rating = Rating(row.model, RUBRIC, row.criteria)
                by_prompt[row.split, row.index].append(rating)
            prompts = tuple(
                Judged(split, index, {r.model: "" for r in ratings}, tuple(ratings))
                for (split, index), ratings in by_prompt.items()
            )
            return [Judgement("rubric", RUBRIC, 1, decoding, prompts)]
    return []


def markdown(content: Mapping[str, Any]) -> str:
    """`criteria.md`."""
    weights = content["weights"]
    shown = ", ".join(f"{name} {value:g}" for name, value in weights["values"].items())
    lines = [
        "# The eight criteria",
        "",
        f"In {content['scale']}; in brackets: {content['interval']}. Overall: the mean weighed by "
        f"the *{weights['name']}* weights: {shown}. The columns on the right are "
        f"{content['paper']['source']}.",
    ]
    for judge in content["judges"]:
        lines += ["", f"## By {cell(judge['title'])}", ""]
        lines.append(f"{judge['prompts']} prompts; {_which(judge)}.")
        lines += [f"{cell(note)}." for note in judge["notes"]]
        if judge["told"]:
            lines += [f"{cell(judge['told'])}."]
        for split, block in judge["splits"].items():
            lines += ["", f"### {cell(split)}, {block['prompts']} prompts", ""]
            lines += _table(block, content["paper"]["models"])
            if block["pairs"]:
                lines += ["", *_pairs(block["pairs"])]
    return "\n".join(lines) + "\n"


def in_words(facts: Mapping[str, Any]) -> str:
    """A judge's facts as one line of text."""
    shown = {k.replace("_", " "): v for k, v in facts.items() if v not in (None, {}, [], 0, "")}
    if "left out" in shown:
        shown["left out"] = describe(facts["left_out"])
    return "; ".join(f"{name}: {fact(value)}" for name, value in shown.items())


def _judge(
    judgement: Judgement,
    prompts: Sequence[Judged],
    notes: list[str],
    weights: Mapping[str, float],
    seed: int,
) -> dict[str, Any]:
    models = in_order(model for p in prompts for model in p.marks)
    by_split: dict[str, list[Judged]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda p: (p.split, p.index)):
        by_split[prompt.split].append(prompt)
    groups = dict(by_split)
    if len(groups) > 1:
        groups["all"] = [prompt for group in by_split.values() for prompt in group]
    return {
        "title": title_of(judgement.kind, judgement.name, judgement.labelers),
        "kind": judgement.kind,
        "name": judgement.name,
        "labelers": judgement.labelers,
        "decoding": judgement.decoding,
        "prompts": len(prompts),
        "facts": judgement.facts,
        "told": in_words(judgement.facts),
        "notes": notes,
        "splits": {name: block_of(group, models, weights, seed) for name, group in groups.items()},
    }


def _which(judge: Mapping[str, Any]) -> str:
    """Which of a model's answers to a prompt were judged."""
    if judge["decoding"] == "greedy":
        return "greedy answers"
    return "all sampled answers" if judge["kind"] == "rubric" else "first sampled answers"


def _table(block: Mapping[str, Any], paper: Mapping[str, Mapping[str, float]]) -> list[str]:
    models = block["models"]
    heads = [
        "criterion",
        *(cell(title(model)) for model in models),
        *(f"{model} (paper)" for model in paper),
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name in ROWS:
        own = [_score(rows[name], block["prompts"]) for rows in models.values()]
        cells = [*own, *(number(rows[name]) for rows in paper.values())]
        if name == "overall":
            name, cells = "**overall**", [f"**{text}**" for text in cells]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _score(row: Mapping[str, Any], prompts: int) -> str:
    """A mean with its interval; on how many prompts, where not on all."""
    if row["mean"] is None:
        return number(None)
    fewer = f", {row['prompts']} prompts" if row["prompts"] < prompts else ""
    return f"{row['mean']:.1f} [{row['ci95'][0]:.1f}, {row['ci95'][1]:.1f}]{fewer}"


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = [
        "| pair | by | wins / ties / losses | win rate, ties count half | difference, points |",
        "| --- | --- | ---: | ---: | ---: |",
    ]
    notes = []
    for pair in pairs:
        names = f"{cell(title(pair['model']))} against {cell(title(pair['other']))}"
        low, high = (100 * x for x in pair["ci95"])
        difference = number(None)
        if pair["by"] == "score":
            a, b = pair["difference_ci95"]
            difference = f"{pair['difference']:+.1f} [{a:+.1f}, {b:+.1f}]"
        lines.append(
            f"| {names} | {pair['by']} | {pair['wins']} / {pair['ties']} / {pair['losses']} | "
            f"{100 * pair['win_rate']:.1f}% [{low:.1f}, {high:.1f}] | {difference} |"
        )
        if pair.get("asked"):
            notes.append(
                f"{names}: of {pair['asked']} comparisons {pair['consistent']:.0%} had one verdict "
                f"in both orders; in {pair['first_preferred']:.0%} the answer won that was shown "
                f"first, in {pair['second_preferred']:.0%} the one shown second, whichever it was."
            )
    if notes:
        notes.insert(0, "Verdicts that differ between the orders count as ties.")
    return lines + [""] * bool(notes) + notes
