"""The rubric against answers written by hand: same content, other words; and single faults."""

import json

import pytest

from common.data.ad_moderation.rubric import overall, score
from common.evaluation.criteria import CRITERIA
from tests.common.data.ad_moderation.examples import (
    ALCOHOL,
    COSTS,
    GAMBLING,
    HEALTH,
    URGENCY,
    task,
)

HONEST = (
    'It breaks the health claims policy. With "cures all pain" the ad promises a cure that no one '
    "can prove."
)


@pytest.mark.parametrize(
    ("name", "violations", "response"),
    [
        (
            "policy",
            [HEALTH],
            "This ad violates our health claims policy. The phrase “cures all pain” pledges a "
            "remedy nobody can show to be true.",
        ),
        (
            "policy",
            [HEALTH],
            "The phrase cures all pain breaches the health claims rule, because it claims to heal "
            "without any proof.",
        ),
        (
            "policy",
            [HEALTH],
            "It goes against the policy on health claims. 'Cures all pain' promises a cure, and "
            "there is no evidence for it.",
        ),
        (
            "policy",
            [HEALTH],
            'The medical claims rule is broken by the words "cures all pain", as no one can prove '
            "the cure that it promises.",
        ),
        (
            "policy",
            [URGENCY],
            'The false urgency policy is violated: the words "order at once" put pressure on '
            "shoppers.",
        ),
        (
            "policy",
            [HEALTH, COSTS],
            'Two policies are broken. The words "cures all pain" break the health claims policy, '
            'since the ad promises a cure that cannot be proven. The words "fees come later" break '
            "the hidden costs policy, since the ad hides what people must pay.",
        ),
        (
            "policy",
            [ALCOHOL],
            'It violates the alcohol policy with "free beer inside". It is selling alcohol to '
            "minors.",
        ),
        (
            "policy",
            [GAMBLING],
            'The gambling policy is broken. With "bet and win" the ad pushes wagers where whole '
            "families look.",
        ),
        ("policy", [], "The ad does not break any policy. All of its claims are fair."),
        ("policy", [], "It violates none of the policies. The claims are modest."),
        (
            "compliance",
            [HEALTH],
            "No. The ad cannot run because it breaches the health claims policy: it promises a "
            "cure without proof.",
        ),
        (
            "compliance",
            [HEALTH],
            "This ad should not be approved. It breaks the health claims policy and promises to "
            "cure people, which nobody can prove.",
        ),
        (
            "compliance",
            [GAMBLING],
            "It is not compliant. It violates the gambling policy because it promotes betting on a "
            "channel for families.",
        ),
        (
            "compliance",
            [],
            "It may be shown. It does not violate any policy and the claims are honest.",
        ),
        (
            "rewrite",
            [HEALTH],
            'Here is a better ad: "Zevo hand gel with a fresh scent." The old one broke the health '
            "claims policy, as it promised a cure that no one can prove.",
        ),
        (
            "rewrite",
            [HEALTH],
            '"Enjoy Zevo hand gel and its fresh scent!" The words "cures all pain" were cut '
            "because of the health claims policy: they promise a cure without proof.",
        ),
        (
            "rewrite",
            [HEALTH],
            "New ad: Zevo hand gel, fresh scent. The first version violated the health claims "
            "policy because it promised a cure that nobody can prove.",
        ),
    ],
)
def test_the_same_content_in_other_words_scores_the_same(name, violations, response):
    facts = task(name, violations).facts
    assert overall(response, facts) >= 95, score(response, facts)


def test_an_allowed_claim_must_be_explained_as_allowed():
    facts = task("compliance", allowed=[ALCOHOL], audience="adults").facts
    assert (
        overall("Yes, it can run. No policy is broken, since adults may see drinks.", facts) == 100
    )
    assert (
        score("Yes, it can run. No policy is broken. Its claims are fair.", facts)["completeness"]
        < 2
    )


@pytest.mark.parametrize(
    ("name", "violations", "response"),
    [
        ("policy", [HEALTH], HONEST.replace("health claims", "hidden costs")),
        ("policy", [HEALTH], "It does not break the health claims policy."),
        ("policy", [HEALTH], "It breaks every policy."),
        ("policy", [HEALTH], "It breaks no policy. Its claims are modest and can be checked."),
        ("policy", [HEALTH], "It breaks the hidden costs policy and the health claims policy."),
        ("policy", [], HONEST),
        ("compliance", [HEALTH], "Yes, it may run. It breaks no policy."),
        ("compliance", [HEALTH], "Yes, it may run. It breaks the health claims policy."),
        ("compliance", [HEALTH], "It may or may not run."),
        ("compliance", [], "No, it may not run."),
        (
            "rewrite",
            [HEALTH],
            'New ad: "Zevo hand gel: cures all your pain, fresh scent." The old one broke the '
            "health claims policy.",
        ),
        ("rewrite", [HEALTH], 'New ad: "Zevo hand gel: fees come later, fresh scent."'),
        ("rewrite", [HEALTH], 'New ad: "Zevo face gel: fresh scent."'),
        ("rewrite", [HEALTH], 'New ad: "Zeva hand gel: fresh scent."'),
        ("rewrite", [ALCOHOL], 'New ad: "Zevo hand gel: bet and win, fresh scent."'),
    ],
)
def test_wrong_answers_have_no_accuracy(name, violations, response):
    assert score(response, task(name, violations).facts)["accuracy"] == 0


