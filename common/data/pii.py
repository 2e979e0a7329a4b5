"""Replacing personal data in text: e-mail addresses, phone numbers and user names.

A sieve of patterns, which errs towards leaving text alone where a number is more likely a date,
a price or arithmetic, or where an @ is more likely code.
"""

import re
from collections import Counter
from collections.abc import Sequence

from common.data.records import Conversation, Message

EMAIL, PHONE, USER = "[EMAIL]", "[PHONE]", "[USER]"

_EMAIL = re.compile(
    r"(?<![\w.%+-])\w[\w.%+'-]{0,63}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}(?![\w-])"
)

# "user name: jdoe", "my username is jdoe": the value may be anything that is not code or prose.
_NAMED = re.compile(
    r"""(?P<cue>\buser[ _-]?names?['"`*]*\s{0,3}
        (?P<link>(?:[:=]|\bis\b|\bwas\b)[ \t]{0,3}['"`*]{0,3}|[ ]['"`]?)
        )(?P<name>@?\w(?:[\w.-]{0,38}\w)?)(?P<end>['"`]?)(?P<code>[(\[{<]|::|@\w)?""",
    re.IGNORECASE | re.VERBOSE,
)
_PROSE = frozenset(
    """a an the and or of on in at to for from with by as if is are was be been has have had must
    should can may will not no already also only your my his her their our its this that these
    which who when where then given used using required optional available taken unique valid
    invalid empty missing incorrect wrong correct different unknown known set created stored
    changed field fields input part column format length validation availability generator policy
    box form value string str text varchar int null none true false undefined password email name
    exists here below above per but so it they we you i generation authentication login account
    label parameter variable system list table key matches does did do consists contains
    case-sensitive specified provided entered associated longer shorter too""".split()
)

_HANDLE = re.compile(r"(?<![\w@.\])}$%&\\+-])@(?P<name>[A-Za-z_](?:[\w.-]{0,38}\w))(?P<next>[/(]?)")
_NOT_A_USER = frozenset(
    """media import keyframes font-face charset supports page layer container namespace include
    mixin extend apply use forward property staticmethod classmethod dataclass abstractmethod
    overload override wraps cached_property contextmanager pytest param params return returns
    throws exception see since deprecated author version link code type typedef template test
    before after autowired component entity service controller repository bean id column table
    prefix base everyone here channel""".split()
)
_DOMAIN = re.compile(r"\.(?:com|org|net|edu|gov|io|co|info|biz|[a-z]{2}|example|test)$", re.I)
_CODE_LINE = re.compile(
    r"[ \t]*(?:@|async\b|def\b|class\b|public\b|private\b|protected\b|export\b|function\b|func\b"
    r"|static\b|final\b|abstract\b|const\b|let\b|fun\b|interface\b|void\b)"
)

_NOT_INSIDE_NUMBER = r"(?<![\w.,/+*$€£#^-])(?<!\d:)"
_ENDS = r"(?!\w|[.,:/-]\d|[ ]?[*/=×^%€$£])"
_PHONE = re.compile(
    _NOT_INSIDE_NUMBER
    + r"""(?:
        (?P<plus>(?:\(\+[1-9]\d{0,2}\)|(?:\+|00(?=[1-9]\d[ .-]?\d))[1-9]\d{0,2})  # country code
            (?:[ .-]?(?:\(\d{1,5}\)|\d{1,13})){1,6})
      | (?:1[ .-])?\(\d{3}\)[ .-]?\d{3}[ .-]\d{4}                      # (555) 010-4477
      | (?:1[.-])?\d{3}(?P<sep>[.-])\d{3}(?P=sep)\d{4}                 # 555-010-4477
      | (?<!\d[ ])[2-9]\d{2}[ ][2-9]\d{2}[ -]\d{4}(?![ ]\d)            # 555 234 4477
      | \(0\d{1,4}\)[ -]?\d{3,4}[ -]?\d{3,5}                           # (020) 7946 0958
      | (?<!\d[ ])0\d{2,4}[ /-]\d{3,4}[ -]\d{3,4}(?![ ]\d)             # 020 7946 0958
      | (?<!\d[ ])0\d{4}[ -]\d{6}(?![ ]\d)                             # 07700 900123
      | (?<!\d[ .-])0[1-9](?P<two>[ .-])\d{2}(?:(?P=two)\d{2}){3}(?![ .-]\d)  # 06 12 34 56 78
    )"""
    + _ENDS,
    re.VERBOSE,
)
# Where a word says that a phone number follows, less shape is asked for.
_CALLED = re.compile(
    r"""(?P<cue>\b(?:phone|telephone|tel|mobile|cell|cellphone|fax|whatsapp|sms|call|dial|text)\b
        [^\d\n+(]{0,20}(?<![\w.,/+*$€£#^-]))
        (?P<number>\d{9,15} | \d{3}[ .-]\d{4}
                 | \d{2,5}(?P<sep>[ .-])\d{2,8}(?:(?P=sep)\d{2,8}){0,5})"""
    + _ENDS,
    re.IGNORECASE | re.VERBOSE,
)
_MATH_BEFORE = re.compile(r"[\d)\]=][ ]*$")


