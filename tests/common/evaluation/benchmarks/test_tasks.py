"""Building tasks: shots that fit, what is left out, the hub, light imports, the catalogue."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import UserError
from common.evaluation.benchmarks.catalogue import (
    CATALOGUE,
    TABLE1,
    TABLE1_COLUMNS,
)
from common.evaluation.benchmarks.tasks import build_tasks


@pytest.fixture(scope="module")
def small(tmp_path_factory, makers):
    """MMLU, WinoGrande and GSM8K, and their facts."""
    folder = tmp_path_factory.mktemp("small")
    facts = [f for name in ("mmlu", "winogrande", "gsm8k") for f in makers[name](folder, False)]
    return folder, facts


@pytest.mark.parametrize(("mode", "name"), [("fathom", "mmlu"), ("harness", "winogrande")])
def test_whole_shots_are_dropped_from_the_front_until_the_prompt_fits(small, scripted, mode, name):
    folder, facts = small
    whole, _ = build_tasks([name], mode, folder, fits=None, subtasks=1)
    results = scripted.evaluate(scripted.ByFacts(facts, "right", mode), [whole[0].task])
    samples = results["samples"][whole[0].task.task_name]
    full = [sample["arguments"][0][0] for sample in samples]
    assert [whole[0].parsed(sample).shots_dropped for sample in samples] == [0] * len(samples)

    asked = []

    def fits(prompt, new):
        asked.append(new)
        return len(prompt) < len(full[0]) * 0.7

    cut, _ = build_tasks([name], mode, folder, fits=fits, subtasks=1)
    results = scripted.evaluate(scripted.ByFacts(facts, "right", mode), [cut[0].task])
    samples = results["samples"][cut[0].task.task_name]
    for before, sample in zip(full, samples, strict=True):
        prompt = sample["arguments"][0][0]
        dropped = cut[0].parsed(sample).shots_dropped
        head, *blocks = before.split("\n\n")
        if mode == "harness":  # no description before its examples
            head, blocks = None, [head, *blocks]
        kept = blocks[dropped:]
        assert prompt == "\n\n".join([head, *kept] if head else kept)
        assert 0 < dropped <= cut[0].shots
        assert cut[0].parsed(sample).correct
    assert set(asked) == {10 if mode == "fathom" else 0}


def test_nothing_fits_and_still_everything_is_asked(small, scripted):
    folder, facts = small
    tasks, _ = build_tasks(["gsm8k"], "fathom", folder, fits=lambda prompt, new: False)
    results = scripted.evaluate(scripted.ByFacts(facts, "right", "fathom"), [tasks[0].task])
    answers = scripted.parsed(results, tasks[0])
    assert [answer.shots_dropped for answer in answers] == [8, 8, 8]
    assert all(answer.correct for answer in answers)
    assert [answer.target for answer in answers] == ["18", "1050", "-3"]


def test_a_single_part_gives_its_first_row_as_the_example(tmp_path, makers, scripted):
    facts = makers["hellaswag"](tmp_path, True)
    (tmp_path / "hellaswag" / "hellaswag_train.jsonl").unlink()
    for mode in ("fathom", "harness"):
        (task,), _ = build_tasks(["hellaswag"], mode, tmp_path, fits=None)
        results = scripted.evaluate(scripted.ByFacts(facts, "right", mode), [task.task])
        samples = results["samples"][task.task.task_name]
        assert [task.parsed(sample).correct for sample in samples] == [True, True]
        for sample in samples:
            prompt = sample["arguments"][0][0]
            assert prompt.count("does swag val 0.") == 1
            assert prompt.count("does swag val") == 2
        assert "first 1 rows" in task.source


def test_what_is_not_there_is_left_out_with_a_reason(small):
    folder, _ = small
    tasks, left_out = build_tasks(["mmlu", "race_h"], "fathom", folder, fits=None)
    assert [task.subtask for task in tasks] == ["anatomy", "virology"]
    assert left_out[-1] == f"RACE-H: {folder} has no folder race_h/ or race_high/ or race/"
    assert f"MMLU, abstract_algebra: no local file of it in {folder}" in left_out
    few, _ = build_tasks(["mmlu"], "fathom", folder, fits=None, subtasks=1)
    assert [task.subtask for task in few] == ["anatomy"]
    assert (few[0].shots, few[0].origin) == (5, "ours")
    assert few[0].source.startswith("2 local files, sha256 ")


def test_the_source_changes_with_the_content(tmp_path, makers):
    makers["gsm8k"](tmp_path, False)
    build = lambda: build_tasks(["gsm8k"], "fathom", tmp_path, fits=None)[0][0].source  # noqa: E731
    before = build()
    path = next(tmp_path.rglob("test*.jsonl"))
    path.write_text(path.read_text(encoding="utf-8") + "\n", encoding="utf-8")
    assert build() != before
    assert before.startswith("2 local files, sha256 ")


@pytest.mark.parametrize(
    ("names", "mode", "data", "word"),
    [
        (["mmlu"], "fathom", Path("/nowhere/at/all"), "no such folder"),
        (["mlmu"], "fathom", None, "did you mean 'mmlu'"),
        (["mmlu"], "fahtom", None, "did you mean 'fathom'"),
    ],
)
def test_bad_arguments_are_refused(names, mode, data, word):
    with pytest.raises(UserError, match=word):
        build_tasks(names, mode, data, fits=None)


class _FromHub:
    """`datasets.load_dataset` of a hub that has ARC, kept in the cache as it keeps it."""

    def __init__(self, folder):
        self.folder, self.asked = folder, []

    def __call__(self, path, name=None):
        import datasets

        self.asked.append((path, name))
        if path != "allenai/ai2_arc":
            raise ConnectionError("no route")
        commit = "0123456789abcdef" * 2 + "01234567"
        cache = self.folder / "cache" / "allenai___ai2_arc" / name / "0.0.0" / commit
        cache.mkdir(parents=True, exist_ok=True)
        parts = datasets.DatasetDict()
        for part in ("train", "test"):
            lines = (self.folder / "ai2_arc" / name / f"{part}-0.jsonl").read_text("utf-8")
            file = str(cache / f"ai2_arc-{part}.arrow")
            rows = datasets.Dataset.from_list([json.loads(x) for x in lines.splitlines() if x])
            with datasets.arrow_writer.ArrowWriter(features=rows.features, path=file) as writer:
                writer.write_table(rows.data.table)
                writer.finalize()
            parts[part] = datasets.Dataset.from_file(file)
        return parts


def test_from_the_hub_the_revision_is_told(tmp_path, makers, monkeypatch, scripted):
    import datasets

    facts = makers["arc"](tmp_path, False)
    hub = _FromHub(tmp_path)
    monkeypatch.setattr(datasets, "load_dataset", hub)
    for mode, origin in (("fathom", "ours"), ("harness", "stock")):
        (task,), left_out = build_tasks(["arc_c"], mode, None, fits=None)
        assert not left_out
        assert task.origin == origin
        assert task.source == "allenai/ai2_arc@0123456789ab; examples from its part 'train'"
        results = scripted.evaluate(scripted.ByFacts(facts, "right", mode), [task.task])
        assert all(answer.correct for answer in scripted.parsed(results, task))
    assert set(hub.asked) == {("allenai/ai2_arc", "ARC-Challenge")}
    with pytest.raises(UserError, match="cannot be had from the hub.*--data"):
        build_tasks(["gsm8k"], "fathom", None, fits=None)


def _rows_from_hub(monkeypatch, **parts):
    """The hub has these rows, whatever is asked of it."""
    import datasets

    loaded = {part: datasets.Dataset.from_list(rows) for part, rows in parts.items()}
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name=None: loaded)


def test_an_odd_row_of_the_hub_is_told_with_its_place(monkeypatch):
    good = {"question": "What is it?", "answer": ["a dog"]}
    _rows_from_hub(
        monkeypatch, train=[good], validation=[good, good | {"answer": [""], "question": None}]
    )
    with pytest.raises(
        UserError, match=r"row 2 of its part 'validation' \(columns question, answer"
    ):
        build_tasks(["nq"], "fathom", None, fits=None)


@pytest.mark.parametrize(("name", "column"), [("nq", "answer"), ("webqs", "answers")])
def test_a_row_of_the_hub_without_an_answer_is_left_out_and_counted(monkeypatch, name, column):
    rows = [{"question": f"What is {i}?", column: [f"it is {i}"] if i else []} for i in range(4)]
    _rows_from_hub(monkeypatch, train=rows[1:2], validation=rows[:1] + rows[2:])
    ((task,), _) = build_tasks([name], "fathom", None, fits=None)
    assert "1 rows without a right answer left out" in task.source
    assert [doc["question"] for doc in task.task.eval_docs] == ["What is 2?", "What is 3?"]


@pytest.mark.parametrize("mode", ["fathom", "harness"])
def test_the_chinese_exam_of_english_is_asked_in_english(monkeypatch, mode):
    import datasets

    def load(path, name=None):
        """As AGIEval's own code and the hub have them."""
        rows = []
        for i in range(7):
            if path.endswith("mathcloze"):
                rows.append({"query": f"问题：{i}？\n答案：", "answer": str(i)})
                continue
            query = f"问题：哪个是{i}? 选项：(A)one (B)two\n答案：从A到B, 我们应选择"
            if path.endswith("gaokao-english"):
                query = f"Q: Which is {i}? Answer Choices: (A)one (B)two\nA: Among A through B, "
                query += "the answer is"
            rows.append({"query": query, "choices": ["(A)one", "(B)two"], "gold": [0]})
        return {"test": datasets.Dataset.from_list(rows)}

    monkeypatch.setattr(datasets, "load_dataset", load)
    tasks, _ = build_tasks(["agieval_zh"], mode, None, fits=None)
    tasks = {task.subtask: task.task for task in tasks}
    assert len(tasks) == 12
    for subtask, start in (("gaokao-english", "Question: Which"), ("gaokao-history", "问题：哪个")):
        prompt = tasks[subtask].doc_to_text(tasks[subtask].eval_docs[0])
        if mode == "harness":  # five are examples
            assert prompt == load(f"hails/agieval-{subtask}")["test"][5]["query"]
        else:
            assert prompt.startswith(start)


