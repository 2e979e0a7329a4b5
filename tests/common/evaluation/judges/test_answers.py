"""Which answers are judged."""

import pytest

from common.errors import UserError
from common.evaluation.judges.answers import questions_of
from common.evaluation.judges.arguments import AnswersArguments


def places(questions):
    return [(q.split, q.index) for q in questions]


def test_the_first_sample_of_each_model_to_each_prompt(answered):
    questions, note = questions_of(answered, AnswersArguments(), 0)
    assert note == "" and len(questions) == 8
    found = {(q.split, q.index): q for q in questions}
    assert found["seen", 2].prompt == "seen 2?"
    assert list(found["seen", 2].answers.items()) == [
        ("sft", "sft s2"),
        ("rlhf", "rlhf   s2"),
        ("best_of_4", "best of   s2"),
    ]


def test_a_limit_is_a_fair_choice_that_a_higher_one_adds_to(answered):
    drawn = [
        places(questions_of(answered, AnswersArguments(limit=n), 5)[0]) for n in (1, 2, 3, 4, 0)
    ]
    assert [len(p) for p in drawn] == [2, 4, 6, 8, 8]
    for fewer, more in zip(drawn, drawn[1:], strict=False):
        assert more[: len(fewer)] == fewer
    firsts = {
        tuple(places(questions_of(answered, AnswersArguments(limit=1), s)[0])) for s in range(12)
    }
    assert len(firsts) > 3
    assert all({split for split, _ in first} == {"seen", "general"} for first in firsts)


def test_a_model_without_greedy_answers_is_left_out_and_told(answered):
    questions, note = questions_of(answered, AnswersArguments(decoding="greedy"), 0)
    assert note == "best_of_4: no greedy answers, not judged"
    assert all(tuple(q.answers) == ("sft", "rlhf") for q in questions)
    assert all(a.startswith("greedy") for q in questions for a in q.answers.values())


def test_a_prompt_that_one_model_did_not_answer(tmp_path, row, write_responses):
    rows = [
        row("seen", i, m, "x") for i in range(3) for m in ("sft", "rlhf") if (i, m) != (1, "rlhf")
    ]
    questions, note = questions_of(write_responses(tmp_path, rows), AnswersArguments(), 0)
    assert sorted(places(questions)) == [("seen", 0), ("seen", 2)]
    assert note == "1 prompts that not all models answered are left out"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"models": ["rhlf"]}, "did you mean 'rlhf'"),
        ({"splits": ["sen"]}, "did you mean 'seen'"),
        ({"models": ["rlhf"]}, "at least two"),
        ({"decoding": "greedy", "models": ["sft", "best_of_4"]}, "at least two"),
    ],
)
def test_a_choice_that_leaves_nothing_to_compare(answered, settings, said):
    with pytest.raises(UserError, match=said):
        questions_of(answered, AnswersArguments(**settings), 0)


def test_a_run_without_answers(tmp_path):
    with pytest.raises(UserError, match="run the evaluation first"):
        questions_of(tmp_path, AnswersArguments(), 0)
