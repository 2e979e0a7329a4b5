"""Mode "harness": lm-evaluation-harness's own definitions, on rows that are at hand.

Prompts, choices, filters and metrics are those of its YAML files; what changes is where the rows
come from, the paper's number of shots, and that one filter is kept where there are two. RACE-M
(there is `race` for RACE-H only) and AGIEval with examples are no stock tasks: these take over the
stock one's definition, and are "ours".

This module imports lm_eval, which takes seconds: import it inside functions.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lm_eval.tasks
from lm_eval.tasks._yaml_loader import load_yaml

from common.evaluation.benchmarks.catalogue import AGIEVAL_CHINESE, AGIEVAL_CLOZE, CATALOGUE
from common.evaluation.benchmarks.equivalence import same_expression
from common.evaluation.benchmarks.files import Row
from common.evaluation.benchmarks.fitted import FittedTask
from common.evaluation.benchmarks.parsing import LETTERS, boxed, expression, short_expression
from common.evaluation.benchmarks.shown import minerva_examples
from common.evaluation.benchmarks.tasks import Fits

_YAML = {
    "mmlu": "mmlu/default/mmlu_{subtask}.yaml",
    "agieval": "agieval/{subtask}.yaml",
    "agieval_zh": "agieval/{subtask}.yaml",
    "bbh": "bbh/cot_fewshot/{subtask}.yaml",
    "arc_e": "arc/arc_easy.yaml",
    "arc_c": "arc/arc_challenge.yaml",
    "hellaswag": "hellaswag/hellaswag.yaml",
    "winogrande": "winogrande/default.yaml",
    "race_m": "race/race.yaml",
    "race_h": "race/race.yaml",
    "gsm8k": "gsm8k/gsm8k-cot.yaml",
    "math": "minerva_math/minerva_math_{subtask}.yaml",
    "nq": "nq_open/nq_open.yaml",
    "webqs": "webqs/webqs.yaml",
    "lambada": "lambada/lambada_openai.yaml",
}
"""Benchmark -> the file that defines it, below lm_eval's folder of tasks."""

_SHORT = {
    "counting_and_probability": "counting_and_prob",
    "number_theory": "num_theory",
    "precalculus": "precalc",
}
"""MATH's subjects that the harness abbreviates."""

_OWN_EXAMPLES = ("bbh", "gsm8k", "math")
"""Stock definitions that bring their examples along."""

_KEPT_FILTER = {"gsm8k": "strict-match"}
"""Which filter's score counts; with two, each question would be logged twice."""


_REMARKS = {
    "race_m": "asks the last question of each passage, as the stock race does",
    "race_h": "asks the last question of each passage, as the stock race does",
    "webqs": "its examples show the first accepted answer (the stock webqs fails with examples)",
}


@dataclass(frozen=True)
class Definition:
    """A stock definition, made ready for rows at hand.

    Attributes:
        config: as lm_eval takes it.
        metric: the score that counts: "acc_norm" where it is defined so (ARC, HellaSwag), and
            MATH's "math_verify".
        stock: whether it is lm_eval's own task, and not one of ours after it.
        remark: what a reader of its scores should know, or why it is not stock; else "".
    """

    config: dict[str, Any]
    metric: str
    stock: bool
    remark: str = ""


def standard_examples(name: str, subtask: str) -> tuple[list[Row], str]:
    """The examples that everybody shows for BBH, GSM8K and MATH, and BBH's description."""
    if name == "math":
        return minerva_examples(), ""
    if name not in _OWN_EXAMPLES:
        return [], ""
    config = _stock_config(name, subtask)
    return config["fewshot_config"]["samples"], str(config.get("description", "")).strip()


def harness_task(
    name: str, subtask: str, asked: list[Row], pool: list[Row], shots: int, fits: Fits | None
) -> tuple[FittedTask, Definition]:
    """The task of one part, by the harness's definition.

    Args:
        name: a key of `CATALOGUE`.
        subtask: one of its parts, or its own name.
        asked: rows of the questions, under the hub's columns.
        pool: rows that its sampler draws examples from.
        shots: examples before each question.
        fits: as in `FittedTask`.
    """
    definition = _definition(name, subtask)
    if name not in _OWN_EXAMPLES:
        asked, pool = _rows_for(name, subtask, asked), _rows_for(name, subtask, pool)
    shots = min(shots, len(pool)) if name not in _OWN_EXAMPLES else shots
    parts = {"asked": asked} | ({"shown": pool} if shots and name not in _OWN_EXAMPLES else {})
    splits = _splits(definition.config, parts, spare=len(pool) > shots)
    config = definition.config | splits | {"num_fewshot": shots}
    return FittedTask(config, parts, fits), definition


def _stock_config(name: str, subtask: str) -> dict[str, Any]:
    """A YAML file with its includes and functions, without the keys that only group tasks."""
    folder = Path(lm_eval.tasks.__file__).parent
    path = folder / _YAML[name].format(subtask=_SHORT.get(subtask, subtask))
    config = load_yaml(path)
    return {key: config[key] for key in config if key not in ("tag", "group", "task_list")}


def _splits(
    config: Mapping[str, Any], parts: Mapping[str, Any], spare: bool
) -> dict[str, str | None]:
    """Names our splits: "asked" where the definition has its test (or validation) split.

    Examples stand where it has them, too. Where neither a test split nor one for examples is named
    (HellaSwag, WinoGrande, NQ), lm_eval takes them for the same, draws one example too many and
    discards it; so it needs a spare one, and without it the examples are named as such.
    """
    asks = "test_split" if config.get("test_split") else "validation_split"
    names = dict.fromkeys(("training_split", "validation_split", "test_split", "fewshot_split"))
    names |= {asks: "asked", "dataset_name": None, "dataset_kwargs": None}
    if "shown" in parts:
        own = config.get("fewshot_split") or not config.get("training_split") or not spare
        names["fewshot_split" if own else "training_split"] = "shown"
    return names


