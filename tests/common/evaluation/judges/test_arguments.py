"""Weights as they are given."""

import pytest

from common.errors import UserError
from common.evaluation.criteria import CRITERIA
from common.evaluation.judges.arguments import TableArguments, weights_of


def test_none_given_are_the_reconstructed_ones():
    name, weights = weights_of([])
    assert name == "reconstructed"
    assert list(weights.values()) == [3, 4, 5, 2, 2, 2, 1, 3]


def test_what_is_not_named_weighs_nothing():
    name, weights = weights_of(["accuracy=2", "clarity=0.5"])
    assert name == "given" and tuple(weights) == CRITERIA
    assert {k: w for k, w in weights.items() if w} == {"accuracy": 2.0, "clarity": 0.5}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["acuracy=2"], "did you mean 'accuracy'"),
        (["accuracy"], "accuracy=NUMBER"),
        (["accuracy=-1"], "at least 0"),
        (["accuracy=nan"], "accuracy=NUMBER"),
        (["accuracy=inf"], "accuracy=NUMBER"),
        (["accuracy=1", "accuracy=2"], "accuracy twice"),
        (["accuracy=0"], "above 0"),
    ],
)
def test_weights_that_cannot_be(given, said):
    with pytest.raises(UserError, match=said):
        TableArguments(weights=given)
