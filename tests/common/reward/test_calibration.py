"""Reliability, its error and the fitted factor against loops and known models."""

import itertools
import math
import random

import numpy as np
import pytest

from common.evaluation.metrics.calibration_error.equation import calibration_error, reliability
from common.reward.calibration import calibration, fitted_factor, logistic_mean


def chance(x):
    return 1 / (1 + math.exp(-x))


def drawn(pairs, factor, seed=0):
    """Differences whose true probability of the preferred order is σ(factor · |Δ|)."""
    draw = random.Random(seed)
    found = []
    for _ in range(pairs):
        size = abs(draw.gauss(0, 2))
        found.append(size if draw.random() < chance(factor * size) else -size)
    return np.array(found)


def test_the_curve_and_its_error_are_loops_over_pairs():
    differences = [*drawn(300, 1.0).tolist(), 0.0, 40.0]
    bins = {}
    for d in differences:
        confidence = chance(abs(d))
        right = 1.0 if d > 0 else 0.5 if d == 0 else 0.0
        place = next(i for i in range(10) if confidence < 0.55 + 0.05 * i or i == 9)
        bins.setdefault(place, []).append((confidence, right))
    error = 0.0
    curve = reliability(np.array(differences))
    assert [round((b["low"] - 0.5) / 0.05) for b in curve] == sorted(bins)
    for found, place in zip(curve, sorted(bins), strict=True):
        confidence, accuracy = (sum(x) / len(x) for x in zip(*bins[place], strict=True))
        assert found["pairs"] == len(bins[place])
        assert found["confidence"] == pytest.approx(confidence)
        assert found["accuracy"] == pytest.approx(accuracy)
        error += abs(confidence - accuracy) * len(bins[place]) / len(differences)
    assert calibration_error(np.array(differences)) == pytest.approx(error)
    assert error > 0.01


def test_a_calibrated_model_has_little_error_and_a_sure_one_much():
    honest = drawn(20_000, 1.0)
    assert calibration_error(honest) < 0.015
    assert calibration_error(10 * honest) > 0.15
    assert calibration_error(np.array([50.0] * 3 + [-50.0])) == pytest.approx(0.25, abs=1e-6)


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_factor_is_the_least_of_a_fine_grid(factor):
    differences = drawn(2000, factor, seed=3)
    found = fitted_factor(differences)

    def loss(a):
        return sum(math.log1p(math.exp(-a * d)) for d in differences) / len(differences)

    grid = [factor * (0.5 + i / 100) for i in range(120)]
    assert found == pytest.approx(min(grid, key=loss), abs=factor / 100)
    assert found == pytest.approx(factor, rel=0.2)
    assert logistic_mean(found * differences) == pytest.approx(loss(found))


def test_orders_that_no_finite_factor_fits():
    assert fitted_factor(np.array([-1.0, -2.0, 1.0])) == 0.0  # worse than chance
    assert fitted_factor(np.zeros(4)) == 0.0
    every = np.array([0.5, 2.0, 1.0])  # all in order: the more the better
    assert (
        math.isfinite(fitted_factor(every)) and logistic_mean(fitted_factor(every) * every) < 1e-9
    )


def test_the_factor_is_tried_on_prompts_that_it_was_not_fitted_to():
    """One half of the prompts has another scale: which, the draw decides, and errors differ."""
    differences, prompts = 8 * drawn(4000, 1.0, seed=1), np.arange(4000) // 4
    found = calibration(differences, prompts, seed=0)
    assert found["factor"] == pytest.approx(1 / 8, rel=0.1)
    assert found["error_after_on_half"] < 0.03 < 0.1 < found["error_before_on_half"]
    assert found["nats_after_on_half"] < found["nats"]
    assert sum(b["pairs"] for b in found["curve_after"]) == 2000
    assert calibration(differences, prompts, seed=1)["factor"] != found["factor"]


def test_errors_are_those_of_the_half_that_the_factor_was_not_fitted_to():
    """Of all halves of six prompts one gives this factor: the errors are of the other prompts."""
    differences, prompts = drawn(60, 2.0, seed=5), np.arange(60) % 6
    found = calibration(differences, prompts, seed=0)
    halves = [
        np.isin(prompts, half)
        for half in itertools.combinations(range(6), 3)
        if fitted_factor(differences[np.isin(prompts, half)]) == found["factor"]
    ]
    assert len(halves) == 1
    other = differences[~halves[0]]
    assert found["error_before_on_half"] == calibration_error(other)
    assert found["error_after_on_half"] == calibration_error(found["factor"] * other)
    assert found["nats_after_on_half"] == logistic_mean(found["factor"] * other)
    assert found["error_before_on_half"] != found["error"] == calibration_error(differences)
    assert found["nats"] == logistic_mean(differences)
