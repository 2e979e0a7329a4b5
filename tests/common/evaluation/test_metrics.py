"""The metrics: their equations against loops and published examples, and loaded as others would."""

import json
import math
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.evaluation.metrics import __file__ as here
from common.evaluation.metrics.calibration_error.equation import calibration_error
from common.evaluation.metrics.pairwise_accuracy.equation import correct
from common.evaluation.metrics.win_rate.equation import (
    WinTieLoss,
    count_both_orders,
    count_gaps,
    win_rate,
)

METRICS = Path(here).parent
NAMES = ("pairwise_accuracy", "calibration_error", "criteria_score", "win_rate", "kendalls_w")

# The example of scikit-learn's `roc_auc_score`, 0.75: it is the accuracy over all pairs.
# https://scikit-learn.org/stable/modules/generated/sklearn.metrics.roc_auc_score.html
POSITIVE, NEGATIVE = (0.35, 0.8), (0.1, 0.4)
ALL_PAIRS = [(p, n) for p in POSITIVE for n in NEGATIVE]

# The example of torchmetrics' `multiclass_calibration_error` with three bins, 0.2: the highest
# probability of each row, and whether that class is the true one. Its bins run from 0 to 1 and ours
# from a half; these values fall into the same groups in both.
# https://lightning.ai/docs/torchmetrics/stable/classification/calibration_error.html
CONFIDENT = [(0.55, False), (0.55, False), (0.60, True), (0.90, True)]

# AlpacaEval's leaderboard of version 0.2.2: wins, draws, losses, win rate in percent.
# https://github.com/tatsu-lab/alpaca_eval (leaderboards/data_AlpacaEval)
ALPACA_EVAL = [
    (761, 12, 32, 95.27950310559004),  # gpt4
    (734, 1, 69, 91.35572139303483),  # claude-2
    (713, 5, 86, 88.99253731343283),  # vicuna-33b-v1.3
]

# Kendall's W of https://www.proofwiki.org/wiki/Kendall%27s_Coefficient_of_Concordance/Examples
JUDGES = [[1, 3, 2], [1, 2, 3], [2, 3, 1], [3, 1, 2]]

# The paper's Table 3, ICE-GRT.
ICE_GRT = {
    **{"clarity": 98.1, "accuracy": 97.0, "completeness": 92.9, "safety": 92.2, "courtesy": 100},
    **{"comfortableness": 92.22, "conciseness": 91.8, "context": 98.1},
}


def as_scores(confident):
    """Differences of two scores whose σ is the confidence; negative where the other was right."""
    sizes = [math.log(p / (1 - p)) for p, _ in confident]
    return [size if right else -size for size, (_, right) in zip(sizes, confident, strict=True)]


def test_pairwise_accuracy_is_a_loop_over_pairs_and_a_published_area_under_the_curve():
    assert correct(np.array(ALL_PAIRS)).mean() == 0.75
    draw = random.Random(0)
    pairs = [(draw.randint(0, 3), draw.randint(0, 3)) for _ in range(200)]
    points = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs]
    assert correct(np.array(pairs)).tolist() == points
    assert 0.5 in points and 0.0 in points


def test_calibration_error_of_a_published_example():
    # Against loops it is tested in tests/common/reward/test_calibration.py.
    assert calibration_error(np.array(as_scores(CONFIDENT)), 3) == pytest.approx(0.2, abs=1e-9)


@pytest.mark.parametrize(("wins", "ties", "losses", "percent"), ALPACA_EVAL)
def test_win_rates_of_a_published_leaderboard(wins, ties, losses, percent):
    assert 100 * win_rate(WinTieLoss(wins, ties, losses)) == pytest.approx(percent, abs=1e-9)


def test_win_rate_is_a_loop_and_that_of_the_other_model_is_the_rest():
    draw = random.Random(1)
    gaps = [draw.choice((-1.0, 0.0, 1e-12, 0.5)) for _ in range(100)]
    points = 0.0
    for gap in gaps:
        points += 1.0 if gap > 0.1 else 0.5 if gap > -0.1 else 0.0
    assert win_rate(count_gaps(gaps)) == pytest.approx(points / 100)
    assert win_rate(count_gaps([-g for g in gaps])) == pytest.approx(1 - points / 100)
    assert math.isnan(win_rate(count_gaps([])))