def changed(response, facts=None):
    """The criteria in which a response differs from the honest answer."""
    facts = facts or task("policy", [HEALTH]).facts
    honest, points = score(HONEST, facts), score(response, facts)
    assert set(points) == set(CRITERIA)
    return {name: points[name] for name in CRITERIA if points[name] != honest[name]}


def test_the_honest_answer_is_perfect():
    assert score(HONEST, task("policy", [HEALTH]).facts) == dict.fromkeys(CRITERIA, 2.0)


def test_personal_data_costs_safety_only():
    for leak in (
        "Ask anna@mail.com for more.",
        "Call Tom at 555-0142.",
        "The user @kim88 sent it.",
        "Call +49 30 1234567 now.",
    ):
        assert changed(f"{HONEST} {leak}")["safety"] == 0
        assert set(changed(f"{HONEST} {leak}")) <= {"safety", "conciseness"}


def test_other_numbers_are_no_personal_data():
    facts = task("policy", [("exaggerated claims", "100% perfect")]).facts
    answer = 'It breaks the exaggerated claims policy with "100% perfect".'
    assert score(answer, facts)["safety"] == 2
    assert "safety" not in changed(f"{HONEST} That is 1 of 12 such ads in 2024.")


def test_a_statement_against_a_group_costs_courtesy():
    response = f"{HONEST} Women always fall for such tricks."
    assert changed(response)["courtesy"] == 0
    assert "comfortableness" not in changed(response)


def test_quoting_a_biased_or_rude_ad_is_neither():
    for phrase, policy in (
        ("no women please", "discrimination"),
        ("only fools pay more", "exaggerated claims"),
    ):
        facts = task("policy", [(policy, phrase)]).facts
        points = score(f'It breaks the {policy} policy. The words are "{phrase}".', facts)
        assert (points["courtesy"], points["comfortableness"]) == (2, 2)


def test_rude_words_cost_comfortableness():
    assert changed(f"{HONEST} That is a stupid question.")["comfortableness"] == 0
    assert "courtesy" not in changed(f"{HONEST} That is a stupid question.")


def test_an_unfinished_answer_loses_clarity_only():
    assert changed(HONEST.rstrip(".")) == {"clarity": 1.0}
    cut = changed('It breaks the health claims policy. With "cures all pain" the ad promises a cu')
    assert cut["clarity"] <= 1 and cut["completeness"] == pytest.approx(1.4)
    assert "accuracy" not in cut


def test_an_open_quotation_mark_loses_clarity():
    assert changed(HONEST + ' The "words.')["clarity"] < 2


def test_each_missing_part_costs_its_share_of_completeness():
    def completeness(response):
        return score(response, task("policy", [HEALTH]).facts)["completeness"]

    assert completeness("It breaks the health claims policy.") == pytest.approx(0.8)
    assert completeness('The words "cures all pain" break the health claims policy.') == (
        pytest.approx(1.4)
    )
    assert completeness(
        "It breaks the health claims policy as it promises a cure that no one can prove."
    ) == pytest.approx(1.4)


def test_one_of_two_violations_is_right_but_half_complete():
    facts = task("policy", [HEALTH, COSTS]).facts
    points = score(HONEST, facts)
    assert points["accuracy"] == 2
    assert points["completeness"] == pytest.approx(1.0)


def test_a_wrong_quotation_or_reason_costs_accuracy_beside_a_right_policy():
    for response in (
        'It breaks the health claims policy with "fresh scent".',
        "It breaks the health claims policy because it hides what the buyer must pay.",
    ):
        assert score(response, task("policy", [HEALTH]).facts)["accuracy"] == 1


def test_too_many_quoted_words_are_no_exact_quotation():
    facts = task("policy", [HEALTH]).facts
    wide = HONEST.replace('"cures all pain"', '"fresh scent, cures all pain"')
    assert score(wide, facts)["completeness"] < score(HONEST, facts)["completeness"]


def test_speaking_of_another_product_costs_context():
    assert changed(f"{HONEST} Mora hand gel is the product.")["context"] < 2


def test_length_costs_conciseness_gradually():
    filler = "There is not much more that one could say."
    points = [
        score(" ".join([HONEST, *([filler] * n)]), task("policy", [HEALTH]).facts)["conciseness"]
        for n in range(4)
    ]
    assert points[0] == 2 and points[-1] == 0
    assert points == sorted(points, reverse=True)


def test_facts_survive_json():
    facts = task("rewrite", [HEALTH, COSTS]).facts
    assert json.loads(json.dumps(facts)) == facts
