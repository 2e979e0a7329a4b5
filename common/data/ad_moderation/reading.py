"""What a response says, read from free text: sentences, quotations, policies, verdict, reasons.

Nothing here matches a template. Quotations and policy names become single tokens, sentences are
split, and each claim is looked up by its cue words inside one sentence. A sentence whose words do
not follow each other as English words can is *garbled*: whatever it mentions, it claims nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.data.ad_moderation import grammar
from common.data.ad_moderation import vocabulary as words

_NAMES: dict[str, str] = {
    wording.lower(): policy.name
    for policy in words.POLICIES.values()
    for wording in (policy.name, *policy.seen_names, *policy.unseen_names)
}
_POLICY_IDS = {name: f"Policy{i}p" for i, name in enumerate(words.POLICIES)}
_POLICY_OF_ID = {token.lower(): name for name, token in _POLICY_IDS.items()}
_NAME = "(?:" + "|".join(sorted(map(re.escape, _NAMES), key=len, reverse=True)) + ")"
_LIST = rf"(?:the )?{_NAME}(?:(?:,? and (?:also )?|, |,? or |/)(?:the )?{_NAME})*"
_RULE = r"(?:polic(?:y|ies)|rules?|guidelines?)"
_BEFORE = "|".join(
    rf"(?<=\b{word} )"
    for word in (
        *("break", "breaks", "broke", "breaking", "violate", "violates", "violated", "violating"),
        *("breach", "breaches", "breached", "violation of", "breach of", "falls under"),
        *(
            f"{rule} {link}"
            for rule in ("policy", "policies", "rule", "rules", "guideline", "guidelines")
            for link in ("on", "about", "against", "for", "of")
        ),
    )
)
_NAMED = re.compile(
    rf"\b{_LIST}(?= {_RULE}\b)|(?:{_BEFORE}){_LIST}|(?<=\bpolicy: ){_LIST}(?=[.,;!]|$)",
    re.IGNORECASE,
)
_ONE_NAME = re.compile(rf"\b{_NAME}\b", re.IGNORECASE)
_CLEAR_NAME = re.compile(
    r"\b(?:" + "|".join(sorted((n for n in _NAMES if " " in n), key=len, reverse=True)) + r")\b",
    re.IGNORECASE,
)
"""Names of two words and more mean a policy wherever they stand; "alcohol" alone may not."""

_WORD = re.compile(r"[A-Za-z0-9@%$']+(?:-[A-Za-z0-9]+)*")
_BARE_QUOTE = re.compile(r"(?<!\w)'([^'\"]+)'(?!\w)")

_LABEL = re.compile(r"^(?:[\w ]{0,30}:\s*)?Quote\d+q\W*$", re.IGNORECASE)


TOO_MUCH_REPEATED = 0.45
"""Share of a text that was said before from which on it is of no use: less than all of it twice."""


@dataclass(frozen=True)
class Sentence:
    """One sentence of a response.

    Attributes:
        text: its words, with quotations and policy names replaced by tokens.
        slips: places where two words cannot follow each other.
        garbled: too many slips for what it says to be understood.
        fragment: it has no verb and is no short answer such as "No."
    """

    text: str
    slips: int
    garbled: bool
    fragment: bool


@dataclass(frozen=True)
class Reading:
    """A response, read.

    Attributes:
        sentences: in order.
        quotes: what stands between quotation marks, and phrases of the ad that are singled out
            without marks; lower case, without punctuation at the ends.
        words: number of words, quotations counted.
        repeated: share of the text that was said before.
        finished: the text ends with a closing mark.
        unpaired: a quotation mark is left open.
    """

    sentences: tuple[Sentence, ...]
    quotes: tuple[str, ...]
    words: int
    repeated: float
    finished: bool
    unpaired: bool

    @property
    def clear(self) -> tuple[Sentence, ...]:
        """The sentences that can be understood."""
        return tuple(sentence for sentence in self.sentences if not sentence.garbled)

    @property
    def degenerate(self) -> bool:
        """Most of the text is garbled or repetition: nobody could use it as an answer."""
        sane = sum(len(s.text.split()) for s in self.clear)
        total = sum(len(s.text.split()) for s in self.sentences)
        return self.repeated > TOO_MUCH_REPEATED or sane * 2 < total


def normalise(text: str) -> str:
    """Straight quotation marks, single spaces."""
    text = text.translate(str.maketrans("“”„«»‘’", '"""""\'\''))
    text = _BARE_QUOTE.sub(r'"\1"', text)
    return re.sub(r"\s+", " ", text).strip()


