"""What scripted endpoints answer as judges."""

import json
import re

from tests.step2_reward.ai_feedback.test_rubric import pieces


def completion(text, tokens=10):
    """A chat completion: https://platform.openai.com/docs/api-reference/chat/object."""
    usage = {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    return {
        "id": "x",
        "object": "chat.completion",
        "choices": [choice | {"finish_reason": "stop"}],
        "usage": usage,
    }


def shown(body):
    """The responses in the order in which a request shows them."""
    found = pieces(body["messages"][1]["content"])
    return [found[f"RESPONSE {i}"] for i in range(1, len(found))]


def order_by(key):
    """A judge who puts the lowest key first; equal ones tie."""

    def judge(body):
        texts = shown(body)
        keys = [key(text) for text in texts]
        groups = [[i for i, k in enumerate(keys, 1) if k == value] for value in sorted(set(keys))]
        order = [g if len(g) > 1 else g[0] for g in groups]
        return 200, completion(json.dumps({"order": order}))

    return judge


def first_is_best(body):
    """A judge who looks at places only."""
    return 200, completion(json.dumps({"order": list(range(1, len(shown(body)) + 1))}))


def nonsense_at_first(judge, times):
    """Cannot be read at the first tries, which the question tells."""

    def answer(body):
        tried = re.search(r"\(Try (\d+):", body["messages"][1]["content"])
        attempt = int(tried[1]) - 1 if tried else 0
        return judge(body) if attempt >= times else (200, completion("Response 2, I think?"))

    return answer
