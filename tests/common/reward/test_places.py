"""How a list of reward sources is read, and what it refuses."""

import pytest

from common.errors import UserError
from common.reward.places import RewardPlace, inputs_of, parse_rewards


def test_each_kind_of_source():
    places = parse_rewards(
        [
            "models/reward",
            "python:my/rules.py:polite",
            {"path": "https://scorer.example:8000/v1", "weight": 0.5, "mean": 1, "std": 2.5},
            '{"path": "models/safety", "weight": -2, "name": "harm"}',
        ],
        default="unused",
    )
    assert [p.kind for p in places] == ["model", "function", "endpoint", "model"]
    assert [p.name for p in places] == ["reward", "polite", "scorer.example", "harm"]
    assert [p.weight for p in places] == [1.0, 1.0, 0.5, -2]
    assert [(p.mean, p.std) for p in places] == [(None, None), (None, None), (1, 2.5), (None, None)]
    assert places[1].function == ("my/rules.py", "polite")
    # An endpoint's content cannot be hashed: its URL binds, as a setting.
    assert inputs_of(places) == ["models/reward", "my/rules.py", "models/safety"]


def test_without_any_there_is_the_stage_befores_model():
    assert parse_rewards([], default="runs/a/models/reward") == [
        RewardPlace("runs/a/models/reward", name="reward")
    ]


def test_names_are_made_distinct():
    given = ["a/reward", "b/reward", {"path": "c", "name": "reward_2"}, "d/reward"]
    names = [p.name for p in parse_rewards(given, default="")]
    assert len(set(names)) == 4 and names[:2] == ["reward", "reward_2"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"path": "m", "wait": 1}, "reward[0]: unknown key 'wait'"),
        ({"weight": 1.0}, "`path` must name a model folder"),
        ("  ", "`path` must name a model folder"),
        ({"path": "m", "weight": "2"}, "`weight` must be a finite number, not '2'"),
        ({"path": "m", "weight": True}, "`weight` must be a finite number, not True"),
        ({"path": "m", "weight": 0}, "`weight` is 0"),
        ('{"path": "m", "mean": NaN, "std": 1}', "`mean` must be a finite number"),
        ({"path": "m", "mean": 1.0}, "give both `mean` and `std`"),
        ({"path": "m", "mean": 1.0, "std": 0}, "`std` must be above 0"),
        ({"path": "m", "name": 3}, "`name` must be a string"),
        ("python:rules.py", "must be python:FILE.py:FUNCTION"),
        ("python:rules.py:", "must be python:FILE.py:FUNCTION"),
        ("http:///score", "names no host"),
        ("{broken", "not a valid JSON object"),
    ],
)
def test_what_cannot_be_a_source_is_refused(value, message):
    with pytest.raises(UserError) as caught:
        parse_rewards([value], default="")
    assert message in str(caught.value) and str(caught.value).startswith("reward[0]")
