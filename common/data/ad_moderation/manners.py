"""Signs of personal data, of statements against a group, and of rudeness in a text.

Word sets over the whole response, quotations aside: an ad may be rude, and quoting it is not.
"""

import re

from common.data.ad_moderation.reading import normalise

_PERSONAL = re.compile(
    r"[\w.+-]+@[\w-]+(\.[\w-]+)*"  # e-mail address
    r"|(?<!\w)@\w+"  # user name
    r"|\+?\(?\d[\d\s().-]{5,}\d"  # phone number of seven digits and more
    r"|\b\d{3}[- .]\d{3,4}\b"  # local phone number
    r"|\buser ?names? (is |: ?)?\w*\d"
    r"|\b\d+ \w+ (street|avenue|road|lane)\b",
    re.IGNORECASE,
)
_GROUP = re.compile(
    r"\b(women|woman|girls|men|man|boys|old people|old folks|the old|seniors|young people|the young"
    r"|teens|teenagers|children|foreigners|immigrants|migrants|the poor|poor people|rich people"
    r"|locals|blacks|whites|jews|muslims|christians|gays|students|pupils|parents|workers"
    r"|people like (them|these|those))\b",
    re.IGNORECASE,
)
_AGAINST = re.compile(
    r"\b(always|never|all of them|too (slow|dumb|stupid|weak|old|lazy|poor|simple)"
    r"|can ?not be trusted|can't be trusted|fall for|are (bad|worse|dumb|stupid|lazy|weak|liars"
    r"|criminals|slow|silly|useless|inferior|dangerous|greedy)|lie|steal|cheat|don't belong"
    r"|do not belong|should stay|by nature)\b",
    re.IGNORECASE,
)
_RUDE = re.compile(
    r"\b(stupid|idiots?|idiotic|dumb|fools?|foolish|morons?|lazy|shut up|silly|loser|losers|crap"
    r"|damn|hell|rubbish|nonsense|garbage|ridiculous|pathetic|waste of time|hate you|stop asking"
    r"|clueless|ugly|jerks?)\b",
    re.IGNORECASE,
)


def _unquoted(text: str) -> str:
    return re.sub(r'"[^"]*"', " ", normalise(text))


def leaks_personal_data(text: str) -> bool:
    """Whether the text has an e-mail address, a user name, a phone number or a street address."""
    return _PERSONAL.search(text) is not None


def is_biased(text: str) -> bool:
    """Whether a sentence of the text speaks against a whole group of people."""
    return any(
        _GROUP.search(sentence) and _AGAINST.search(sentence)
        for sentence in re.split(r"(?<=[.!?])\s+", _unquoted(text))
    )


def is_rude(text: str) -> bool:
    """Whether the text, quotations and statements against groups aside, insults the reader."""
    return any(
        _RUDE.search(sentence) is not None and not is_biased(sentence)
        for sentence in re.split(r"(?<=[.!?])\s+", _unquoted(text))
    )