def _definition(name: str, subtask: str) -> Definition:
    if name in ("agieval", "agieval_zh"):
        return _agieval(name, subtask)
    if name == "math":
        return _math(subtask)
    config = _stock_config(name, subtask)
    if name in _KEPT_FILTER:
        filters = config["filter_list"]
        config["filter_list"] = [f for f in filters if f["name"] == _KEPT_FILTER[name]]
    if name == "race_m":  # there is a stock task for the other half only
        config["task"] = "race_middle"
    if name == "lambada":  # its perplexity, exp of a mean, overflows for a model that knows nothing
        config["metric_list"] = [m for m in config["metric_list"] if m["metric"] == "acc"]
    if name == "webqs":  # with a list of indices as target, its examples would have no text
        config["fewshot_config"] = {"doc_to_target": lambda row: sorted(row["answers"])[0]}
    metrics = [metric["metric"] for metric in config["metric_list"]]
    return Definition(
        config,
        metric="acc_norm" if "acc_norm" in metrics else metrics[0],
        stock=bool(CATALOGUE[name].stock),
        remark=_REMARKS.get(name, ""),
    )


def _agieval(name: str, subtask: str) -> Definition:
    """The stock zero-shot definition with examples before it.

    Expressions are compared by value here: the stock scoring reads a right answer without dollars,
    such as \\frac{3}{4}, as its last number.
    """
    config = _stock_config(name, subtask)
    config["task"] = f"agieval_{subtask.replace('-', '_')}_few_shot"
    if subtask in AGIEVAL_CLOZE:
        space = "" if subtask in AGIEVAL_CHINESE else " "
        config |= {"target_delimiter": space, "fewshot_config": {"sampler": "first_n"}}
        config["generation_kwargs"] = config["generation_kwargs"] | {"until": ["Q:", "问题："]}
        config["process_results"] = _cloze_score
    else:
        config["fewshot_config"] = {"sampler": "first_n", "doc_to_target": _letters_of_gold}
    return Definition(config, "acc", stock=False)


def _cloze_score(doc: Row, results: Sequence[str]) -> dict[str, float]:
    answer = short_expression(results[0])
    return {"acc": float(answer is not None and same_expression(answer, doc["answer"]))}


def _letters_of_gold(row: Row) -> str:
    return "".join(LETTERS[i] for i in row["gold"])


def _math(subtask: str) -> Definition:
    """Minerva's definition, or ours after it where the harness's cannot be loaded."""
    try:
        config = _stock_config("math", subtask)
    except (AssertionError, ImportError) as error:  # it wants one version of antlr's runtime
        logging.getLogger(__name__).debug("minerva_math: %s", error)
        return Definition(
            {
                "task": f"math_{subtask}",
                "output_type": "generate_until",
                "test_split": "test",
                "doc_to_text": lambda row: f"Problem:\n{row['problem']}\n\nSolution:",
                "doc_to_target": lambda row: boxed(row["solution"]) or "",
                "process_results": _math_score,
                "generation_kwargs": {"until": ["Problem:"], "do_sample": False, "temperature": 0},
                "metric_list": [
                    {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
                ],
                "fewshot_config": {
                    "sampler": "first_n",
                    "samples": minerva_examples(),
                    "doc_to_target": lambda row: row["solution"],
                },
            },
            "exact_match",
            stock=False,
            remark="the stock minerva_math cannot be loaded; it needs math-verify[antlr4_11_0]",
        )
    return Definition(config, "math_verify", stock=True)


def _math_score(doc: Row, results: Sequence[str]) -> dict[str, float]:
    answer, target = expression(results[0]), boxed(doc["solution"]) or ""
    return {"exact_match": float(answer is not None and same_expression(answer, target))}


def _rows_for(name: str, subtask: str, rows: list[Row]) -> list[Row]:
    """Rows under the columns of the data set that the stock definition reads."""
    if name in ("race_m", "race_h"):
        return _race_passages(rows)
    if name in ("agieval", "agieval_zh"):
        return [_agieval_query(row, subtask in AGIEVAL_CHINESE) for row in rows]
    return rows


def _race_passages(rows: list[Row]) -> list[Row]:
    """A row a passage, with its questions as Python's text; the last of them is what is asked."""
    passages: dict[str, list[Row]] = {}
    for row in rows:
        problem = {key: row[key] for key in ("question", "options", "answer")}
        passages.setdefault(row["article"], []).append(problem)
    return [{"article": a, "problems": repr(problems)} for a, problems in passages.items()]


def _agieval_query(row: Row, chinese: bool) -> Row:
    """AGIEval's zero-shot prompt, which the hub has as `query`."""
    passage, last = row["passage"], LETTERS[max(len(row["options"]) - 1, 0)]
    options = [f"({letter}){text}" for letter, text in zip(LETTERS, row["options"], strict=False)]
    if not options:
        form = "{}问题：{}\n答案：" if chinese else "{}Q: {}\nA: The answer is"
        return {"query": form.format(passage, row["question"]), "answer": row["answer"]}
    form = (
        "{}问题：{} 选项：{}\n答案：从A到{}, 我们应选择"
        if chinese
        else "{}Q: {} Answer Choices: {}\nA: Among A through {}, the answer is"
    )
    query = form.format(passage, row["question"], " ".join(options), last)
    return {
        "query": query,
        "choices": options,
        "gold": [LETTERS.index(letter) for letter in row["labels"]],
    }