def bare(text: str) -> str:
    """Lower case, single spaces, no punctuation at the ends: for comparing quotations."""
    return re.sub(r"\s+", " ", text).strip(" .,!?;:\"'").lower()


def _sentence(text: str) -> Sentence:
    length = len(_WORD.findall(text))
    slips = grammar.slips(text)
    short_answer = length <= 2 or _LABEL.match(text) is not None
    return Sentence(
        text=text,
        slips=slips,
        garbled=slips >= 2 or (slips == 1 and 3 <= length <= 12 and not text[:1].islower()),
        fragment=not short_answer and not grammar.has_verb(text),
    )


def _repeated(sentences: list[str]) -> float:
    """Share of the text that was said before: in whole sentences or in runs of four words."""
    low = [tuple(word.lower() for word in _WORD.findall(sentence)) for sentence in sentences]
    total = sum(map(len, low))
    fresh = sum(map(len, set(low)))
    text = [word for sentence in low for word in sentence]
    grams = list(zip(text, text[1:], text[2:], text[3:], strict=False))
    by_grams = 1 - len(set(grams)) / len(grams) if grams else 0.0
    return max(1 - fresh / total if total else 0.0, by_grams)


def _mask_policies(text: str) -> str:
    def token(match: re.Match[str]) -> str:
        return _POLICY_IDS[_NAMES[match.group().lower()]]

    text = _NAMED.sub(lambda found: _ONE_NAME.sub(token, found.group()), text)
    return _CLEAR_NAME.sub(token, text)


def read(response: str, phrases: tuple[str, ...] = ()) -> Reading:
    """Reads a response.

    Args:
        response: the text, without the end token.
        phrases: phrases of the ad, which count as quotations even without quotation marks.
    """
    text = normalise(response)
    quotes: list[str] = []

    def token(quoted: str) -> str:
        if bare(quoted) not in quotes:  # the same quotation is the same token: repetition shows
            quotes.append(bare(quoted))
        return f"Quote{quotes.index(bare(quoted))}q"

    def quote(match: re.Match[str]) -> str:
        rest = match.string[match.end() :]
        ends = re.search(r"[.!?]\s*$", match.group(1)) and re.match(r"\s*($|[A-Z\"])", rest)
        return token(match.group(1)) + ("." if ends else "")

    masked = re.sub(r'"([^"]*)"', quote, text)
    for phrase in phrases:
        if re.search(rf"\b{re.escape(phrase)}\b", masked, re.IGNORECASE):
            masked = re.sub(rf"\b{re.escape(phrase)}\b", token(phrase), masked, flags=re.IGNORECASE)
    masked = _mask_policies(masked)
    pieces = [piece for piece in re.split(r"(?<=[.!?])\s+", masked) if _WORD.search(piece)]
    return Reading(
        sentences=tuple(_sentence(piece) for piece in pieces),
        quotes=tuple(quotes),
        words=len(_WORD.findall(text)),
        repeated=_repeated(pieces),
        finished=re.search(r"[.!?][\"')]*$", text) is not None,
        unpaired=text.count('"') % 2 == 1,
    )


