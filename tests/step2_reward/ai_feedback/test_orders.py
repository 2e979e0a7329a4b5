"""The judge's answers: what is an order, what is nonsense, and what two orders make together."""

import itertools
import random
from fractions import Fraction

import pytest

from common.endpoint.reading import Unreadable
from step2_reward.ai_feedback.orders import (
    disagreement,
    merge_orders,
    read_order,
    share_of_first,
)


@pytest.mark.parametrize(
    ("answer", "order"),
    [
        ('{"order": [2, 1, 3]}', [1, 0, 2]),
        ('{"order": [2, [3, 1]]}', [1, [0, 2]]),
        ('{"order": [[1, 2, 3]]}', [[0, 1, 2]]),
        ('{"order": [[3], [1], [2]]}', [2, 0, 1]),
        ('{"order": ["3", "Response 1", "#2"]}', [2, 0, 1]),
        ('{"order": [1.0, 3.0, 2.0]}', [0, 2, 1]),
        ('```json\n{\n "order": [3, 2, 1]\n}\n```', [2, 1, 0]),
        ('First {"order": [1, 2, 3]}? No: {"order": [3, 2, 1]}.', [2, 1, 0]),
        ('<think>{"order": [1, 2, 3]}</think>{"order": [3, 2, 1]}', [2, 1, 0]),
        ('{"why": {"order": "none"}, "order": [1, 3, 2]}', [0, 2, 1]),
        ('{oh} {"a": {"order": [1]}} {"order": [1, 3, 2]} {"x": }', [0, 2, 1]),
        ("{" * 5000 + '{"order": [1, 3, 2]}', [0, 2, 1]),
        ('{"a":' * 5000 + '{"order": [1, 3, 2]}', [0, 2, 1]),
        ("x" * 200_000 + '{"order": [1, 3, 2]}', [0, 2, 1]),
    ],
)
def test_an_order_is_found_in_what_models_write(answer, order):
    assert read_order(answer, 3) == order


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("", "no JSON object"),
        ("2 > 1 > 3", "no JSON object"),
        ("[2, 1, 3]", "no JSON object"),
        ('{"ranking": [1, 2, 3]}', "no JSON object"),
        ('{"order": [1, 2, 3]', "no JSON object"),
        ('{"order": "2, 1, 3"}', '"order" is not a list'),
        ('{"order": {"1": 2}}', '"order" is not a list'),
        ('{"order": []}', "not each of 1 to 3 once"),
        ('{"order": [1, 2]}', "names [1, 2], not each of 1 to 3 once"),
        ('{"order": [1, 2, 2]}', "names [1, 2, 2], not each"),
        ('{"order": [1, 2, 3, 4]}', "not each of 1 to 3 once"),
        ('{"order": [0, 1, 2]}', "not each of 1 to 3 once"),
        ('{"order": [1, 2, -3]}', "not each of 1 to 3 once"),
        ('{"order": [1, 2, "best"]}', "'best', which is no number"),
        ('{"order": [1, 2, true]}', "'True', which is no number"),
        ('{"order": [1, 2, 2.5]}', "'2.5', which is no number"),
        ('{"order": [1, 2, null]}', "'None', which is no number"),
        ('{"order": [1, [2, [3]]]}', "which is no number"),
        ('{"order": [1, 2, 1e400]}', "'inf', which is no number"),
        ('{"order": [1, 2, ' + "9" * 5000 + "]}", "no JSON object"),
        ('{"order": [1, 2, "' + "9" * 5000 + '"]}', "which is no number"),
        ('{"order": [' + "1," * 20_000 + "2]}", "not each of 1 to 3 once"),
    ],
)
def test_nonsense_is_told_and_never_crashes(answer, said):
    with pytest.raises(Unreadable) as caught:
        read_order(answer, 3)
    assert said in str(caught.value) and len(str(caught.value)) < 200


def random_order(draw, count):
    """An order with ties, in the plainest form."""
    left, order = draw.sample(range(count), count), []
    while left:
        size = draw.choice([1, 1, 2, 3])
        group, left = sorted(left[:size]), left[size:]
        order.append(group if len(group) > 1 else group[0])
    return order


def places(order):
    """The mean place of each response, from its definition: lay the groups out one by one."""
    found, place = {}, 0
    for group in order:
        members = group if isinstance(group, list) else [group]
        taken = [place + k for k in range(len(members))]
        for member in members:
            found[member] = Fraction(sum(taken), len(taken))
        place += len(members)
    return found


def test_merging_is_by_mean_rank():
    draw = random.Random(0)
    for _ in range(300):
        count = draw.randint(2, 6)
        one, other = random_order(draw, count), random_order(draw, count)
        a, b = places(one), places(other)
        sums = {i: a[i] + b[i] for i in range(count)}
        expected = []
        for _, group in itertools.groupby(sorted(sums, key=lambda i: (sums[i], i)), sums.get):
            group = list(group)
            expected.append(group if len(group) > 1 else group[0])
        assert merge_orders([one, other], count) == expected


def test_orders_that_disagree_equally_tie():
    assert merge_orders([[0, 1], [1, 0]], 2) == [[0, 1]]
    assert merge_orders([[0, 1, 2], [2, 1, 0]], 3) == [[0, 1, 2]]
    assert merge_orders([[0, 1, 2], [0, 2, 1]], 3) == [0, [1, 2]]
    assert merge_orders([[0, 1, 2], [0, 1, 2]], 3) == [0, 1, 2]


def test_disagreement_counts_pairs():
    draw = random.Random(1)
    for _ in range(300):
        count = draw.randint(2, 6)
        one, other = random_order(draw, count), random_order(draw, count)
        a, b = places(one), places(other)
        total = Fraction(0)
        for i in range(count):
            for j in range(i):
                if (a[i] < a[j] and b[i] > b[j]) or (a[i] > a[j] and b[i] < b[j]):
                    total += 1
                elif (a[i] == a[j]) != (b[i] == b[j]):
                    total += Fraction(1, 2)
        found = disagreement(one, other, count)
        assert found == pytest.approx(float(total / Fraction(count * (count - 1), 2)))
        assert found == disagreement(other, one, count) and disagreement(one, one, count) == 0
    assert disagreement([0, 1, 2, 3], [3, 2, 1, 0], 4) == 1


def test_the_best_place_of_what_was_shown_first():
    assert share_of_first([2, 0, 1], 2) == 1
    assert share_of_first([2, 0, 1], 0) == 0
    assert share_of_first([[0, 2], 1], 2) == 0.5
