"""The judge's answers: read, and two of them merged into one order."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

from common.data.labeled import Order, named_in
from common.data.ranking_layouts import ranks_of_order
from common.endpoint.reading import Unreadable, objects_in
from common.errors import UserError

_NUMBER = re.compile(r"\s*(?:response\s*)?#?(\d{1,6})\s*", re.IGNORECASE)


def read_order(answer: str, count: int) -> Order:
    """The order in a judge's answer: the last JSON object in it that has an `order`.

    Reasoning before it, fences around it, and numbers written as "2" or "Response 2" do no harm.

    Args:
        count: of the responses, which the answer numbers from 1.

    Returns:
        the order, numbered from 0.

    Raises:
        Unreadable: no such object; one that repeats or omits a response, or names one that is not
            there.
    """
    found = [x["order"] for x in objects_in(answer) if "order" in x]
    if not found:
        raise Unreadable('no JSON object with "order"')
    if not isinstance(found[-1], list):
        raise Unreadable('"order" is not a list')
    order: Order = []
    for group in found[-1]:
        if isinstance(group, list):
            tied = [_number(x) for x in group]
            order += [sorted(tied)] if len(tied) > 1 else tied
        else:
            order.append(_number(group))
    try:
        ranks_of_order(order, count, "order", "answer")
    except UserError:
        named = [i + 1 for i in named_in(order)]
        raise Unreadable(f"names {named[: 2 * count]}, not each of 1 to {count} once") from None
    return order


def merge_orders(orders: Sequence[Order], responses: int) -> Order:
    """One order by mean rank; responses with equal means are tied."""
    ranks = _ranks(orders, responses)
    means = [sum(column) / len(orders) for column in zip(*ranks, strict=True)]
    merged: Order = []
    for mean in sorted(set(means)):
        tied = [i for i in range(responses) if means[i] == mean]
        merged.append(tied if len(tied) > 1 else tied[0])
    return merged


def disagreement(first: Order, second: Order, responses: int) -> float:
    """Share of the pairs of responses that two orders put the other way round, 0 to 1.

    A pair that one of them ties and the other does not counts half.
    """
    one, other = _ranks([first, second], responses)
    pairs = list(itertools.combinations(range(responses), 2))
    return sum(
        abs(_sign(one[i] - one[j]) - _sign(other[i] - other[j])) / 2 for i, j in pairs
    ) / len(pairs)


def share_of_first(order: Order, shown_first: int) -> float:
    """How much of the best place the response has that was shown first: 1, 0, or 1/n of n tied."""
    best = order[0] if isinstance(order[0], list) else [order[0]]
    return (shown_first in best) / len(best)


def _ranks(orders: Sequence[Order], responses: int) -> list[tuple[float, ...]]:
    return [ranks_of_order(order, responses, "order", "answer") for order in orders]


def _sign(x: float) -> int:
    return (x > 0) - (x < 0)


def _number(value: Any) -> int:  # noqa: ANN401
    """A response's number, from 0."""
    if isinstance(value, str) and (match := _NUMBER.fullmatch(value)):
        return int(match[1]) - 1
    if type(value) is int or (isinstance(value, float) and value.is_integer()):
        return int(value) - 1
    raise Unreadable(f'"order" holds {str(value)[:40]!r}, which is no number of a response')
