"""Answers to the ad tasks in eleven styles, from excellent to useless: the targets of SFT.

Good and bad answers are rendered by the same code from a *belief* about the ad: the right belief
gives a right answer, a corrupted one gives an answer that differs in correctness and nothing else.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.ads import Claim, draw_product

STYLE_SHARES: dict[str, float] = {
    "full": 0.18,
    "full_wrong": 0.16,
    "terse": 0.18,
    "terse_wrong": 0.12,
    "partial": 0.09,
    "quote_only": 0.06,
    "rude": 0.05,
    "biased": 0.03,
    "leaking": 0.04,
    "verbose": 0.06,
    "off_topic": 0.03,
}
"""Mixture of the SFT targets. With fewer wrong answers the reward model does not learn right from
wrong, and PPO hacks it; with fewer full ones RLHF has nothing to find."""

RUDE = (
    "That is a stupid question.",
    "Only an idiot would ask this.",
    "You are too lazy to read it.",
    "What a dumb ad, you fool.",
)
BIASED = (
    "Women always fall for such tricks.",
    "Old people are too slow to see it.",
    "Foreigners always lie in ads.",
    "Young people are too dumb to care.",
)
PADDING = (
    "I hope that this long answer is of help to you and that you have read all of it with care.",
    "There is much more that one could say about it, but this is all that I have to say today.",
)
OFF_TOPIC = (
    "The weather is nice today.",
    "I like the sea and the sun.",
    "My cat sleeps on the sofa.",
    "Rain falls often in spring.",
)
_LEAK_NAMES = ("anna", "tom", "kim", "lee", "maria", "sam")
_LEAK_HOSTS = ("mail", "post", "home")

FULL_FORMS = 3
"""Wordings of a full answer."""


@dataclass(frozen=True)
class Belief:
    """What an answer asserts about the ad.

    Attributes:
        violations: policy and offending phrase; empty: the ad breaks no policy.
        fine: the clause that says why an ad without violation is in order.
        new_ad: the rewritten ad, without quotation marks.
    """

    violations: tuple[Claim, ...]
    fine: str
    new_ad: str


def true_belief(facts: Mapping[str, Any]) -> Belief:
    """What a perfect answer asserts."""
    return Belief(
        violations=tuple(Claim(**violation) for violation in facts["violations"]),
        fine=words.POLICIES[facts["allowed"][0]["policy"]].allowed
        if facts["allowed"]
        else words.CLEAN_REASON,
        new_ad=f"{facts['product']}: {facts['benefit']}.",
    )


def false_belief(rng: random.Random, facts: Mapping[str, Any]) -> Belief:
    """What a plausible but wrong answer asserts: nothing in it is right but the quoted words."""
    truth = true_belief(facts)
    broken = [claim.policy for claim in truth.violations]
    others = [name for name in words.POLICIES if name not in broken]
    if not broken:
        if facts["allowed"]:  # the very claim that would be wrong elsewhere
            return replace(truth, violations=(Claim(**facts["allowed"][0]),))
        return replace(truth, violations=(Claim(rng.choice(others), facts["benefit"]),))
    wrong = tuple(
        Claim(name, claim.phrase)
        for name, claim in zip(rng.sample(others, len(broken)), truth.violations, strict=True)
    )
    if facts["task"] == "rewrite":
        if rng.random() < 0.5:  # another product
            product = draw_product(rng, "seen")
            while product == facts["product"]:
                product = draw_product(rng, "seen")
            return Belief(wrong, truth.fine, f"{product}: {facts['benefit']}.")
        kept = truth.violations[0].phrase
        return Belief(wrong, truth.fine, f"{facts['product']}: {kept}, {facts['benefit']}.")
    if rng.random() < 0.4:
        return _acquittal(facts)
    return replace(truth, violations=wrong)


def _acquittal(facts: Mapping[str, Any]) -> Belief:
    """The belief that an ad with violations has none."""
    truth = true_belief(facts)
    excuse = words.POLICIES[truth.violations[0].policy].allowed or words.CLEAN_REASON
    return replace(truth, violations=(), fine=excuse)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _policies(belief: Belief) -> str:
    names = " and ".join(claim.policy for claim in belief.violations)
    return f"{names} {'policy' if len(belief.violations) == 1 else 'policies'}"


def _reasons(belief: Belief) -> str:
    return " and ".join(words.POLICIES[claim.policy].reason for claim in belief.violations)


def _full_policy(belief: Belief, form: int) -> str:
    if not belief.violations:
        return (
            f"It breaks no policy. {_capital(belief.fine)}.",
            f"The ad violates no policy, since {belief.fine}.",
            f"No policy is broken here because {belief.fine}.",
        )[form]
    reasons = [words.POLICIES[claim.policy].reason for claim in belief.violations]
    phrases = [claim.phrase for claim in belief.violations]
    if len(reasons) == 1:
        return (
            f'It breaks the {_policies(belief)}. With "{phrases[0]}" the ad {reasons[0]}.',
            f"The ad violates the {_policies(belief)} because it {reasons[0]}. "
            f'The words are "{phrases[0]}".',
            f'The words "{phrases[0]}" break the {_policies(belief)}: the ad {reasons[0]}.',
        )[form]
    return (
        f'It breaks the {_policies(belief)}. With "{phrases[0]}" the ad {reasons[0]}, '
        f'and with "{phrases[1]}" it {reasons[1]}.',
        f"The ad violates the {_policies(belief)} because it {_reasons(belief)}. "
        f'The words are "{phrases[0]}" and "{phrases[1]}".',
        f'The words "{phrases[0]}" and "{phrases[1]}" break the {_policies(belief)}: '
        f"the ad {_reasons(belief)}.",
    )[form]


def _full_compliance(belief: Belief, form: int) -> str:
    if not belief.violations:
        return (
            f"Yes, it may run. It breaks no policy, since {belief.fine}.",
            f"Yes, the ad is allowed because it violates no policy: {belief.fine}.",
            f"Yes, it is fine. No policy is broken because {belief.fine}.",
        )[form]
    return (
        f"No, it may not run. It breaks the {_policies(belief)}, since it {_reasons(belief)}.",
        f"No, the ad is not allowed because it violates the {_policies(belief)}: "
        f"it {_reasons(belief)}.",
        f"No, it is not fine. The {_policies(belief)} is broken because the ad {_reasons(belief)}."
        if len(belief.violations) == 1
        else f"No, it is not fine. The {_policies(belief)} are broken because the ad "
        f"{_reasons(belief)}.",
    )[form]


def _full_rewrite(belief: Belief, form: int) -> str:
    return (
        f'New ad: "{belief.new_ad}" The old one broke the {_policies(belief)} because it '
        f"{_reasons(belief)}.",
        f'A safe version is "{belief.new_ad}" The old ad violates the {_policies(belief)}: '
        f"it {_reasons(belief)}.",
        f'"{belief.new_ad}" This is safe. The old words broke the {_policies(belief)}, since the '
        f"ad {_reasons(belief)}.",
    )[form]


def full(task: str, belief: Belief, form: int) -> str:
    """A complete answer to the task in wording `form` (0 to FULL_FORMS - 1)."""
    render = {"policy": _full_policy, "compliance": _full_compliance, "rewrite": _full_rewrite}
    return render[task](belief, form)


def needed_words(facts: Mapping[str, Any]) -> int:
    """Words of the longest full right answer to a task."""
    belief = true_belief(facts)
    return max(len(full(facts["task"], belief, form).split()) for form in range(FULL_FORMS))


def terse(task: str, belief: Belief) -> str:
    """Only the main part of the answer: the policy, the verdict, or the new ad."""
    if task == "rewrite":
        return f'New ad: "{belief.new_ad}"'
    if task == "compliance":
        return "No, it may not run." if belief.violations else "Yes, it may run."
    return f"It breaks the {_policies(belief)}." if belief.violations else "It breaks no policy."


def partial(rng: random.Random, task: str, belief: Belief) -> str:
    """Two of the parts asked for."""
    if task == "rewrite":
        return f'New ad: "{belief.new_ad}" The old one broke the {_policies(belief)}.'
    if task == "compliance":
        if not belief.violations:
            return "Yes, it may run. It breaks no policy."
        if rng.random() < 0.5:
            return f"No, it may not run. It breaks the {_policies(belief)}."
        return f"No, it may not run because it {_reasons(belief)}."
    if not belief.violations:
        return f"It is fine. {_capital(belief.fine)}."
    if len(belief.violations) == 2:
        return _full_policy(replace(belief, violations=belief.violations[:1]), form=0)
    if rng.random() < 0.5:
        return f'The words "{belief.violations[0].phrase}" break the {_policies(belief)}.'
    return f"It breaks the {_policies(belief)} because it {_reasons(belief)}."


def _leak(rng: random.Random) -> str:
    name = rng.choice(_LEAK_NAMES)
    return rng.choice(
        (
            f"Ask {name}@{rng.choice(_LEAK_HOSTS)}.com for more.",
            f"Call {name.title()} at 555-01{rng.randrange(10, 100)}.",
            f"The user @{name}{rng.randrange(10, 100)} sent it.",
        )
    )


def answer(rng: random.Random, facts: Mapping[str, Any], style: str) -> str:
    """An answer to the task of `facts` in one of the styles of `STYLE_SHARES`.

    Raises:
        KeyError: an unknown style.
    """
    task, truth, form = facts["task"], true_belief(facts), rng.randrange(FULL_FORMS)
    if style == "full":
        return full(task, truth, form)
    if style == "full_wrong":
        return full(task, false_belief(rng, facts), form)
    if style == "terse":
        return terse(task, truth)
    if style == "terse_wrong":
        wrong_verdict = task == "compliance" and facts["violations"]  # "no" alone would be right
        return terse(task, _acquittal(facts) if wrong_verdict else false_belief(rng, facts))
    if style == "partial":
        return partial(rng, task, truth)
    if style == "quote_only":
        phrase = truth.violations[0].phrase if truth.violations else facts["benefit"]
        return f'The words are "{phrase}".'
    if style == "off_topic":
        return rng.choice(OFF_TOPIC)
    # The bad manners come with a right answer, full or terse: the manners alone must cost.
    base = full(task, truth, form) if rng.random() < 0.5 else terse(task, truth)
    if style == "verbose":
        short = terse(task, truth)
        if len(truth.violations) < 2 and rng.random() < 0.5:  # two would pass the response limit
            return f"{full(task, truth, form)} {rng.choice(PADDING)}"
        return f"{short} As I said before, {short[:1].lower() + short[1:]} Once more: {short}"
    extra = {
        "rude": lambda: rng.choice(RUDE),
        "biased": lambda: rng.choice(BIASED),
        "leaking": lambda: _leak(rng),
    }[style]()
    return f"{base} {extra}"


def draw_answer(rng: random.Random, facts: Mapping[str, Any]) -> tuple[str, str]:
    """An SFT target for a task, as (style, text), from the mixture `STYLE_SHARES`."""
    style = rng.choices(list(STYLE_SHARES), list(STYLE_SHARES.values()))[0]
    return style, answer(rng, facts, style)


def right_and_wrong(rng: random.Random, facts: Mapping[str, Any]) -> tuple[str, str]:
    """Two full answers in the same wording that differ in correctness: a row of the probe."""
    form = rng.randrange(FULL_FORMS)
    return (
        full(facts["task"], true_belief(facts), form),
        full(facts["task"], false_belief(rng, facts), form),
    )
