"""Accuracy, completeness and context of a response to one of the three ad tasks."""

import re
from collections.abc import Mapping
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

_BRAND = re.compile(
    r"\b(" + "|".join(words.BRANDS["seen"] + words.BRANDS["unseen"]) + r")\b", re.IGNORECASE
)
_PRODUCT = re.compile(
    rf"{_BRAND.pattern} (" + "|".join(words.NOUNS["seen"] + words.NOUNS["unseen"]) + r")\b",
    re.IGNORECASE,
)
_UNCONDITIONAL_PHRASES = tuple(
    phrase
    for name, policy in words.POLICIES.items()
    if name not in words.CONDITIONAL
    for phrase in (*policy.seen, *policy.unseen)
)
_IMPERATIVE = re.compile(
    r"^(try|enjoy|meet|get|discover|introducing|experience|choose|love|feel)\b", re.IGNORECASE
)
_LABEL = re.compile(
    r"^[^:\"]{0,40}\b(ad|version|text|rewrite|rewritten)\b[^:\"]{0,12}(:| is )", re.I
)


def _broken(facts: Mapping[str, Any]) -> dict[str, str]:
    return {violation["policy"]: violation["phrase"] for violation in facts["violations"]}


def _reasons(reading: Reading, broken: Mapping[str, str]) -> tuple[float, bool]:
    """Share of the violations whose reason is given, and whether a wrong reason is given."""
    given = {name for name, policy in words.POLICIES.items() if gives_reason(reading, policy.cues)}
    right = given & set(broken)
    return (len(right) / len(broken) if broken else 0.0), bool(given - set(broken))


def _fine_reason(reading: Reading, facts: Mapping[str, Any]) -> bool:
    """Whether the response says why an ad without violation is in order."""
    if facts["allowed"]:
        policy = words.POLICIES[facts["allowed"][0]["policy"]]
        return gives_reason(reading, policy.allowed_cues)
    return gives_reason(reading, words.CLEAN_CUES)


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
    if _PRODUCT.search(offered) and (label or _BRAND.match(offered) or _IMPERATIVE.match(offered)):
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
        breaks(name, phrase, facts["audience"], facts["channel"]) and _holds(new_ad, phrase)
        for name in words.CONDITIONAL
        for phrase in (*words.POLICIES[name].seen, *words.POLICIES[name].unseen)
    )


def judge_ad(reading: Reading, response: str, facts: Mapping[str, Any]) -> Judgement:
    """Judges the content of a response to an ad task against the ground truth."""
    task, broken = facts["task"], _broken(facts)
    needed = facts["needed_words"]
    named, denied = named_policies(reading)
    acquits, verdict = says_no_policy(reading), verdicts(reading)
    acquits |= task == "policy" and verdict == {True}  # "It is fine." answers that question, too

    stuffed = len(named) > max(1, len(broken)) or (named & denied)
    contradicts = len(verdict) == 2 or (bool(named) and (acquits or True in verdict))
    contradicts |= acquits and False in verdict
    other_task = task != "rewrite" and _is_rewrite(response, facts)
    if other_task:
        return Judgement(0.0, 0.0, 0.0, needed)
    if stuffed or contradicts:
        return Judgement(0.0, 0.0, 0.0, needed, muddle=1.0)

    precision = len(named & set(broken)) / len(named) if named else 1.0
    recall = len(named & set(broken)) / len(broken) if broken else float(acquits)
    reason, wrong_reason = _reasons(reading, broken)
    if not broken:
        reason = float(_fine_reason(reading, facts))
    foreign = _foreign(reading, response, facts)
    found = {"policy": recall, "reason": reason}
    slips = 1.0 * wrong_reason

    if task == "policy":
        exact, misquoted = _quotes(reading, facts)
        found["quote"] = exact
        slips += 1.0 * misquoted
        asked = bool(named) or acquits
        right = bool(named & set(broken)) if broken else acquits and not named
        accuracy = 2.0 * precision - slips
        if acquits and not named and broken:
            found = {}
        elif not asked:
            found = {"quote": exact}
    elif task == "compliance":
        asked = bool(verdict)
        right = verdict == {not broken} and not (acquits and broken) and not (named and not broken)
        found["verdict"] = float(right)
        accuracy = 1.0 + precision - slips
        if not right:
            found = {}
    else:
        new_ad = _new_ad(response, facts)
        asked = new_ad is not None
        kept = new_ad is not None and _holds(new_ad, facts["product"])
        kept = kept and _brands(new_ad) == _brands(facts["product"])
        right = kept and not _violates(new_ad, facts)
        found["product"] = float(right)
        found["benefit"] = float(right and _holds(new_ad, facts["benefit"]))
        accuracy = 1.0 + precision - slips
        if not asked:
            found = {}

    parts = PARTS["policy_clean" if task == "policy" and not broken else task]
    completeness = 2.0 * sum(share * found.get(part, 0.0) for part, share in parts.items())
    context = 2.0 if asked else 1.0 if found.get("quote") else 0.0
    return Judgement(
        accuracy=accuracy if right else 0.0,
        completeness=completeness,
        context=context - 1.0 * foreign,
        needed=needed,
    )
