r"""Whether two mathematical expressions are the same: \frac12 and 0.5, x=5 and 5.

By math-verify where it is installed, which reads LaTeX into sympy; otherwise by their spelling
after a few rules, which sees less.
"""

import logging
import re
import threading
from fractions import Fraction
from functools import lru_cache

_SECONDS = 10
"""For reading, and for comparing: a model may write 9^{9^{9^9}}."""


@lru_cache(maxsize=4096)
def same_expression(answer: str, target: str) -> bool:
    """Whether an answer equals the target, as text or in value.

    Several expressions, which semicolons part, must be the same one by one.

    Args:
        answer, target: LaTeX or plain text, with or without dollars around it.
    """
    each, wanted = (re.split(r"(?<!\\)[;；]", text) for text in (answer, target))
    if len(each) != len(wanted):
        return False
    return all(_same(ours, theirs) for ours, theirs in zip(each, wanted, strict=True))


def _same(answer: str, target: str) -> bool:
    ours, theirs = canonical_expression(answer), canonical_expression(target)
    if ours == theirs:
        return True
    numbers = rational(ours), rational(theirs)
    if None not in numbers:
        return numbers[0] == numbers[1]
    # math-verify limits its time by a signal, which only the main thread gets; another would
    # wait without end for some expressions, so it makes do with the spelling.
    if threading.current_thread() is not threading.main_thread() or not _ready():
        return False
    from math_verify import parse, verify

    read = [
        parse(_in_dollars(text), parsing_timeout=_SECONDS, raise_on_error=False)
        for text in (target, answer)
    ]
    if not all(read):
        return False
    return bool(verify(*read, timeout_seconds=_SECONDS, raise_on_error=False))


@lru_cache(maxsize=1)
def _ready() -> bool:
    """Whether math-verify is installed; loads all that it needs outside of any time limit."""
    try:
        from math_verify import parse, verify
    except ImportError:
        return False
    logger = logging.getLogger("math_verify")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that there is no time limit
    try:
        half = parse(r"$\frac{1}{2}$", parsing_timeout=None)
        return bool(verify(half, parse("$0.5$", parsing_timeout=None), timeout_seconds=None))
    finally:
        logger.setLevel(level)


def rational(text: str) -> Fraction | None:
    r"""The value of a canonical integer, decimal or `\frac` of integers; None of anything else."""
    match = re.fullmatch(r"(-?)\\frac\{(-?\d+)\}\{(-?\d+)\}", text)
    if match and int(match.group(3)):
        value = Fraction(int(match.group(2)), int(match.group(3)))
        return -value if match.group(1) else value
    return Fraction(text) if re.fullmatch(r"-?\d{1,40}(?:\.\d{1,40})?", text) else None


def _in_dollars(text: str) -> str:
    return text if "$" in text else f"${text}$"


def canonical_expression(text: str) -> str:
    r"""One spelling for what is the same at sight: no spaces, sizes, units or dollars.

    `\dfrac12` and `1/2` become `\frac{1}{2}`; a single letter and "=" before a value are dropped.
    """
    text = text.strip().rstrip(".").replace("\\$", "").replace("$", "").replace("\\\\", "\\")
    text = re.sub(r"\\(?:left|right|!|,|;|:|quad|displaystyle)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\^\{?\\circ\}?|\\?%", "", text)
    text = re.sub(r"(?<=[\d}])\s*\\(?:text|mbox)\{[^}]*\}$", "", text)
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^}]*)\}", r"\1", text)
    text = re.sub(r"\s", "", text)
    text = re.sub(r"^[A-Za-z]=", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if "(" not in text else text
    return re.sub(r"(?<!\d)\.(?=\d)", "0.", text)
