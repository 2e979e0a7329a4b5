"""JSON objects in what a judge answered, whatever it wrote around them."""

import json
from typing import Any

LONGEST_READ = 100_000
"""Characters at the end of an answer that are looked through."""


class Unreadable(ValueError):
    """The answer does not hold what was asked for; the text says what is wrong with it."""


def objects_in(answer: str) -> list[dict[str, Any]]:
    """The JSON objects in an answer, not those inside of others, nor in reasoning before it."""
    text = answer.rpartition("</think>")[2][-LONGEST_READ:]
    decoder, found, start = json.JSONDecoder(), [], text.find("{")
    while start >= 0:
        try:
            value, end = decoder.raw_decode(text, start)
            found.append(value)
        except (ValueError, RecursionError):
            end = start + 1
        start = text.find("{", end)
    return found
