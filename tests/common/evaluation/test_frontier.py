"""Best-of-n as a line beside PPO's frontier."""

import itertools
import math
import random
import re

import numpy as np
import pytest

from common.evaluation.contenders import best_of_curve, kl_bound
from common.evaluation.page.curves import _best_of_line, frontier
from common.evaluation.page.facts import read_facts


@pytest.mark.parametrize("n", [1, 2, 5, 7])
def test_the_expected_best_of_k_is_the_mean_over_all_subsets(n):
    noise = random.Random(n)
    scores = [noise.choice([noise.gauss(0, 1), 0.5]) for _ in range(n)]
    found = best_of_curve(scores)
    for k in range(1, n + 1):
        best = [max(subset) for subset in itertools.combinations(scores, k)]
        assert found[k - 1] == pytest.approx(sum(best) / len(best))
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(found))
    assert found[-1] == max(scores)


@pytest.fixture
def drawn(tmp_path, response_row, write_lines, write_result):
    """PPO's KL and score at three steps, and the best of three samples to two prompts."""
    rows = []
    for index, scores in enumerate(([1.0, 3.0, 2.0], [0.0, 4.0, 2.0])):
        rows += [response_row(index=index, model=m) for m in ("sft", "rlhf")]
        best = response_row(index=index, model="best_of_3", reward=max(scores))
        rows.append(best | {"chosen": 1, "scores": scores})
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    write_result(tmp_path, "reward", {"scores": {"mean": 1.0, "std": 2.0}})
    steps = [{"step": s, "kl/sequence_k1": s / 2, "reward/score": s / 4} for s in (1, 2, 3)]
    steps[1]["eval/score"] = 0.7
    write_lines(tmp_path / "rlhf" / "metrics.jsonl", steps)
    return tmp_path


def test_the_line_is_normalized_as_ppo_sees_scores_and_stands_at_its_bound(drawn):
    line, most, split = _best_of_line(read_facts(drawn), 2)
    assert (most, split) == (3, "seen") and line.hollow
    one = ((1 + 3 + 2) / 3 + (0 + 4 + 2) / 3) / 2
    two = ((3 + 3 + 2) / 3 + (4 + 4 + 2) / 3) / 2
    expected = [(x - 1.0) / 2.0 for x in (one, two, (3 + 4) / 2)]
    np.testing.assert_allclose(line.y, expected)
    bounds = [0.0, math.log(2) - 1 / 2, math.log(3) - 2 / 3]
    np.testing.assert_allclose(line.x, bounds, atol=1e-12)
    assert kl_bound(1) == 0.0


def test_the_frontier_joins_kl_and_score_of_the_same_step(drawn):
    chart = frontier(read_facts(drawn))
    assert "step 2: KL 1.00 nats, score 0.70 deviations" in chart
    assert "best of 3: KL at most 0.43 nats, score 1.25 deviations" in chart
    (dots,) = re.findall(r'class="dots k0" d="([^"]*)"', chart)
    assert dots.count("M") == 3
    assert "which is" not in chart and "Its KL is at most that" in chart


def test_without_best_of_n_there_is_no_line(run):
    facts = read_facts(run)
    assert _best_of_line(facts, 0) is None
    assert "Best-of-n" not in frontier(facts) and "Reward against KL" in frontier(facts)
