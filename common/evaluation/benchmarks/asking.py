"""Puts one part of a benchmark to a model, through lm-evaluation-harness."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

from common.evaluation.benchmarks.model import PolicyLM
from common.evaluation.benchmarks.storage import Row
from common.evaluation.benchmarks.tasks import BenchmarkTask


def ask(part: BenchmarkTask, model: PolicyLM, limit: int = 0) -> list[Row]:
    """Every question of a part, answered and judged. A collective.

    `simple_evaluate` does the same, and looks up all about the machine each time, which takes
    longer than a small part's questions.

    Args:
        limit: the first so many questions; 0 takes all.

    Returns:
        rows in the order of the questions, the same on every rank: index, question, prompt_hash,
        prompt_cut (whether it lost its beginning), output (the text; or each choice's
        log-likelihood in nats, and whether it is the greedy one), answer, target, correct,
        unparsed, score (0 to 1), shots (in the prompt), shots_dropped; f1 (0 to 1) of phrases.
    """
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    model.cut.clear()
    with quiet_harness():
        loaded = TaskManager(include_defaults=False).load([part.task])
        for task in loaded["tasks"].values():  # what `simple_evaluate` does to them
            if task.get_config("num_fewshot") is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=1234)
        found = evaluate(
            lm=model, task_dict=loaded, limit=limit or None, bootstrap_iters=0, log_samples=True
        )
    (samples,) = found["samples"].values()
    return [row_of(part, s, model.cut) for s in sorted(samples, key=lambda s: s["doc_id"])]


def read_again(part: BenchmarkTask, rows: Sequence[Row]) -> list[Row] | None:
    """Kept rows as they are read now: the parsers may have learned since.

    Returns:
        None where other questions are asked now. In mode "harness" the rows as they are.
    """
    if part.mode != "fathom":
        return list(rows)
    docs = part.task.eval_docs
    found = []
    for row in rows:
        doc = docs[row["index"]] if row["index"] < len(docs) else None
        if doc is None or question_of(part.task, doc, "") != row["question"]:
            return None
        known = {"doc": doc, "resps": [[row["output"]]], "target": row["target"]}
        scores = part.task.process_results(doc, [row["output"]])
        found.append(row | verdict(part, known | scores | {"shots_dropped": row["shots_dropped"]}))
    return found


def row_of(part: BenchmarkTask, sample: dict[str, Any], cut: set[str]) -> Row:
    """What is kept of one question; `cut`: prompts that lost their beginning."""
    requests = [arguments[0] for arguments in sample["arguments"]]
    prompt = requests[0]
    answers = [answer for resps in sample["resps"] for answer in resps]
    output = answers[0] if isinstance(answers[0], str) else [list(a) for a in answers]
    return {
        "index": sample["doc_id"],
        "question": question_of(part.task, sample["doc"], prompt),
        "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
        "prompt_cut": any(text in cut for text in requests),
        "output": output,
        **verdict(part, sample),
    }


def verdict(part: BenchmarkTask, sample: dict[str, Any]) -> Row:
    """What an output says, and whether that is right."""
    parsed = part.parsed(sample)
    return {
        "answer": parsed.answer,
        "target": parsed.target,
        "correct": bool(parsed.correct),
        "unparsed": bool(parsed.unparsed),
        "score": float(sample[part.metric]),
        "shots": part.shots - parsed.shots_dropped,
        "shots_dropped": parsed.shots_dropped,
        **({"f1": float(sample["f1"])} if "f1" in sample else {}),
    }


def question_of(task: Any, doc: Any, prompt: str) -> str:
    """The question without its worked examples, where the task has it in one piece."""
    text = task.doc_to_text(doc)
    return text if isinstance(text, str) else prompt[-1000:]


@contextlib.contextmanager
def quiet_harness() -> Iterator[None]:
    """Without the harness's own progress bars and log lines: a run has one bar."""
    import lm_eval.api.task as module

    logger = logging.getLogger("lm_eval")
    level, bar = logger.level, module.tqdm
    logger.setLevel(logging.ERROR)
    module.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        logger.setLevel(level)
        module.tqdm = bar
