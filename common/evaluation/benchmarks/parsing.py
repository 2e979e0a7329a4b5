"""What a generated text answers: a letter, letters, a number, an expression, a phrase, a word.

GPT-Fathom's parser, which the paper's Table 1 rests on, is not copied, because of its faults;
each function says where it differs. What holds for all: an answer that cannot be read is None,
"unparsed", counted apart and wrong; and nothing counts that is only a prefix of the right answer
or begins with it.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

LETTERS = string.ascii_uppercase

_ARTICLE = re.compile(r"A\s+(?!is\b|was\b|because\b|since\b|as\b|and\b|or\b|for\b)[a-z]")
"""The word "a" at the head of a sentence, which is no choice."""
_MARKUP = re.compile(r"\\(?:text|mathrm|mathbf|boxed)\b|[*_`$\\]")
_GOES_ON = re.compile(r"[ \t]+(?!(?:is|was|because|since)\b)[\"'“(]?[A-Za-z0-9]")
"""What follows small letters that are a word: "the answer is a dog", "is ad hoc"."""
_SAYS = re.compile(
    r"(?:\b(?i:answers?|choose|select|pick)\b"
    r"(?:\s+(?i:choices?|options?|letters?|to|this|question|is|are|be|was|should|would|must"
    r"|correct|the|therefore|thus|both|most|likely))*"
    r"|答案(?:应该|应当|应|就)?[是为选]?(?:选项)?|故选(?:择)?|应选择?|选择|选项?)"
    r"[\s:：=,，\"'“(（\[{]*"
)
"""What comes before an answer that is told: "The correct answer is (", "答案：", "故选", …"""
_DENIED = re.compile(
    r"[)）\]]?\s*(?:(?:is|are|was)\s+(?:not|wrong|incorrect|false)|isn't|不|错误|是错)"
)
_NOT = re.compile(
    r"(?:\b(?i:not|never)|n't|不是|不选|非)\s*(?:(?i:option|choice)\s*)?[\"'“(（\[]*$"
)
"""What comes before a letter that is no answer: "The answer is not A"."""
_BETWEEN = r"[\s,，、;；/&()（）]*(?:and|和|与|及)?[\s,，、;；/&()（）]*"


def choice_letter(text: str, choices: int) -> str | None:
    """The letter that a text chooses.

    In this order: a letter that the text begins with; the first one that is told ("the answer is
    B", "答案：B"); the first in brackets or after "option"; the only letter that stands alone. One
    that is denied ("A is wrong", "not A") is none. A small letter counts where it is no word: as
    the first line or its label ("b.", "b)"), where it is told, and in brackets.
    GPT-Fathom takes the alphabetically lowest that occurs anywhere, the "A" of "A man" included.

    Args:
        text: the model's output.
        choices: number of choices; letters beyond them are none.
    """
    found = _chosen(text, choices, several=False)
    return found[0] if found else None


def choice_letters(text: str, choices: int) -> str | None:
    """All letters that a text chooses, sorted: "AD" from "A and D", "(D)(A)" or "答案：AD".

    The same rules as `choice_letter`, with letters that follow the first one directly.
    """
    found = _chosen(text, choices, several=True)
    return "".join(sorted(set(found))) if found else None


def _chosen(text: str, choices: int, several: bool) -> str:
    """The letters chosen, in their order; "" where there are none."""
    text = _MARKUP.sub("", text).strip()
    valid = LETTERS[:choices]

    def denied(start: int, end: int) -> bool:
        return bool(_DENIED.match(text, end) or _NOT.search(text[:start]))

    def at(position: int, valid: str = valid) -> str:
        """The letters that stand at a place, all capital or all small, as capitals."""
        lone = rf"[{valid}](?![A-Za-z0-9'’]|-[a-z])"
        together = rf"[{valid}]{{2,}}(?![A-Za-z0-9'’]|-[a-z])"
        run = rf"(?:{lone}|{together})(?:{_BETWEEN}(?:{lone}|{together}))*"
        match = re.compile(run if several else lone).match(text, position)
        if not match or _ARTICLE.match(text, position):
            return ""
        letters = re.findall(rf"[{valid}]+", re.sub(r"\band\b", "", match.group()))
        if any(word != "".join(sorted(word)) for word in letters):
            return ""  # a word like BAD
        word = valid.islower() and (letters == ["a"] or any(len(x) > 1 for x in letters))
        return "" if word and _GOES_ON.match(text, match.end()) else "".join(letters).upper()

    small = valid.lower()
    label = re.match(
        rf"\W*([{small}])\W*(?:\n|$)|[(（\[]?([{small}])(?:[)）\]]|[.:：]\s)(?!\s*(?:and|or)\b)",
        text,
    )
    if label and not denied(label.start(label.lastindex or 0), label.end()):
        return label[label.lastindex or 0].upper()
    begins = re.match(r"[\s\"'“(（\[{\-.:：]*", text)
    if begins and (letters := at(begins.end())):
        if not denied(begins.end(), begins.end() + len(letters)):
            return letters
    for told in _SAYS.finditer(text):
        letters = at(told.end()) or at(told.end(), small)
        if letters and not denied(told.end(), told.end() + len(letters)):
            return letters
    named = rf"[(（\[]([{valid}])[)）\]]|\b(?i:option|choice)\s+([{valid}])(?![A-Za-z0-9'’])"
    for match in re.finditer(named, text):
        if not denied(match.start(1) if match.group(1) else match.start(), match.end()):
            return at(match.start(1) if match.group(1) else match.start(2))
    alone = [
        match.group()
        for match in re.finditer(rf"(?<![A-Za-z0-9'’.])[{valid}](?![A-Za-z0-9'’])", text)
        if not _ARTICLE.match(text, match.start()) and not denied(*match.span())
    ]
    # "plural(s)" and "f'(c)" are no choices.
    bracketed = re.finditer(rf"(?<![!-~′″])[(（\[]([{small}])[)）\]]", text)
    alone = alone or [m.group(1).upper() for m in bracketed if not denied(m.start(1), m.end())]
    return alone[0] if len(set(alone)) == 1 else ""


_TELLS = re.compile(r"\b(?:so|thus|therefore|hence)?,?\s*the (?:final )?answer is:?", re.IGNORECASE)


def told_answer(text: str) -> str | None:
    """What follows "(So) the answer is", up to the end of its sentence or line (BBH).

    The first such sentence counts. GPT-Fathom takes everything behind it, and a prefix matches.
    """
    match = _TELLS.search(text)
    if not match:
        return None
    line = text[match.end() :].strip().split("\n")[0]
    sentence = re.split(r"\.(?:\s|$)", line)[0].strip(" \t*`\"'“”$")
    return sentence or None


def same_told(answer: str, target: str) -> bool:
    """Whether a told answer is BBH's target.

    A choice's letter counts with or without brackets, and with its choice behind it ("(D) 1937"),
    a small one by itself or in brackets; several of them ("(A) or (B)") are none, and so is the
    word "A". Anything else must be the same but for case, spaces and quotes. In bracket sequences,
    spaces don't count.
    """
    if re.fullmatch(r"\([A-Z]\)", target):
        answer = re.sub(r"\([a-z]\)|^[a-z]$", lambda match: match.group().upper(), answer)
        letter = re.match(r"\(?([A-Z])(?:\)|(?=\W|$))", answer)
        if letter is None or _ARTICLE.match(answer):
            return False
        return {letter.group(1), *re.findall(r"\(([A-Z])\)", answer)} == {target[1]}
    return _plain(answer) == _plain(target)


def _plain(text: str) -> str:
    text = text.strip(" \t\n.\"'`*").lower()
    if re.fullmatch(r"[\s()\[\]{}<>]*", text):
        return re.sub(r"\s", "", text)
    return " ".join(text.split())


_NUMBER = re.compile(
    r"(?P<sign>(?<![\w.)\]}%])(?<![\d)\]}%]\s)-\s?)?(?:[$€£¥]\s?(?P<inner>-)?)?"
    r"(?P<whole>\d+\s+(?=\d+/\d))?"
    r"(?P<run>(?:(?<![\d.])\.)?\d[\d.,:/]*(?:(?<=\d)[eE][+-]?\d+)?)"
)
"""A number with all that may belong to it: "-$1,050.50", "1 1/2", "12:30", "1e3"."""
_DECIMAL = re.compile(r"(?:(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d{1,2})?")
_MORE = re.compile(r"(?:\s*(?:[-+*/×÷^]|\\(?:times|cdot|div)\b)\s*[-(]?[$€£¥]?\s?\d)|\s\d{3}(?!\w)")
"""What makes a number the beginning of something else: "5 + 3", "10^3", "1 000"."""
_LONGEST_NUMBER = 60
"""Characters. Whatever is longer is no answer."""


def number(text: str) -> str | None:
    r"""The number after "the answer is", else in the last \boxed{}, else the last one.

    Numbers are then compared by value: 18 is not 180 (of which it is a prefix, a match for
    GPT-Fathom), but 18.0, $18 and 36/2. What only begins with a number is none and unparsed: a
    time ("12:30"), a date, a term that is not worked out ("5 + 3"), a list without spaces ("1,23").
    """
    text = _plain_number_text(text)
    told = _TELLS.search(text)
    if told:
        line = text[told.end() :].strip().split("\n")[0]
        for part in (re.split(r"\.(?:\s|$)", line)[0], line):
            if _NUMBER.search(part):
                sides = (_first_number(side) for side in reversed(part.split("=")))
                return next((value for value in sides if value is not None), None)
    inside = boxed(text)
    if inside and _NUMBER.search(inside):
        return _first_number(inside.rsplit("=", 1)[-1])
    last = list(_NUMBER.finditer(re.sub(r"(?m)^\s*[-•]\s+", "", text)))[-1:]
    return _value(last[0]) if last else None


def gold_number(answer: str) -> str | None:
    """What a solution of GSM8K's says is right, behind "####" or as `number` finds it."""
    told = re.findall(r"####\s*(\S.*)", answer)
    return number(told[-1] if told else answer)


def _plain_number_text(text: str) -> str:
    r"""A text with numbers in one spelling: "−" as "-", "½" as " 1/2", `\frac{3}{4}` as " 3/4"."""
    text = re.sub(r"[\u00bc-\u00be\u2150-\u215e]", _spelled_out, text)
    text = text.replace("\u2212", "-").replace("{,}", ",").replace(r"\$", "$")
    text = re.sub(r"(?<=\d)(?:\\,|\\!|[\u00a0\u2009\u202f])(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"\\[dt]?frac\s*\{\s*(-?[\d.,]+)\s*\}\s*\{\s*([\d.,]+)\s*\}", r" \1/\2", text)
    return re.sub(r"\\[dt]?frac\s*(\d)\s*(\d)", r" \1/\2", text)


def _spelled_out(fraction: re.Match[str]) -> str:
    return " " + unicodedata.normalize("NFKC", fraction.group()).replace("\u2044", "/")


def _first_number(text: str) -> str | None:
    """The first number, unless it is the beginning of something else."""
    match = _NUMBER.search(text)
    end = match.start("run") + len(match["run"].rstrip(".,:/")) if match else 0
    return None if not match or _MORE.match(text, end) else _value(match)


def _value(match: re.Match[str]) -> str | None:
    """What a match of `_NUMBER` is, as `canonical_number` has it; None where it is no number.

    Decimals that end are written as such; other fractions in lowest terms, "2/3".
    """
    run = match["run"].rstrip(".,:/")
    parts = run.split("/")
    if len(run) > _LONGEST_NUMBER or len(parts) > 2 or not all(map(_DECIMAL.fullmatch, parts)):
        return None
    top, *bottom = (Fraction(part.replace(",", "")) for part in parts)
    if bottom and not bottom[0]:
        return None
    value = top / bottom[0] if bottom else top
    value += int((match["whole"] or "0")[:_LONGEST_NUMBER])
    value = -value if match["sign"] or match["inner"] else value
    decimal = Decimal(value.numerator) / Decimal(value.denominator)
    return canonical_number(str(decimal)) if Fraction(decimal) == value else str(value)


def canonical_number(text: str) -> str:
    """One spelling for each value: "1,050.50" and "$1050.5" become "1050.5".

    Raises:
        decimal.InvalidOperation: the text is no number.
    """
    value = Decimal(re.sub(r"[\s,$]", "", text))
    plain = format(value, "f")
    plain = plain.rstrip("0").rstrip(".") if "." in plain else plain
    return "0" if plain in ("-0", "") else plain


def boxed(text: str) -> str | None:
    r"""The content of the last \boxed{…} or \fbox{…} with balanced braces, or of `\boxed 5`."""
    last = None
    for match in re.finditer(r"\\(?:boxed|fbox)\s*(?:\{|\s([^\s${}]+))", text):
        if match.group(1):
            last = match.group(1).rstrip(".,")
            continue
        depth, end = 1, match.end()
        while end < len(text) and depth:
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        if depth == 0:
            last = text[match.end() : end - 1].strip()
    return last or None


def expression(text: str) -> str | None:
    r"""A solution's result: the last \boxed{}, else what "(final) answer is" is followed by.

    GPT-Fathom reads \boxed{} alone; the usual four examples of MATH end with "The final answer is
    $…$. I hope it is correct.", so that an answer in their manner counts here.
    """
    if re.search(r"\\(?:boxed|fbox)\b", text):
        return boxed(text)
    match = re.search(r"(?:the (?:final )?answer is|答案(?:是|为)?)\s*[:：]?", text, re.IGNORECASE)
    return _expression_in(text[match.end() :]) if match else None


def short_expression(text: str) -> str | None:
    r"""An answer without a solution: like `expression`, else the first line that has content."""
    found = expression(text)
    if found is not None or re.search(r"\\(?:boxed|fbox)\b", text):
        return found
    lines = [line for line in text.split("\n") if line.strip()]
    return _expression_in(lines[0]) if lines else None


def _expression_in(text: str) -> str | None:
    r"""What a line answers: `$5$;$10$` whole, of "It is $5$, so …" the formula, else the sentence.

    Dollars that mean money, `\$5`, are dropped.
    """
    line = text.strip().split("\n")[0].replace(r"\$", "")
    formulas = re.search(r"\$[^$]+\$(?:\s*[;；,，]\s*\$[^$]+\$)*", line)
    words = re.search(r"[^\W\d_]", re.sub(r"\$[^$]*\$", "", line))
    if formulas and words:
        line = formulas.group()
    elif not formulas:
        line = re.split(r"\.(?:\s|$)|。", line)[0]
    found = line.replace("$", "").strip(" \t:：*。").rstrip(".")
    return found if re.search(r"\w|\\", found) else None


def phrase(text: str) -> str | None:
    """A short answer: the first line that has words, without "A:" or "Answer:" before it."""
    for line in text.split("\n"):
        line = re.sub(r"^\s*(?:A|Answer)\s*[:：]", "", line, flags=re.IGNORECASE).strip()
        if normalized_phrase(line):
            return line
    return None


def normalized_phrase(text: str) -> str:
    """SQuAD's normalisation: lower case, no punctuation, no articles, single spaces.

    A text that consists of articles alone is kept.
    """
    bare = "".join(c for c in text.lower() if c not in string.punctuation and c not in "“”‘’…")
    words = bare.split()
    return " ".join([w for w in words if w not in ("a", "an", "the")] or words)


def phrase_f1(answer: str, targets: Sequence[str]) -> float:
    """Best F1 of the words in common with one of the accepted answers (SQuAD), 0 to 1."""

    def f1(target: str) -> float:
        ours, theirs = normalized_phrase(answer).split(), normalized_phrase(target).split()
        common = sum((Counter(ours) & Counter(theirs)).values())
        return 2 * common / (len(ours) + len(theirs)) if common else 0.0

    return max((f1(target) for target in targets), default=0.0)


def first_word(text: str) -> str | None:
    """The first word, without the punctuation around it, in lower case."""
    match = re.search(r"[^\W_]+(?:['’\-][^\W_]+)*", text)
    return match.group().lower().replace("’", "'") if match else None