def scrub(text: str) -> tuple[str, Counter[str]]:
    """Replaces e-mail addresses, user names and phone numbers by placeholders.

    User names are @handles and what "user name" or "username" introduces. Scrubbing a scrubbed
    text changes nothing.

    Returns:
        (text, counts under "email", "user" and "phone").
    """
    counts: Counter[str] = Counter()
    while True:  # a number may become recognizable when its neighbour is gone
        text, found = _scrub_once(text)
        if not found:
            return text, counts
        counts += found


def _scrub_once(text: str) -> tuple[str, Counter[str]]:
    counts: Counter[str] = Counter()

    def email(_: re.Match[str]) -> str:
        counts["email"] += 1
        return EMAIL

    def named(match: re.Match[str]) -> str:
        if not _is_name(match):
            return match.group()
        counts["user"] += 1
        return match["cue"] + USER + match["end"] + (match["code"] or "")

    def handle(match: re.Match[str]) -> str:
        if not _is_handle(match):
            return match.group()
        counts["user"] += 1
        return USER + match["next"]

    def phone(match: re.Match[str]) -> str:
        if not _is_phone(match):
            return match.group()
        counts["phone"] += 1
        return PHONE

    def called(match: re.Match[str]) -> str:
        if _is_no_phone(match["number"]):
            return match.group()
        counts["phone"] += 1
        return match["cue"] + PHONE

    if "@" in text:  # most texts have none, and looking is much faster than matching
        text = _EMAIL.sub(email, text)
    text = _NAMED.sub(named, text)
    if "@" in text:
        text = _HANDLE.sub(handle, text)
    text = _PHONE.sub(phone, text)
    text = _CALLED.sub(called, text)
    return text, counts


def scrub_conversation(conversation: Conversation) -> tuple[Conversation, Counter[str]]:
    """The conversation with every message scrubbed, and the counts of `scrub`."""
    counts: Counter[str] = Counter()
    messages = []
    for message in conversation.messages:
        text, found = scrub(message.content)
        counts += found
        messages.append(Message(message.role, text))
    return Conversation(tuple(messages), conversation.origin, conversation.facts), counts


def scrub_conversations(
    sets: Sequence[Sequence[Conversation]], *, enabled: bool = True
) -> tuple[list[list[Conversation]], Counter[str]]:
    """Scrubs whole data sets; with `enabled` false they come back as they are, and no counts."""
    counts: Counter[str] = Counter()
    if not enabled:
        return [list(items) for items in sets], counts
    scrubbed = []
    for items in sets:
        scrubbed.append([])
        for conversation in items:
            clean, found = scrub_conversation(conversation)
            counts += found
            scrubbed[-1].append(clean)
    return scrubbed, counts


def _is_name(match: re.Match[str]) -> bool:
    """Whether what follows "user name" is one, and not prose ("username and …") or code."""
    name, link, text = match["name"], match["link"].strip(), match.string
    if match["code"] or name.lower() in _PROSE:
        return False
    if name.lower().startswith(("your", "user_name", "username")):
        return False  # a stand-in for a name
    looks_like_an_id = bool(re.search(r"[\d_@]|[a-z][A-Z]", name))
    if link[:1] in (":", "="):
        # `userName: event.target.value` is code; `user name: jane.doe` is not
        return name.count(".") < 2
    if link in ("is", "was") or (link and link[-1] in "'\"`"):
        return True
    rest = text[match.end() : match.end() + 1]
    return looks_like_an_id or rest in ("", ".", ",", ";", "!", "?", ")", "\n")


def _is_handle(match: re.Match[str]) -> bool:
    """Whether an @word is a user, and not code, a package or a domain."""
    name, text = match["name"], match.string
    before = text[: match.start()]
    if name.lower() in _NOT_A_USER or _DOMAIN.search(name):
        return False
    if match["next"] == "(" or (match["next"] == "/" and not before.endswith("/")):
        return False  # decorator(…), or a package such as @scope/name
    line_start = before.rpartition("\n")[2]
    _, newline, following = text[match.end() :].partition("\n")
    alone = not line_start.strip() and not text[match.end() :].partition("\n")[0].strip()
    return not (alone and newline and _CODE_LINE.match(following))


def _is_phone(match: re.Match[str]) -> bool:
    number = match.group()
    digits = re.sub(r"\D", "", number)
    if not match["plus"]:
        return True
    if not 8 <= len(digits) <= 15 or digits.endswith("00000"):
        return False
    if re.fullmatch(r"\+\d+\.\d+", number):  # +40.728157 is a coordinate
        return False
    return not (number[0] == "+" and _MATH_BEFORE.search(match.string[: match.start()]))


def _is_no_phone(number: str) -> bool:
    """Whether what follows "phone" or "call" is a date, years, or an amount instead."""
    groups = re.split(r"[ .-]", number)
    if [len(g) for g in groups] == [3, 4]:
        return False
    years = all(len(g) == 4 and g[:2] in ("18", "19", "20") for g in groups)
    thousands = len(groups) > 1 and all(len(g) == 3 for g in groups[1:]) and len(groups[0]) <= 3
    length_fits = 9 <= sum(map(len, groups)) <= 15  # dates have 8 digits
    return years or thousands or not length_fits or number.endswith("000000")
