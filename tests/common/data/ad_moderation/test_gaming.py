"""Attacks on the rubric: each must score below 50 where the honest full answer has 95 and more."""

import random

import pytest

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.answers import full, terse, true_belief
from common.data.ad_moderation.general import draw_general, full_answers
from common.data.ad_moderation.rubric import overall
from common.data.ad_moderation.tasks import QUESTIONS, draw_task

LIMIT = 50.0
TASKS = [
    draw_task(random.Random(f"gaming/{name}/{i}"), "seen", name=name)
    for name in QUESTIONS
    for i in range(40)
]
GENERAL = [draw_general(random.Random(f"gaming/general/{i}")) for i in range(100)]
NAMES = list(words.POLICIES)
REASONS = " and ".join(policy.reason for policy in words.POLICIES.values())


def honest(task):
    return full(task.facts["task"], true_belief(task.facts), 0)


ATTACKS = {
    "nothing": lambda task: "",
    "dots": lambda task: "... !!",
    "every policy": lambda task: f"It breaks the {', '.join(NAMES)} policies.",
    "every policy and reason": lambda task: (
        f"It breaks the {' and '.join(NAMES)} policies because it {REASONS}."
    ),
    "a policy per sentence": lambda task: " ".join(
        f"It breaks the {name} policy." for name in NAMES[:4]
    ),
    "yes and no": lambda task: "Yes and no.",
    "both verdicts": lambda task: f"Yes, it may run. No, it may not run. {honest(task)}",
    "key words": lambda task: "policy reason words because cure money data yes no run new ad",
    "looping answer": lambda task: " ".join([honest(task)] * 3),
    "looping sentence": lambda task: " ".join(["It breaks the rules."] * 8),
    "looping word": lambda task: "policy " * 20,
    "the ad": lambda task: task.facts["ad"],
    "the quoted ad": lambda task: f'"{task.facts["ad"]}"',
    "the ad reported": lambda task: f'The ad says "{task.facts["ad"]}"',
    "the question": lambda task: task.facts["question"],
    "the prompt": lambda task: task.prompt,
    "small talk": lambda task: "I like the sea and the sun.",
    "a general answer": lambda task: "The capital of France is Paris.",
}


def test_honest_answers_are_near_perfect():
    assert min(overall(honest(task), task.facts) for task in TASKS) >= 95
    for task in GENERAL:
        for text in full_answers(task.facts, task.facts["answer"]):
            assert overall(text, task.facts) >= 95, text


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
def test_attacks_score_low(attack):
    for task in TASKS:
        assert overall(attack(task), task.facts) < LIMIT, (task.prompt, attack(task))


def test_answering_another_task_scores_low():
    for task in TASKS:
        if not task.facts["violations"]:
            continue  # "no policy" and "it may run" say the same of a clean ad
        belief = true_belief(task.facts)
        for other in set(QUESTIONS) - {task.facts["task"]}:
            text = terse(other, belief) if other == "compliance" else full(other, belief, 0)
            assert overall(text, task.facts) < LIMIT, (task.prompt, text)


def test_word_salad_scores_low():
    """The words of the perfect answer in a random order; a few orders make sense by chance."""
    survivors, total = 0, 0
    for task in TASKS:
        for attempt in range(5):
            shuffled = honest(task).replace(".", "").replace(",", "").split()
            random.Random(f"{task.prompt}/{attempt}").shuffle(shuffled)
            text = " ".join(shuffled).lower()
            survivors += overall(text[:1].upper() + text[1:] + ".", task.facts) >= LIMIT
            total += 1
    assert total == 600
    assert survivors / total <= 0.02


def test_saying_the_answer_twice_scores_low():
    for task in TASKS:
        assert overall(f"{honest(task)} {honest(task)}", task.facts) < LIMIT, task.prompt


GENERAL_ATTACKS = {
    "hedge": lambda facts: f"It is {facts['answer']} or {facts['rivals'][0]}.",
    "list": lambda facts: ", ".join([*facts["rivals"][:5], facts["answer"]]) + ".",
    "twice": lambda facts: " ".join(full_answers(facts, facts["answer"])[:1] * 2),
    "loop": lambda facts: " ".join(full_answers(facts, facts["answer"])[:1] * 3),
    "question": lambda facts: facts["question"],
    "an ad answer": lambda facts: honest(TASKS[0]),
}


@pytest.mark.parametrize("attack", GENERAL_ATTACKS.values(), ids=GENERAL_ATTACKS)
def test_attacks_on_general_questions_score_low(attack):
    for task in GENERAL:
        assert overall(attack(task.facts), task.facts) < LIMIT, (task.prompt, attack(task.facts))