def test_each_question_that_is_scored_is_a_sign_of_life(small, scripted, monkeypatch):
    from common.training.watchdog import WATCHDOG

    folder, facts = small
    signs = []
    monkeypatch.setattr(WATCHDOG, "alive", lambda: signs.append(1))
    for mode, name in (("fathom", "gsm8k"), ("harness", "winogrande")):
        (task,), _ = build_tasks([name], mode, folder, fits=None)
        results = scripted.evaluate(scripted.ByFacts(facts, "right", mode), [task.task])
        (samples,) = results["samples"].values()
        assert len(samples) > 1
        signs.clear()
        for number, sample in enumerate(samples, 1):
            task.task.process_results(sample["doc"], sample["filtered_resps"])
            assert len(signs) == number


def test_the_words_in_common_are_kept_beside_the_match_and_read_again_alike(
    tmp_path, makers, scripted
):
    from common.evaluation.benchmarks.asking import read_again, row_of

    facts = makers["nq"](tmp_path, False)
    (task,), _ = build_tasks(["nq"], "fathom", tmp_path, fits=None)
    results = scripted.evaluate(scripted.ByFacts(facts, "right", "fathom"), [task.task])
    (samples,) = results["samples"].values()
    rows = [row_of(task, sample, set()) for sample in samples]
    assert [(row["score"], row["f1"]) for row in rows] == [(1.0, 1.0)] * len(samples)
    assert read_again(task, rows) == rows
    half = rows[0] | {"output": f"{rows[0]['output']} {' '.join(map(str, range(99)))}"}
    (read,) = read_again(task, [half])
    assert read["score"] == 0.0 and 0 < read["f1"] < 0.2 and read["shots"] == rows[0]["shots"]
    assert read_again(task, [rows[0] | {"index": len(samples)}]) is None


def test_light_modules_stay_light():
    code = (
        "import sys, common.evaluation.benchmarks.tasks as t; "
        "print([m for m in ('lm_eval', 'torch', 'datasets', 'sympy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_catalogue_has_the_papers_columns():
    assert tuple(name for name, b in CATALOGUE.items() if b.group == "table1") == TABLE1_COLUMNS
    assert len(CATALOGUE) == 15
    assert all(len(scores) == len(TABLE1_COLUMNS) == 12 for scores in TABLE1.values())
    assert CATALOGUE["race_h"].paper["ICE-GRT 13B"] == 71.64
    assert CATALOGUE["math"].paper["Llama2 70B"] == 3.72
    shots = {name: benchmark.shots for name, benchmark in CATALOGUE.items()}
    assert shots["mmlu"] == 5 and shots["bbh"] == 3 and shots["gsm8k"] == 8 and shots["math"] == 4
