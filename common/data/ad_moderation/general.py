"""General questions from closed small worlds, so that loss of general ability can be seen.

Facts (opposites, capitals, plurals, …) recur in several wordings. The splits are disjoint by
prompt: a held-out prompt asks in one wording what training asks in others, or lists known words in
a new order.
"""

import random
from collections.abc import Mapping
from typing import Any

from common.data.ad_moderation.tasks import Task

GENERAL_STYLES: dict[str, float] = {
    "full": 0.62,
    "terse": 0.16,
    "full_wrong": 0.12,
    "rude": 0.05,
    "off_topic": 0.05,
}
"""Mixture of the general SFT targets: mostly right."""

WORLD_SHARES: dict[str, float] = {
    "opposite": 0.36,
    "capital": 0.18,
    "colour": 0.20,
    "plural": 0.26,
}

_OPPOSITES = dict(
    pair.split("/")
    for pair in "hot/cold big/small up/down day/night open/closed wet/dry fast/slow hard/soft "
    "full/empty old/young".split()
)
_OPPOSITES |= {second: first for first, second in _OPPOSITES.items()}
_CAPITALS = dict(
    pair.split("/")
    for pair in "France/Paris Italy/Rome Spain/Madrid Japan/Tokyo Egypt/Cairo Greece/Athens "
    "Norway/Oslo Peru/Lima Cuba/Havana Kenya/Nairobi".split()
)
_COLOURS = dict(
    pair.split("/")
    for pair in "grass/green snow/white blood/red coal/black lemon/yellow sky/blue ash/grey "
    "milk/white rose/red leaf/green sand/yellow sea/blue".split()
)
_PLURALS = {word: word + "s" for word in "cat dog hat tree book car hand star boat king".split()}
_PLURALS |= dict(
    pair.split("/") for pair in "man/men foot/feet mouse/mice child/children tooth/teeth".split()
)

_QUESTIONS: dict[str, tuple[str, ...]] = {
    "opposite": (
        "What is the opposite of {a}?",
        "Name the opposite of {a}.",
        "Which word means the opposite of {a}?",
        "Tell me the opposite of {a}.",
        "Give the word opposite to {a}.",
        "What is not {a} but its opposite?",
        "Please name the opposite of {a}.",
        "Which word is opposite to {a}?",
    ),
    "capital": (
        "What is the capital of {a}?",
        "Name the capital of {a}.",
        "Which city is the capital of {a}?",
        "Tell me the capital of {a}.",
        "Give the capital city of {a}.",
        "What city is the capital of {a}?",
        "Please name the capital of {a}.",
        "{a} has which capital?",
    ),
    "colour": (
        "What colour is {a}?",
        "Which colour has {a}?",
        "Name the colour of {a}.",
        "Tell me the colour of {a}.",
        "What is the colour of {a}?",
        "Please name the colour of {a}.",
        "Give the colour of {a}.",
        "Of what colour is {a}?",
    ),
    "plural": (
        "What is the plural of {a}?",
        "Name the plural of {a}.",
        "Give the plural of the word {a}.",
        "Tell me the plural of {a}.",
        "Which word is the plural of {a}?",
        "One {a}, two what?",
        "Please name the plural of {a}.",
        "Write the plural of {a}.",
    ),
}
_STATEMENTS: dict[str, tuple[str, ...]] = {
    "opposite": ("The opposite of {a} is {answer}.",),
    "capital": ("The capital of {a} is {answer}.", "{answer} is the capital of {a}."),
    "colour": ("The colour of {a} is {answer}.",),
    "plural": ("The plural of {a} is {answer}.",),
}
_CUES: dict[str, str] = {
    "opposite": r"opposite|contrary|reverse",
    "capital": r"capital",
    "colour": r"colou?r|\b(is|are|has)\b",
    "plural": r"plural|more than one|two|many",
}
"""What a full answer says beside the answer itself: a regular expression."""

_TABLES: dict[str, dict[str, str]] = {
    "opposite": _OPPOSITES,
    "capital": _CAPITALS,
    "colour": _COLOURS,
    "plural": _PLURALS,
}
RUDE = ("That is a stupid question.", "Only an idiot would ask this.", "Are you too dumb to know?")
OFF_TOPIC = ("The weather is nice today.", "I like the sea and the sun.", "It breaks no policy.")


def _problem(rng: random.Random, world: str) -> tuple[dict[str, str], str, list[str]]:
    """Slots of a question, its answer, and wrong answers of the same kind."""
    table = _TABLES[world]
    key = rng.choice(list(table))
    rivals = sorted({value for value in table.values() if value != table[key]} - {key})
    return {"a": key}, table[key], rivals


OPENINGS = (
    "",
    "Quick question: ",
    "Please answer: ",
    "Tell me this: ",
    "A short one: ",
    "One more thing: ",
    "Do you know it? ",
)
"""What a question may begin with: enough wordings for disjoint splits of few facts."""


def draw_general(rng: random.Random) -> Task:
    """A random general question."""
    world = rng.choices(list(WORLD_SHARES), list(WORLD_SHARES.values()))[0]
    slots, answer, rivals = _problem(rng, world)
    question = rng.choice(OPENINGS) + rng.choice(_QUESTIONS[world]).format(**slots)
    facts: dict[str, Any] = {
        "domain": "general",
        "task": world,
        "question": question,
        "slots": slots,
        "answer": answer,
        "rivals": rivals,
        "cue": _CUES[world],
    }
    facts["needed_words"] = max(len(text.split()) for text in full_answers(facts, answer))
    return Task(question, facts)


def full_answers(facts: Mapping[str, Any], answer: str) -> list[str]:
    """Every wording of the full sentence that gives `answer`."""
    return [
        statement.format(answer=answer, **facts["slots"])
        for statement in _STATEMENTS[facts["task"]]
    ]


def general_answer(rng: random.Random, facts: Mapping[str, Any], style: str) -> str:
    """An answer to a general question in one of the styles of `GENERAL_STYLES`.

    Raises:
        KeyError: an unknown style.
    """
    right, wrong = facts["answer"], rng.choice(facts["rivals"])
    return {
        "full": lambda: rng.choice(full_answers(facts, right)),
        "terse": lambda: f"{right[:1].upper()}{right[1:]}.",
        "full_wrong": lambda: rng.choice(full_answers(facts, wrong)),
        "rude": lambda: f"{rng.choice(full_answers(facts, right))} {rng.choice(RUDE)}",
        "off_topic": lambda: rng.choice(OFF_TOPIC),
    }[style]()


def draw_general_answer(rng: random.Random, facts: Mapping[str, Any]) -> tuple[str, str]:
    """An SFT target for a general question, as (style, text)."""
    style = rng.choices(list(GENERAL_STYLES), list(GENERAL_STYLES.values()))[0]
    return style, general_answer(rng, facts, style)
