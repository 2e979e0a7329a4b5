r"""Whether two mathematical expressions are the same: \frac12 and 0.5, x=5 and 5.

By math-verify where it is installed, which reads LaTeX into sympy; otherwise by their spelling
after a few rules, which sees less.
"""

import re
import threading
from functools import lru_cache

_SECONDS = 5
"""For reading, and for comparing: a model may write 9^{9^{9^9}}."""


@lru_cache(maxsize=4096)
def same_expression(answer: str, target: str) -> bool:
    """Whether an answer equals the target, as text or in value.

    Args:
        answer, target: LaTeX or plain text, with or without dollars around it.
    """
    if canonical_expression(answer) == canonical_expression(target):
        return True
    try:
        from math_verify import parse, verify
    except ImportError:
        return False
    # math-verify limits its time by a signal, which only the main thread gets; another would
    # wait without end for some expressions, so it makes do with the spelling.
    if threading.current_thread() is not threading.main_thread():
        return False
    read = [
        parse(_in_dollars(text), parsing_timeout=_SECONDS, raise_on_error=False)
        for text in (target, answer)
    ]
    if not all(read):
        return False
    return bool(verify(*read, timeout_seconds=_SECONDS, raise_on_error=False))


def _in_dollars(text: str) -> str:
    return text if "$" in text else f"${text}$"


def canonical_expression(text: str) -> str:
    r"""One spelling for what is the same at sight: no spaces, sizes, units or dollars.

    `\dfrac12` and `1/2` become `\frac{1}{2}`; a single letter and "=" before a value are dropped.
    """
    text = text.strip().rstrip(".").replace("$", "").replace("\\\\", "\\")
    text = re.sub(r"\\(?:left|right|!|,|;|:|quad|displaystyle)(?![A-Za-z])", "", text)
    text = re.sub(r"\\[dt]frac", r"\\frac", text)
    text = re.sub(r"\^\{?\\circ\}?|\\?%|\\text\{\s[^}]*\}", "", text)
    text = re.sub(r"\\(?:text|mathrm|mbox)\{([^}]*)\}", r"\1", text)
    text = re.sub(r"\s", "", text)
    text = re.sub(r"^[A-Za-z]=", "", text)
    text = re.sub(r"\\frac(\d)(\d)", r"\\frac{\1}{\2}", text)
    text = re.sub(r"^(-?)(\d+)/(\d+)$", r"\1\\frac{\2}{\3}", text)
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text) if "(" not in text else text
    return re.sub(r"(?<!\d)\.(?=\d)", "0.", text)