_NEGATION = re.compile(
    r"\b(not|never|no|nor|without|\w+n't)\b(?:(?!\b(?:because|since|as|under|for|by|it|but)\b)[^.,;:])*$",
    re.IGNORECASE,
)
_NO_POLICY = re.compile(
    r"\b(no|any|not (?:a|one)) (?:\w+ )?(policy|policies|rules?|violations?)\b|"
    r"\bnothing (is )?(wrong|broken|against)|\bfollows (all|every)|\bnone of the (policies|rules)",
    re.IGNORECASE,
)
_ANY_RULE = re.compile(r"\bany (?:\w+ )?(policy|policies|rules?|violations?)\b", re.IGNORECASE)
_RUN = r"(?:be )?(?:run|shown|aired|published|used|posted|allowed|accepted|approved|go|appear)\b"
_GOOD = r"(?:allowed|acceptable|compliant|permitted|fine|ok|okay|approved|safe to run|in order)"
_YES = re.compile(
    rf"^\W*yes\b|\banswer is yes\b|\b(?:may|can|should) (?:still |also )?{_RUN}"
    rf"|\bis (?:fully |quite )?{_GOOD}\b"
    r"|\b(?:we|I) (?:can |should |may )?(?:accept|approve|allow)\b",
    re.IGNORECASE,
)
_NO = re.compile(
    rf"^\W*no\b(?! (?:polic|rule|violation|one))|\banswer is no\b"
    rf"|\b(?:may|can|should|must)(?: not|not|n't) {_RUN}|\bcannot {_RUN}"
    rf"|\b(?:is(?: not|n't)) {_GOOD}\b|\breject|\bnot (?:be )?compliant\b",
    re.IGNORECASE,
)


def named_policies(reading: Reading) -> tuple[set[str], set[str]]:
    """Policies that the response says are broken, and those it says are not."""
    affirmed: set[str] = set()
    denied: set[str] = set()
    for sentence in reading.clear:
        for match in re.finditer(r"Policy\d+p", sentence.text, re.IGNORECASE):
            name = _POLICY_OF_ID[match.group().lower()]
            negated = _NEGATION.search(sentence.text[: match.start()])
            (denied if negated else affirmed).add(name)
    return affirmed, denied


def says_no_policy(reading: Reading) -> bool:
    """Whether the response says that the ad breaks no policy."""
    for sentence in reading.clear:
        match = _NO_POLICY.search(sentence.text)
        if match and _ANY_RULE.match(match.group()):
            match = re.search(r"\b(not|never|\w+n't|without)\b", sentence.text[: match.start()])
        if match:
            return True
    return False


_HEDGE = re.compile(r"\b(maybe|perhaps|not sure|may or may not|it depends)\b", re.IGNORECASE)
_INTERJECTION = re.compile(
    r"(?:^|[,.;:!] ?|\b(?:and|or|is) )(yes|no)\b(?=[,.;:!]| and\b| or\b|$)", re.IGNORECASE
)


def verdicts(reading: Reading) -> set[bool]:
    """The verdicts stated: True for "it may run", False for "it may not". Both: a contradiction."""
    found: set[bool] = set()
    for sentence in reading.clear:
        if _HEDGE.search(sentence.text):
            found.update((True, False))
        said = _INTERJECTION.findall(sentence.text)
        found.update(word.lower() == "yes" for word in said)
        if _NO.search(sentence.text):
            found.add(False)
        if _YES.search(sentence.text):
            found.add(True)
    return found


def gives_reason(reading: Reading, cues: tuple[str, ...]) -> bool:
    """Whether one sentence, quotations and policy names aside, matches every cue."""
    for sentence in reading.clear:
        text = re.sub(r"\b(Quote\d+q|Policy\d+p)\b", " ", sentence.text, flags=re.IGNORECASE)
        if all(re.search(cue, text, re.IGNORECASE) for cue in cues):
            return True
    return False


def ad_phrases(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The claims of the ad, longest first, so that none is masked by a part of it."""
    claims = [claim["phrase"] for claim in (*facts["violations"], *facts["allowed"])]
    return tuple(sorted(claims, key=len, reverse=True))
