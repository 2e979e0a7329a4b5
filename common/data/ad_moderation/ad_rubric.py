"""Accuracy, completeness and context of a response to one of the three ad tasks."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.ads import breaks
from common.data.ad_moderation.judgement import Judgement
from common.data.ad_moderation.reading import (
    Reading,
    bare,
    gives_reason,
    named_policies,
    normalise,
    says_no_policy,
    verdicts,
)

PARTS: dict[str, dict[str, float]] = {
    "policy": {"policy": 0.4, "quote": 0.3, "reason": 0.3},
    "policy_clean": {"policy": 0.5, "reason": 0.5},
    "compliance": {"verdict": 0.4, "policy": 0.3, "reason": 0.3},
    "rewrite": {"product": 0.3, "benefit": 0.2, "policy": 0.25, "reason": 0.25},
}
"""The parts that each task asks for, and their shares of completeness."""

_BRAND = re.compile(r"\b(" + "|".join(words.BRANDS) + r")\b", re.IGNORECASE)
_NOUN = "(?:" + "|".join(words.NOUNS) + ")"
_IMPERATIVE = "(?:try|enjoy|meet|get|discover|introducing|experience|choose|love|feel)"
_PRODUCT = re.compile(
    rf"\b[A-Z][a-z]+ {_NOUN}\b|(?i:{_BRAND.pattern} {_NOUN}\b)"
    rf"|^(?i:{_IMPERATIVE} )?{_BRAND.pattern}"
)
"""Something that names a product, right or wrong: a misspelt brand is an attempt, too."""

_UNCONDITIONAL_PHRASES = tuple(
    phrase
    for name, policy in words.POLICIES.items()
    if name not in words.CONDITIONAL
    for phrase in (*policy.seen, *policy.unseen)
)
_LABEL = re.compile(
    r"^[^:\"]{0,40}\b(ad|version|text|rewrite|rewritten)\b[^:\"]{0,12}(:| is )", re.I
)


def _fine_reason(reading: Reading, facts: Mapping[str, Any]) -> bool:
    """Whether the response says why an ad without violation is in order."""
    if facts["allowed"]:
        policy = words.POLICIES[facts["allowed"][0]["policy"]]
        return gives_reason(reading, policy.allowed_cues)
    return gives_reason(reading, words.CLEAN_CUES)


@dataclass(frozen=True)
class _Said:
    """The claims of a response, held against the ad.

    Attributes:
        text: the response, less what it copies from the prompt.
        broken: policies that the ad breaks.
        named: policies that the response says are broken.
        acquits: it says that no policy is.
        verdicts: whether the ad may run, as far as the response says so.
        precision, recall: shares of the named policies that are broken, and the reverse.
        reason: share of the reasons that is given.
        wrong_reason: the reason of a policy that the ad does not break is given.
        contradictory: it says one thing and its opposite, or hedges by naming many policies.
    """

    reading: Reading
    text: str
    broken: frozenset[str]
    named: frozenset[str]
    acquits: bool
    verdicts: frozenset[bool]
    precision: float
    recall: float
    reason: float
    wrong_reason: bool
    contradictory: bool


def _listen(reading: Reading, response: str, facts: Mapping[str, Any]) -> _Said:
    broken = frozenset(violation["policy"] for violation in facts["violations"])
    named, denied = named_policies(reading)
    verdict = verdicts(reading)
    acquits = says_no_policy(reading)
    # "It is fine." answers the question which policy is broken, too.
    acquits |= facts["task"] == "policy" and verdict == {True}
    reasons = {
        name for name, policy in words.POLICIES.items() if gives_reason(reading, policy.cues)
    }
    return _Said(
        reading=reading,
        text=response,
        broken=broken,
        named=frozenset(named),
        acquits=acquits,
        verdicts=frozenset(verdict),
        precision=len(named & broken) / len(named) if named else 1.0,
        recall=len(named & broken) / len(broken) if broken else float(acquits),
        reason=len(reasons & broken) / len(broken)
        if broken
        else float(_fine_reason(reading, facts)),
        wrong_reason=bool(reasons - broken),
        contradictory=len(named) > max(1, len(broken))
        or bool(named & denied)
        or len(verdict) == 2
        or (bool(named) and (acquits or True in verdict))
        or (acquits and False in verdict),
    )


def _brands(text: str) -> set[str]:
    return {match.group().lower() for match in _BRAND.finditer(text)}


def _foreign(reading: Reading, response: str, facts: Mapping[str, Any]) -> bool:
    """Whether the response speaks of another product, or quotes what the ad does not say."""
    ad = bare(facts["ad"])
    quotes = () if facts["task"] == "rewrite" else reading.quotes
    return bool(_brands(response) - _brands(facts["product"])) or any(
        quote and quote not in ad for quote in quotes
    )


def _quotes(reading: Reading, facts: Mapping[str, Any]) -> tuple[float, bool]:
    """Share of the offending phrases quoted exactly, and whether anything else is quoted."""
    offending = {bare(violation["phrase"]) for violation in facts["violations"]}
    harmless = {bare(facts["product"]), bare(facts["ad"]), ""}
    quoted = set(reading.quotes)
    exact = len(quoted & offending) / len(offending) if offending else 0.0
    return exact, bool(quoted - offending - harmless)


def _new_ad(response: str, facts: Mapping[str, Any]) -> str | None:
    """The rewritten ad within a response: the quotation, or else the sentence, that offers one."""
    text = normalise(response)
    spans = re.findall(r'"([^"]+)"', text)
    for span in spans:
        if _PRODUCT.search(span):
            return None if bare(span) == bare(facts["ad"]) else span
    opening = re.split(r"(?<=[.!?])\s+", text)[0].replace('"', "")
    label = _LABEL.match(opening)
    offered = opening[label.end() :].strip() if label else opening
    opens = re.match(rf"(?:{_IMPERATIVE} )?{_BRAND.pattern}", offered, re.IGNORECASE)
    if _PRODUCT.search(offered) and (label or opens):
        return None if bare(offered) == bare(facts["ad"]) else offered
    return None


_REWRITES = re.compile(
    r"\b(new|safe|safer|better|fixed|rewritten|revised|corrected) (ad|version)\b", re.IGNORECASE
)


def _is_rewrite(response: str, facts: Mapping[str, Any]) -> bool:
    """Whether a response that should not rewrite the ad offers a rewritten one all the same."""
    new_ad = _new_ad(response, facts)
    if new_ad is None:
        return False
    opens = normalise(response).startswith(f'"{new_ad}"')
    return opens or bare(new_ad) not in bare(facts["ad"]) or bool(_REWRITES.search(response))


def _holds(text: str, phrase: str) -> bool:
    return re.search(rf"\b{re.escape(phrase)}(?!\w)", text, re.IGNORECASE) is not None


def _violates(new_ad: str, facts: Mapping[str, Any]) -> bool:
    """Whether a rewritten ad keeps an offending phrase or brings in another one."""
    for violation in facts["violations"]:  # in any order, with anything between
        if all(_holds(new_ad, word) for word in re.findall(r"[\w%']+", violation["phrase"])):
            return True
    if any(_holds(new_ad, phrase) for phrase in _UNCONDITIONAL_PHRASES):
        return True
    return any(
        breaks(name, facts["audience"], facts["channel"]) and _holds(new_ad, phrase)
        for name in words.CONDITIONAL
        for phrase in (*words.POLICIES[name].seen, *words.POLICIES[name].unseen)
    )


@dataclass(frozen=True)
class _Verdict:
    """What one task makes of a response.

    Attributes:
        asked: the main thing asked for is there, right or wrong.
        right: and it is right.
        found: part of the task -> share of it that is given and right.
        slips: points of accuracy lost by wrong claims beside a right main part.
    """

    asked: bool
    right: bool
    found: dict[str, float]
    slips: float = 0.0


def _judge_policy(said: _Said, facts: Mapping[str, Any]) -> _Verdict:
    exact, misquoted = _quotes(said.reading, facts)
    asked = bool(said.named) or said.acquits
    found = {"quote": exact}
    if asked and not (said.acquits and said.broken):
        found |= {"policy": said.recall, "reason": said.reason}
    right = bool(said.named & said.broken) if said.broken else said.acquits
    return _Verdict(asked, right, found, slips=(1 - said.precision) * 2 + misquoted)


def _judge_compliance(said: _Said, facts: Mapping[str, Any]) -> _Verdict:
    right = said.verdicts == {not said.broken} and not (said.acquits and said.broken)
    right = right and not (said.named and not said.broken)
    found = {"verdict": 1.0, "policy": said.recall, "reason": said.reason} if right else {}
    return _Verdict(bool(said.verdicts), right, found, slips=1 - said.precision)


def _judge_rewrite(said: _Said, facts: Mapping[str, Any]) -> _Verdict:
    new_ad = _new_ad(said.text, facts)
    if new_ad is None:
        return _Verdict(False, False, {})
    right = (
        _holds(new_ad, facts["product"])
        and _brands(new_ad) == _brands(facts["product"])
        and not _violates(new_ad, facts)
    )
    found = {
        "product": float(right),
        "benefit": float(right and _holds(new_ad, facts["benefit"])),
        "policy": said.recall,
        "reason": said.reason,
    }
    return _Verdict(True, right, found, slips=1 - said.precision)


_JUDGES = {
    "policy": _judge_policy,
    "compliance": _judge_compliance,
    "rewrite": _judge_rewrite,
}


def judge_ad(reading: Reading, response: str, facts: Mapping[str, Any]) -> Judgement:
    """Judges the content of a response to an ad task against the ground truth."""
    task, needed = facts["task"], facts["needed_words"]
    if task != "rewrite" and _is_rewrite(response, facts):
        return Judgement(0.0, 0.0, 0.0, needed)
    said = _listen(reading, response, facts)
    if said.contradictory:
        return Judgement(0.0, 0.0, 0.0, needed, muddle=1.0)
    verdict = _JUDGES[task](said, facts)
    parts = PARTS["policy_clean" if task == "policy" and not said.broken else task]
    context = 2.0 if verdict.asked else 1.0 if verdict.found.get("quote") else 0.0
    return Judgement(
        accuracy=2.0 - verdict.slips - said.wrong_reason if verdict.right else 0.0,
        completeness=2.0 * sum(share * verdict.found.get(p, 0.0) for p, share in parts.items()),
        context=context - _foreign(reading, response, facts),
        needed=needed,
    )
