"""The overall score against the paper's Table 3, and against sums by hand."""

import pytest

from common.evaluation.criteria import CRITERIA, MAX_POINTS, overall_score

# Table 3: percent of the most points possible, in the order of its rows; overall score last.
ROWS = "clarity accuracy completeness safety courtesy comfortableness conciseness context".split()
TABLE_3 = {
    "Llama2 SFT": ([95.9, 77.4, 64.8, 96.6, 100, 96.6, 95.1, 98.8], 86.3),
    "ICE-Instruct": ([88.5, 84.44, 71.11, 100, 95.9, 98.1, 93.33, 94.0], 87.3),
    "ICE-GRT": ([98.1, 97.0, 92.9, 92.2, 100, 92.22, 91.8, 98.1], 95.5),
}


@pytest.mark.parametrize("model", TABLE_3)
def test_table_3_overall_scores_are_reproduced(model):
    percent, overall = TABLE_3[model]
    points = {name: value / 100 * 2 for name, value in zip(ROWS, percent, strict=True)}
    assert overall_score(points) == pytest.approx(overall, abs=0.1)


def test_the_criteria_are_those_of_the_paper():
    assert set(CRITERIA) == set(ROWS)
    assert MAX_POINTS == 2


@pytest.mark.parametrize(("points", "score"), [(0.0, 0.0), (1.0, 50.0), (2.0, 100.0)])
def test_the_scale_runs_from_0_to_100(points, score):
    assert overall_score(dict.fromkeys(ROWS, points)) == pytest.approx(score)


@pytest.mark.parametrize(
    ("criterion", "weight"), list(zip(ROWS, (3, 4, 5, 2, 2, 2, 1, 3), strict=True))
)
def test_one_lost_criterion_costs_its_weight_over_22(criterion, weight):
    points = dict.fromkeys(ROWS, 2.0) | {criterion: 0.0}
    assert overall_score(points) == pytest.approx(100 * (22 - weight) / 22)


def test_a_missing_criterion_is_an_error_and_not_a_zero():
    with pytest.raises(KeyError):
        overall_score(dict.fromkeys(ROWS[1:], 2.0))


def test_other_weights_may_be_in_any_unit():
    assert overall_score({"a": 2.0, "b": 1.0}, {"a": 0.25, "b": 0.75}) == pytest.approx(62.5)
