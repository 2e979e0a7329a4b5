"""Generated answers against the rubric: right is right, wrong is wrong, styles cost what they say.

The generator and the rubric share the vocabulary and nothing else: one writes from templates, the
other reads free text.
"""

import random
from collections import Counter

import pytest

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.__main__ import style_scores
from common.data.ad_moderation.answers import (
    FULL_FORMS,
    STYLE_SHARES,
    answer,
    draw_answer,
    false_belief,
    full,
    right_and_wrong,
    true_belief,
)
from common.data.ad_moderation.general import (
    GENERAL_STYLES,
    draw_general,
    draw_general_answer,
    general_answer,
)
from common.data.ad_moderation.rubric import overall, score
from common.data.ad_moderation.tasks import CLEAN_SHARES, QUESTIONS, TASK_SHARES, draw_task


@pytest.mark.parametrize("pool", ["seen", "unseen"])
@pytest.mark.parametrize("name", QUESTIONS)
def test_every_full_right_answer_is_near_perfect_and_every_wrong_one_inaccurate(name, pool):
    rng = random.Random(f"{name}/{pool}")
    policies = Counter()
    for _ in range(400):
        facts = draw_task(rng, pool, name=name).facts
        policies.update(v["policy"] for v in facts["violations"])
        for form in range(FULL_FORMS):
            right = full(name, true_belief(facts), form)
            assert overall(right, facts) >= 95, right
            wrong = full(name, false_belief(rng, facts), form)
            assert score(wrong, facts)["accuracy"] == 0, wrong
    assert set(policies) == set(words.POLICIES)  # each policy was tried


def test_terse_wrong_answers_are_wrong():
    rng = random.Random(1)
    for _ in range(500):
        facts = draw_task(rng, "seen").facts
        assert score(answer(rng, facts, "terse_wrong"), facts)["accuracy"] == 0
        assert score(answer(rng, facts, "terse"), facts)["accuracy"] == 2


def test_general_answers_are_right_or_wrong_as_they_should_be():
    rng = random.Random(2)
    for _ in range(1000):
        facts = draw_general(rng).facts
        assert score(general_answer(rng, facts, "full"), facts)["accuracy"] == 2
        assert score(general_answer(rng, facts, "terse"), facts)["accuracy"] == 2
        assert score(general_answer(rng, facts, "full_wrong"), facts)["accuracy"] == 0
        assert overall(general_answer(rng, facts, "full"), facts) >= 95


def test_sums_and_differences_are_correct():
    rng = random.Random(3)
    for _ in range(2000):
        facts = draw_general(rng).facts
        if facts["task"] in ("sum", "difference"):
            a, b = int(facts["slots"]["a"]), int(facts["slots"]["b"])
            expected = a + b if facts["task"] == "sum" else a - b
            assert int(facts["answer"]) == expected


def test_styles_are_drawn_by_their_shares():
    """Within 3 standard deviations of a binomial draw."""
    rng = random.Random(4)
    size = 6000
    for shares, drawn in (
        (
            STYLE_SHARES,
            Counter(draw_answer(rng, draw_task(rng, "seen").facts)[0] for _ in range(size)),
        ),
        (
            GENERAL_STYLES,
            Counter(draw_general_answer(rng, draw_general(rng).facts)[0] for _ in range(size)),
        ),
    ):
        assert sum(shares.values()) == pytest.approx(1)
        for style, share in shares.items():
            deviation = (share * (1 - share) / size) ** 0.5
            assert abs(drawn[style] / size - share) < 3.5 * deviation, style


def test_tasks_and_clean_ads_are_drawn_by_their_shares():
    rng = random.Random(5)
    facts = [draw_task(rng, "seen").facts for _ in range(4000)]
    tasks = Counter(f["task"] for f in facts)
    for name, share in TASK_SHARES.items():
        assert tasks[name] / len(facts) == pytest.approx(share, abs=0.025)
        clean = sum(f["task"] == name and not f["violations"] for f in facts) / tasks[name]
        assert clean == pytest.approx(CLEAN_SHARES[name], abs=0.03)
    clean = sum(not f["violations"] for f in facts) / len(facts)
    assert clean == pytest.approx(0.15, abs=0.02)
    two = sum(len(f["violations"]) == 2 for f in facts) / len(facts)
    assert 0.08 < two < 0.16


def test_the_mixture_leaves_room_for_improvement():
    table = style_scores(seed=0, prompts=200)
    overall_by_style = {style: row["overall"] for style, row in table.items()}
    assert overall_by_style["full"] >= 97
    assert overall_by_style["terse"] < 90
    assert overall_by_style["terse"] > overall_by_style["full_wrong"] + 15
    assert table["terse"]["completeness"] < 1
    assert overall_by_style["off_topic"] < 50
    assert 76 <= overall_by_style["mixture"] <= 80
    wrong = sum(share for style, share in STYLE_SHARES.items() if style.endswith("wrong"))
    assert wrong >= 0.2


def test_full_answers_and_prompts_are_short():
    rng = random.Random(6)
    for _ in range(500):
        task = draw_task(rng, "seen")
        assert len(task.prompt.split()) <= 40
        style, text = draw_answer(rng, task.facts)
        assert len(text.split()) <= 50, (style, text)


def test_probe_pairs_differ_in_correctness_and_hardly_in_length():
    rng = random.Random(7)
    ratios = []
    for _ in range(300):
        facts = draw_task(rng, "seen").facts
        right, wrong = right_and_wrong(rng, facts)
        assert score(right, facts)["accuracy"] == 2
        assert score(wrong, facts)["accuracy"] == 0
        ratios.append(len(wrong.split()) / len(right.split()))
    assert 0.9 < sum(ratios) / len(ratios) < 1.1