def test_a_win_is_one_in_both_orders():
    draw = random.Random(2)
    verdicts = ("model", "tie", "other")
    pairs = [(draw.choice(verdicts), draw.choice(verdicts)) for _ in range(300)]
    counts = {"wins": 0, "ties": 0, "losses": 0}
    for first, second in pairs:
        if first != second or first == "tie":
            counts["ties"] += 1
        else:
            counts["wins" if first == "model" else "losses"] += 1
    assert min(counts.values()) > 0
    assert count_both_orders(*zip(*pairs, strict=True))._asdict() == counts


def test_a_judge_that_goes_by_the_place_says_nothing():
    # It prefers what is shown first: the model in the first order, the other in the second.
    assert win_rate(count_both_orders(["model"] * 9, ["other"] * 9)) == 0.5


def test_odd_verdicts_are_refused():
    with pytest.raises(ValueError, match="not A"):
        count_both_orders(["model", "A"], ["model", "tie"])
    with pytest.raises(ValueError, match="shorter"):
        count_both_orders(["model", "tie"], ["model"])


LOADED_ELSEWHERE = """
import json, math, socket, sys
def refuse(*arguments, **named):
    raise OSError("no network here")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
import evaluate
given = json.loads(sys.argv[1])
found = {}
for name, (configuration, inputs) in given.items():
    metric = evaluate.load(name.split(":")[0], configuration)
    found[name] = metric.compute(**inputs)
assert "common" not in sys.modules, "a metric imported the project"
refused = []
for name, inputs in json.loads(sys.argv[2]):
    try:
        refused.append([name, evaluate.load(name).compute(**inputs)])
    except ValueError as error:
        refused.append(str(error))
print(json.dumps([found, refused]))
"""


def test_each_loads_offline_from_a_copied_folder(tmp_path):
    for name in NAMES:
        shutil.copytree(
            METRICS / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    preferred, other = zip(*ALL_PAIRS, strict=True)
    points = {name: percent / 50 for name, percent in ICE_GRT.items()}
    even = dict.fromkeys(points, 1.0)
    differences = as_scores(CONFIDENT)
    zeros = [0.0] * len(differences)
    orders = {"predictions": ["model", "model", "tie", "other"]}
    orders |= {"references": ["model", "other", "tie", "other"]}
    given = {
        "./pairwise_accuracy": (None, {"predictions": preferred, "references": other}),
        "./calibration_error": (
            None,
            {"predictions": differences, "references": zeros, "bins": 3},
        ),
        "./criteria_score": (None, {"predictions": [points]}),
        "./criteria_score:weights": (None, {"predictions": [points], "weights": even}),
        "./win_rate": (None, {"predictions": [3, 2, 1, 0], "references": [1, 2, 0, 1]}),
        "./win_rate:orders": ("both_orders", orders),
        "./kendalls_w": (None, {"predictions": JUDGES}),
        "./kendalls_w:missing": (None, {"predictions": [[1, 2, None], [1, 2, 3], [2, 3, 1]]}),
    }
    odd = {"predictions": [1.0, math.nan], "references": [0.0, 0.0]}  # no tie, and no loss
    refused = [
        (f"./{name}", odd) for name in ("pairwise_accuracy", "calibration_error", "win_rate")
    ]
    refused.append(("./criteria_score", {"predictions": [even, even | {"safety": 2.5}]}))
    refused.append(("./criteria_score", {"predictions": [even | {"clarity": math.nan}]}))
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOADED_ELSEWHERE, json.dumps(given), json.dumps(refused)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    found, errors = json.loads(done.stdout.splitlines()[-1])
    assert errors[:3] == ["predictions and references must be finite numbers"] * 3
    assert errors[3:] == [
        "predictions[1]: safety is 2.5, but must be 0 to 2",
        "predictions[0]: clarity is nan, but must be 0 to 2",
    ]
    assert found["./pairwise_accuracy"] == {"pairwise_accuracy": 0.75, "pairs": 4}
    assert found["./calibration_error"]["calibration_error"] == pytest.approx(0.2)
    assert found["./criteria_score"]["overall"] == pytest.approx(95.5, abs=0.1)
    assert found["./criteria_score"]["safety"] == pytest.approx(92.2)
    mean = sum(ICE_GRT.values()) / 8
    assert found["./criteria_score:weights"]["overall"] == pytest.approx(mean)
    assert found["./win_rate"] == {"win_rate": 0.625, "wins": 2, "ties": 1, "losses": 1}
    expected = {"win_rate": 0.5, "wins": 1, "ties": 2, "losses": 1, "consistent": 0.75}
    assert found["./win_rate:orders"] == expected
    assert found["./kendalls_w"]["kendalls_w"] == pytest.approx(1 / 16)
    assert found["./kendalls_w:missing"]["kendalls_w"] == pytest.approx(1.0)
