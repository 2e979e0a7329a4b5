"""The positive control: a model that knows every answer scores 1.0, one that errs 0."""

import pytest

from common.evaluation.benchmarks.catalogue import CATALOGUE
from common.evaluation.benchmarks.tasks import build_tasks


@pytest.mark.parametrize("mode", ["fathom", "harness"])
def test_right_wrong_and_unreadable_answers(data, mode, scripted, no_network):
    folder, facts = data
    tasks, left_out = build_tasks(list(CATALOGUE), mode, folder, fits=None)
    assert {task.benchmark for task in tasks} == set(CATALOGUE)
    assert all("no local file" in line for line in left_out)
    expected = {"right": 1.0, "wrong": 0.0} | ({"noise": 0.0} if mode == "fathom" else {})
    for manner, score in expected.items():
        model = scripted.ByFacts(facts, manner, mode)
        results = scripted.evaluate(model, [task.task for task in tasks])
        for task in tasks:
            answers = scripted.parsed(results, task)
            where = (task.benchmark, task.subtask, manner, answers)
            assert len(answers) >= 1, where
            assert all(answer.correct == (score == 1.0) for answer in answers), where
            logged = results["samples"][task.task.task_name]
            assert [sample[task.metric] for sample in logged] == [score] * len(answers), where
            if mode == "fathom":
                unparsed = manner == "noise"
                assert all(answer.unparsed == unparsed for answer in answers), where
                assert all((answer.answer is None) == unparsed for answer in answers), where
