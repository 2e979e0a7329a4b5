"""Generated answers against the rubric: right is right, wrong is wrong, styles cost what they say.

The generator and the rubric share the vocabulary and nothing else: one writes from templates, the
other reads free text.
"""

import random
import re
from collections import Counter

import pytest

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.__main__ import style_scores
from common.data.ad_moderation.ads import (
    ALLOWED_SHARE,
    CONDITIONAL_SHARE,
    DISTRACTOR_SHARE,
    TWO_VIOLATIONS_SHARE,
)
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
    WORLD_SHARES,
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


KNOWN = {
    "opposite": "cold/hot small/big empty/full slow/fast young/old",
    "capital": "Peru/Lima Kenya/Nairobi Norway/Oslo Greece/Athens Egypt/Cairo",
    "colour": "coal/black lemon/yellow grass/green blood/red milk/white",
    "plural": "foot/feet mouse/mice child/children cat/cats star/stars",
}


def test_general_answers_are_true():
    """Against facts written down here."""
    rng = random.Random(3)
    known = {
        (world, key): value
        for world, pairs in KNOWN.items()
        for key, value in (pair.split("/") for pair in pairs.split())
    }
    checked = set()
    for _ in range(3000):
        task = draw_general(rng)
        world, right = task.facts["task"], task.facts["answer"]
        assert right not in task.facts["rivals"] and len(task.facts["rivals"]) >= 2
        key = task.facts["slots"]["a"]
        assert re.search(rf"\b{key}\b", task.prompt)
        if (world, key) in known:
            assert right == known[world, key]
            checked.add((world, key))
    assert checked == set(known)


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


def share(items, holds):
    """Share of the items for which `holds`."""
    return sum(map(bool, map(holds, items))) / len(items)


def test_tasks_and_clean_ads_are_drawn_by_their_shares():
    rng = random.Random(5)
    facts = [draw_task(rng, "seen").facts for _ in range(6000)]
    assert sum(TASK_SHARES.values()) == pytest.approx(1)
    for name, expected in TASK_SHARES.items():
        assert share(facts, lambda f, n=name: f["task"] == n) == pytest.approx(expected, abs=0.025)
        asked = [f for f in facts if f["task"] == name]
        clean = share(asked, lambda f: not f["violations"])
        assert clean == pytest.approx(CLEAN_SHARES[name], abs=0.03)
    clean = [f for f in facts if not f["violations"]]
    violating = [f for f in facts if f["violations"]]
    one = [f for f in violating if len(f["violations"]) == 1]
    assert {len(f["violations"]) for f in facts} == {0, 1, 2}
    assert 1 - len(one) / len(violating) == pytest.approx(TWO_VIOLATIONS_SHARE, abs=0.02)
    assert share(clean, lambda f: f["allowed"]) == pytest.approx(ALLOWED_SHARE, abs=0.06)
    conditional = share(
        violating, lambda f: {v["policy"] for v in f["violations"]} & {"alcohol", "gambling"}
    )
    assert conditional == pytest.approx(CONDITIONAL_SHARE, abs=0.03)
    # A claim that is in order is left out where it is of the policy that the ad breaks.
    distracted = DISTRACTOR_SHARE * (1 - CONDITIONAL_SHARE / 2)
    assert share(one, lambda f: f["allowed"]) == pytest.approx(distracted, abs=0.02)
    assert not any(f["allowed"] for f in violating if len(f["violations"]) == 2)


def test_general_worlds_are_drawn_by_their_shares():
    rng = random.Random(8)
    drawn = Counter(draw_general(rng).facts["task"] for _ in range(4000))
    assert sum(WORLD_SHARES.values()) == pytest.approx(1)
    for world, expected in WORLD_SHARES.items():
        assert drawn[world] / 4000 == pytest.approx(expected, abs=0.025)


def test_the_mixture_leaves_room_for_improvement():
    table = style_scores(seed=0, prompts=200)
    overall_by_style = {style: row["overall"] for style, row in table.items()}
    assert overall_by_style["full"] >= 97
    assert overall_by_style["terse"] < 90
    assert overall_by_style["terse"] > overall_by_style["full_wrong"] + 15
    assert table["terse"]["completeness"] < 1
    assert overall_by_style["off_topic"] < 50
    # SFT is to reach 65 and more; RLHF 10 points more, and yet stay below the ceiling.
    assert 70 <= overall_by_style["mixture"] <= 85
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
