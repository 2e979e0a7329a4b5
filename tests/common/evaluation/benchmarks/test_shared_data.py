"""The positive control on other people's files, where they are at hand; read here a second time."""

import json
import os
from pathlib import Path

import pytest

from common.evaluation.benchmarks.tasks import build_tasks

DATA = Path(os.environ.get("RLHF_DATA", "../shared/data")) / "benchmarks"
LIMIT = 4
NAMES = ["mmlu", "agieval", "bbh", "agieval_zh", "arc_e", "arc_c", "hellaswag", "gsm8k"]

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"{DATA} is not there (RLHF_DATA names the folder above it)"
)


def _lines(path):
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def _letter(index):
    return "ABCDEFGH"[index]


def _answers(benchmark, subtask):
    """The right answers of a part's first questions, by file order."""
    if benchmark == "mmlu":
        rows = _lines(DATA / "mmlu" / "test" / f"{subtask}.jsonl")
        return [(_letter(row["answer"]), _letter(row["answer"])) for row in rows]
    if benchmark.startswith("agieval"):
        rows = _lines(DATA / "agieval" / "data" / "v1" / f"{subtask}.jsonl")
        found = []
        for row in rows:
            label = row["label"] or []
            letters = [c for c in "".join(label) if c.isalpha()]
            if row["options"] and letters:
                found.append(("".join(letters), letters))
            elif not row["options"]:
                found.append((row["answer"], row["answer"]))
        return found
    if benchmark == "bbh":
        text = (DATA / "bbh" / "bbh" / f"{subtask}.json").read_text(encoding="utf-8")
        targets = [row["target"] for row in json.loads(text)["examples"]]
        return [(f"So the answer is {target}.", f"the answer is {target}.") for target in targets]
    if benchmark.startswith("arc"):
        level = {"arc_e": "easy", "arc_c": "challenge"}[benchmark]
        rows = _lines(DATA / "arc" / "gpt_fathom" / f"samples_{level}.jsonl")
        return [(_letter(row["answer"]), row["choices"][row["answer"]]) for row in rows]
    if benchmark == "hellaswag":  # the first row is the example
        rows = _lines(DATA / "hellaswag" / "hellaswag_val_first1000.jsonl")[1:]
        return [(_letter(int(row["label"])), int(row["label"])) for row in rows]
    rows = _lines(DATA / "gsm8k" / "test.jsonl")
    return [[f"The answer is {row['answer'].split('#### ')[1]}."] * 2 for row in rows]


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fathom", "harness"])
def test_a_model_that_knows_the_files_scores_one(mode, scripted, no_network):
    tasks, left_out = build_tasks(NAMES, mode, DATA, fits=None)
    assert not left_out
    assert len(tasks) == 57 + 9 + 27 + 12 + 4
    known = {t.task.task_name: _answers(t.benchmark, t.subtask)[:LIMIT] for t in tasks}

    class Knows(scripted.ByFacts):
        def generate_until(self, requests, disable_tqdm=False):
            return [self._says(request) for request in requests]

        def _says(self, request):
            generated, likely = known[request.task_name][request.doc_id]
            return generated if mode == "fathom" else likely

        def loglikelihood(self, requests, disable_tqdm=False):
            scores = []
            for request in requests:
                _, likely = known[request.task_name][request.doc_id]
                if isinstance(likely, int):
                    right = request.idx == likely
                elif isinstance(likely, list):
                    right = _letter(request.idx) in likely
                elif len(likely) == 1 and request.task_name.startswith("mmlu"):
                    right = request.args[1].strip() == likely
                else:
                    right = request.args[1].strip() == likely.strip()
                scores.append((0.0 if right else -100.0, right))
            return scores

    results = scripted.evaluate(Knows([], "right", mode), [t.task for t in tasks], limit=LIMIT)
    for task in tasks:
        logged = results["samples"][task.task.task_name]
        assert len(logged) == LIMIT
        assert [sample[task.metric] for sample in logged] == [1.0] * LIMIT, (task.subtask, logged)
        assert not any(task.parsed(sample).unparsed for sample in logged)
