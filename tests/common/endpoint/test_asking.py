"""When a judge is asked no further."""

from common.endpoint.asking import (
    FAILURES_IN_A_ROW,
    REFUSALS_IN_A_ROW,
    UNANSWERED,
    Outcome,
    trouble_of,
)


def test_when_to_give_up():
    good, dead = Outcome(([0, 1], [0, 1])), Outcome(None, UNANSWERED)
    refused, unread = Outcome(None, UNANSWERED, lasting=True), Outcome(None, "could not be read")
    few, many = FAILURES_IN_A_ROW, REFUSALS_IN_A_ROW
    goes_on = [
        [dead] * (few - 1),
        [*[dead] * (few - 1), good],
        [good, *[dead] * (few - 1), unread, dead],
        [unread] * 99,
        [good, *[refused] * (many - 1)],
    ]
    stops = [[dead] * few, [good, *[dead] * few], [refused] * few, [good, *[refused] * many]]
    assert not any(map(trouble_of, goes_on)) and all(map(trouble_of, stops))
