"""The three questions about an ad: which policy does it break, may it run, rewrite it.

A task is a prompt and its *facts*: the JSON-serialisable ground truth that the rubric scores with.
"""

import random
from dataclasses import dataclass
from typing import Any, Literal

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.ads import Ad, draw_ad
from common.data.ad_moderation.answers import needed_words
from common.data.ad_moderation.vocabulary import Pool

TaskName = Literal["policy", "compliance", "rewrite"]

TASK_SHARES: dict[TaskName, float] = {"policy": 0.42, "compliance": 0.30, "rewrite": 0.28}
CLEAN_SHARES: dict[TaskName, float] = {"policy": 0.12, "compliance": 0.32, "rewrite": 0.0}
"""Share of ads without a violation, by task: 14 % over all. A rewrite needs one to remove."""

HINT_SHARE = 0.5
"""Share of the rewrite prompts with one violation that say what is wrong, in some wording."""

QUESTIONS: dict[TaskName, dict[Pool, tuple[str, ...]]] = {
    "policy": {
        "seen": (
            "Which policy does it break? Quote the words and say why.",
            "Name the policy it breaks, the words and the reason.",
            "What policy do which words break, and why?",
            "Which rule is broken? Give the policy, the words and the reason.",
            "Say which policy it breaks, quote the words and explain.",
            "Which policy is broken here, by which words, and why?",
            "Quote the words that break a policy, name it and explain.",
            "Give the words, the broken policy and the reason.",
            "What rule is broken here? Quote the words and give the reason.",
        ),
        "unseen": (
            "Quote the words, name the policy they break and say why.",
            "What rule does it break? Quote the words and explain.",
            "Give the reason, the words and the broken policy.",
        ),
    },
    "compliance": {
        "seen": (
            "May it run? Name the policy and the reason.",
            "Is it allowed? Give the policy and say why.",
            "Can we run it? Explain with the policy.",
            "Is it compliant? Name any policy it breaks and why.",
            "Should we accept it? Say which policy and why.",
            "Is this ad fine? Give the policy and the reason.",
            "Could we accept it? Say why and name the policy.",
            "May this ad run? Give the reason and the policy.",
            "Can they run this ad? Name the policy and say why.",
        ),
        "unseen": (
            "Can we accept it? Name the policy and say why.",
            "Is this ad allowed? Explain with the policy.",
            "May we run this ad? Give the reason and the policy.",
        ),
    },
    "rewrite": {
        "seen": (
            "Rewrite it without the violation. Name the policy and the reason.",
            "Write a safe version. Say which policy it broke and why.",
            "Fix this ad. Name the broken policy and the reason.",
        ),
        "unseen": (
            "Rewrite this ad. Say which policy it broke and why.",
            "Fix it. Name the policy and say why.",
        ),
    },
}
HINT_QUESTIONS: dict[Pool, tuple[str, ...]] = {
    "seen": (
        "Rewrite it without the {hint}. Name the policy and say why.",
        "Fix the {hint}, name the policy and explain.",
        "Write a version free of {hint}. Name the policy and the reason.",
    ),
    "unseen": (
        "Write a safe version without the {hint}. Name the policy and explain.",
        "Rewrite this ad free of {hint}, name the policy and say why.",
    ),
}


@dataclass(frozen=True)
class Task:
    """A prompt with the ground truth about it (`facts` goes through JSON unchanged)."""

    prompt: str
    facts: dict[str, Any]


def draw_task(rng: random.Random, pool: Pool, *, name: TaskName | None = None) -> Task:
    """A random ad and a question about it, all words from one half of the vocabulary."""
    if name is None:
        name = rng.choices(list(TASK_SHARES), list(TASK_SHARES.values()))[0]
    ad = draw_ad(rng, pool, clean=rng.random() < CLEAN_SHARES[name])
    question = rng.choice(QUESTIONS[name][pool])
    if name == "rewrite" and len(ad.violations) == 1 and rng.random() < HINT_SHARE:
        hint = rng.choice(words.POLICIES[ad.violations[0].policy].hints(pool))
        question = rng.choice(HINT_QUESTIONS[pool]).format(hint=hint)
    return make_task(name, ad, question)


def make_task(name: TaskName, ad: Ad, question: str) -> Task:
    """The task that asks `question`, of kind `name`, about `ad`."""
    facts: dict[str, Any] = {
        "domain": "ads",
        "task": name,
        "ad": ad.text,
        "question": question,
        "product": ad.product,
        "benefit": ad.benefit,
        "audience": ad.audience,
        "channel": ad.channel,
        "violations": [{"policy": c.policy, "phrase": c.phrase} for c in ad.violations],
        "allowed": [{"policy": c.policy, "phrase": c.phrase} for c in ad.allowed],
    }
    facts["needed_words"] = needed_words(facts)
    return Task(f'Ad for {ad.audience} on {ad.channel}: "{ad.text}" {question}', facts)
