"""A small linter that tells sentences from word salad without knowing the words.

It looks at pairs of neighbouring words of which at least one is a function word, and counts pairs
that no English sentence has ("the of", "may the", "because is"). Open-class words are never judged,
so an answer may use any vocabulary.
"""

import re

_TOKEN = re.compile(r"[A-Za-z0-9@%$']+(?:-[A-Za-z0-9]+)*|[,;:.!?]")

DETERMINERS = frozenset("the a an its their our your my".split())
PREPOSITIONS = frozenset("of in on at for with from by into without against under".split())
LINKS = frozenset("and or because since but if as".split())
MODALS = frozenset("may can must should will would could cannot".split())
BE = frozenset("is are was were".split())
FINITE = BE | frozenset(
    "has does breaks broke violates promises overstates rushes shuts hides offers".split()
)
SUBJECTS = frozenset("it they he she we i".split())
NOUNS = frozenset("policy policies ad words people money cure product group alcohol".split())
STOPS = frozenset(",;:.!?")
LAST = frozenset(
    "the a an its their our your my of from into without because and or since if may no be to with "
    "by that as".split()
)
OPENERS = frozenset("It The With Yes No This These Its A An Because That New Old".split())
_ANY_VERB = re.compile(
    r"^(is|are|was|were|be|am|has|have|had|do|does|did|may|can|must|should|will|cannot|could|would"
    r"|\w+n't|means?|counts?|falls?|fell|goe?s?|reads?|says?|said|quotes?|names?|follows?|obeys?"
    r"|complies|comply|needs?|try|get|buy|remove|drop|cut|ask|call|sent|contains?|includes?|likes?"
    r"|sleeps?|equals?|makes?|gives?|comes?|starts?|ends?|lies?|breaks?|broke|broken|violates?"
    r"|violated|breach(es|ed)?|conflicts?|fails?|runs?|fits?|match(es)?|hopes?|think|see|promis\w+"
    r"|overstat\w+|rush\w*|shuts?|us(es|ed|ing)|hid(es|ing)|offers?"
    r"|stat(es|ed)|become|pay|sells?|shows?|takes?|keeps?|exaggerat\w+|add)$",
    re.IGNORECASE,
)

_NEVER_AFTER: dict[str, frozenset[str]] = {
    **dict.fromkeys(
        DETERMINERS,
        DETERMINERS
        | PREPOSITIONS
        | MODALS
        | FINITE
        | SUBJECTS
        | LINKS
        | STOPS
        | {"that", "not", "no", "to", "be", "this"},
    ),
    **dict.fromkeys(PREPOSITIONS, BE | MODALS | LINKS | STOPS - {".", "!", "?"} | {"to", "be"}),
    **dict.fromkeys(
        MODALS,
        DETERMINERS | PREPOSITIONS | MODALS | FINITE | NOUNS | LINKS - {"and", "or"} | {"no", "to"},
    ),
    **dict.fromkeys(FINITE - BE, FINITE | MODALS | LINKS | {"be", "of"}),
    **dict.fromkeys(
        BE, FINITE - {"broke"} | MODALS | {"be", "of", "it"} | LINKS - {"as", "because"}
    ),
    **dict.fromkeys(
        ("it", "they", "we"), DETERMINERS - {"a"} | {"of", "and", "no", "be", "people", "this"}
    ),
    **dict.fromkeys(
        ("because", "since"),
        PREPOSITIONS - {"of", "with"} | FINITE | MODALS | LINKS | STOPS | {"be", "to"},
    ),
    **dict.fromkeys(("and", "or"), LINKS - {"if", "as", "since", "because"} | STOPS | {"of", "be"}),
    "be": FINITE | MODALS | SUBJECTS | NOUNS | LINKS - {"and", "or"} | {"of", "be"},
    "to": FINITE | MODALS | PREPOSITIONS | LINKS | STOPS | {"no", "to", "here"},
    "no": FINITE | MODALS | PREPOSITIONS | DETERMINERS | LINKS - {"and", "or"} | {"be", "to", "no"},
    "not": FINITE | MODALS | LINKS | {"of", "no", "policy", "policies"},
    "yes": FINITE | MODALS | {"be", "of", "to"},
    "into": frozenset({"to"}) | BE | MODALS | LINKS | FINITE,
    **dict.fromkeys(("policy", "policies"), DETERMINERS | {"be", "no", "not", "i"}),
    **dict.fromkeys(("people", "money", "cure"), DETERMINERS | {"no", "policy", "policies"}),
}


def tokens(text: str) -> list[str]:
    """Words and stops of a sentence."""
    return _TOKEN.findall(text)


def slips(text: str) -> int:
    """Places in a sentence where two words cannot follow each other, or it cannot begin or end."""
    found = tokens(text)
    low = [token.lower() for token in found]
    count = 0
    for first, second in zip(low, low[1:], strict=False):
        count += second in _NEVER_AFTER.get(first, ())
        count += first in STOPS and second in STOPS
        count += first == second and first.isalpha() and first not in ("very", "that", "had")
    for before, token in zip(found, found[1:], strict=False):
        count += token in OPENERS and before not in STOPS
    letters = [token for token in low if token not in STOPS]
    if letters:
        # A text that was cut off ends anywhere; it loses clarity for that, and for nothing else.
        count += letters[-1] in LAST and low[-1] in STOPS
        count += letters[0] in LINKS - {"as", "since", "because", "if"} or letters[0] in (
            "of",
            "be",
        )
        count += text[:1].islower()
    return count


def has_verb(text: str) -> bool:
    """Whether a sentence has a verb of a broad list."""
    return any(_ANY_VERB.match(token) for token in tokens(text))
