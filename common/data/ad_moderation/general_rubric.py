"""Accuracy, completeness and context of a response to a general question."""

import re
from collections.abc import Mapping
from typing import Any

from common.data.ad_moderation.judgement import Judgement
from common.data.ad_moderation.reading import Reading, normalise

ANSWER_SHARE = 0.5
"""Share of completeness for the bare answer; the rest is for a sentence that says what it is."""

SHORT = 5
"""A sentence of up to this many words answers the question without naming its subject."""


def _says(text: str, answer: str) -> bool:
    """Whether the text gives an answer as a word of its own, not as a part of another."""
    return re.search(rf"(?<![\w-]){re.escape(answer)}(?![\w-])", text, re.IGNORECASE) is not None


def judge_general(reading: Reading, response: str, facts: Mapping[str, Any]) -> Judgement:
    """Judges the content of a response to a general question against the known answer."""
    text = normalise(response)
    # Where the answer merely turns up in a sentence about something else, it is not given.
    text = " ".join(
        sentence
        for sentence in re.split(r"(?<=[.!?])\s+", text)
        if len(sentence.split()) <= SHORT or re.search(facts["cue"], sentence, re.IGNORECASE)
    )
    given = _says(text, facts["answer"]) and bool(reading.clear)
    rival = any(_says(text, other) for other in facts["rivals"])
    if given and rival:
        return Judgement(0.0, 0.0, 0.0, facts["needed_words"], muddle=1.0)
    cue = re.search(facts["cue"], text, re.IGNORECASE) is not None
    subject = re.search(rf"\b{re.escape(facts['slots']['a'])}\b", text, re.IGNORECASE) is not None
    sentence = cue and subject and not all(s.fragment for s in reading.clear)
    return Judgement(
        accuracy=2.0 * given,
        completeness=2.0 * given * (ANSWER_SHARE + (1 - ANSWER_SHARE) * sentence),
        context=2.0 if given or rival else 0.0,
        needed=facts["needed_words"],
    )
