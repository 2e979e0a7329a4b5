"""The judge ranks the responses to a prompt, in both orders."""

from collections.abc import Sequence

from common.data.labeled import Order, Sample
from common.endpoint.asking import Asker, LeftOut, Outcome
from common.reward.callers import text_of
from step2_reward.ai_feedback.orders import read_order
from step2_reward.ai_feedback.rubric import messages_for

Ranked = Outcome[tuple[Order, ...]]
"""What the judge made of one prompt: two orders, or the reason why there are none."""


def rank(asker: Asker, sample: Sample) -> tuple[Order, ...]:
    """Asks for the order of one prompt's responses, as they stand and the other way round.

    Raises:
        LeftOut: there is nothing to compare; and whatever `Asker.ask` raises.
    """
    if len(set(sample.responses)) < 2:
        raise LeftOut("prompts without two different responses")
    straight = list(range(len(sample.responses)))
    orders: list[Order] = []
    for shown in (straight, straight[::-1]):
        texts = [sample.responses[i] for i in shown]

        def messages(attempt: int, texts: Sequence[str] = texts) -> list[dict[str, str]]:
            return messages_for(text_of(sample.messages), texts, attempt)

        order = asker.ask(messages, lambda answer: read_order(answer, len(straight)))
        orders.append(_as_in_file(order, shown))
    return tuple(orders)


def _as_in_file(order: Order, shown: Sequence[int]) -> Order:
    """An order of what was shown, in the numbers that the responses have in the file."""
    return [sorted(shown[i] for i in g) if isinstance(g, list) else shown[g] for g in order]
