"""Numbers and foreign text (a model's, a user's) made fit for a terminal or a Markdown cell."""

import html
import re
import unicodedata
from typing import Any

_MARKUP = re.compile(
    r"[|`*~\[\]\\$#{}]|(?<![^\W_])_|_(?![^\W_])|(?<=\w):(?=//)|(?<=www)\.", re.IGNORECASE
)
"""What Markdown (with GitHub's tables, mathematics and bare links) would take for its own; an
underscore between letters is none of it."""

_DIRECTION_MARKS = frozenset(
    "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
)
"""They reorder the text around them, so that a page can show what was never written."""


def visible(text: str) -> str:
    """Text with every character that acts instead of being seen written out as `\\u001b`.

    These are control characters (a terminal obeys them), direction marks, and lone surrogates
    (which can't be written as UTF-8). Line breaks and tabs stay.
    """
    return "".join(
        f"\\u{ord(char):04x}"
        if char in _DIRECTION_MARKS
        or (char not in "\n\t" and unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp"))
        else char
        for char in text.replace("\r\n", "\n")
    )


def cell(text: str) -> str:
    """Text as it is to be seen inside a Markdown table cell: no markup, no HTML, one line."""
    escaped = html.escape(visible(text), quote=False)
    escaped = _MARKUP.sub(lambda match: f"&#{ord(match[0])};", escaped)
    return escaped.replace("\t", " ").replace("\n", "<br>")


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """Fixed-point, or a dash where there is no value."""
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def fact(value: Any) -> str:
    """A value of a stage's `result.json` in words; not escaped."""
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key}: {fact(item)}" for key, item in value.items()) or "none"
    if isinstance(value, list):
        return ", ".join(map(fact, value)) or "none"
    return str(value)


def duration(seconds: float) -> str:
    """`75 s`, or `6 min 15 s` from two minutes on."""
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"
