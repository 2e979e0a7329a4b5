"""Pieces of a page. What users, models and files wrote is escaped here and nowhere else."""

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from common.evaluation.formatting import visible

HERE = Path(__file__).parent


class Markup(str):
    """HTML that is ours: it is put into a page as it is."""

    __slots__ = ()


def escaped(text: str) -> Markup:
    """Foreign text as it is to be seen; `Markup` stays what it is."""
    return text if isinstance(text, Markup) else Markup(html.escape(visible(text)))


def element(tag: str, content: str = "", **attributes: str | bool | None) -> Markup:
    """One element; its content and its attributes' values are escaped unless they are `Markup`.

    Args:
        attributes: `class_` stands for `class`, other `_` for `-`; True gives a bare attribute, and
            one that is None or False is left out.
    """
    shown = ""
    for name, value in attributes.items():
        if value is None or value is False:
            continue
        shown += f" {name.rstrip('_').replace('_', '-')}"
        shown += "" if value is True else f'="{escaped(str(value))}"'
    return Markup(f"<{tag}{shown}>{escaped(content)}</{tag}>")


def joined(parts: Sequence[str], between: str = "\n") -> Markup:
    """Several pieces as one."""
    return Markup(between.join(escaped(part) for part in parts if part))


def notes(*lines: str) -> Markup:
    """Small print, a paragraph each."""
    return joined([element("p", line, class_="note") for line in lines])


def table(
    caption: str,
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    text: Sequence[int] = (),
    total: bool = False,
) -> Markup:
    """A table with a caption; a row's first cell is its heading, the others are numbers.

    Args:
        text: columns that are no numbers.
        total: the last row is a sum of those above.
    """

    def kind(column: int) -> str | None:
        return None if column == 0 or column in text else "num"

    heads = [element("th", h, scope="col", class_=kind(i)) for i, h in enumerate(head)]
    lines = []
    for place, row in enumerate(rows):
        first = element("th", row[0], scope="row")
        cells = [element("td", c, class_=kind(i)) for i, c in enumerate(row[1:], start=1)]
        last = total and place == len(rows) - 1
        lines.append(element("tr", joined([first, *cells], ""), class_="total" if last else None))
    inside = joined(
        [
            element("caption", element("span", caption)),
            element("thead", element("tr", joined(heads, ""))),
            element("tbody", joined(lines)),
        ]
    )
    # A region that scrolls sideways must be reachable by keyboard.
    return element(
        "div",
        element("table", inside),
        class_="wide",
        tabindex="0",
        role="region",
        aria_label=caption,
    )


def section(name: str, title: str, *parts: str) -> Markup:
    """A part of the page with its heading; nothing where it holds nothing."""
    inside = joined(parts)
    if not inside:
        return Markup()
    heading = element("h2", title, id=name)
    return element("section", joined([heading, inside]), aria_labelledby=name)


def data_script(name: str, content: Any) -> Markup:  # noqa: ANN401
    """Data for the page's script. Nothing in it can end the element, or be run."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    text = visible(text)  # what it writes out, JSON reads back as the character itself
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(f'<script type="application/json" id="{name}">{text}</script>')


def page(title: str, body: str, *, style: str = "", script: str = "") -> str:
    """A whole page that needs nothing else, and whose policy lets nothing else in.

    Args:
        title: of the window.
        body: what stands in `main`, and a `nav` before it if there is one.
        style, script: of this page, beside the common style.
    """
    styles = common_style() + style
    script_source = f"script-src '{_digest(script)}'" if script else "script-src 'none'"
    policy = (
        f"default-src 'none'; style-src '{_digest(styles)}'; {script_source}; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escaped(title)}</title>\n<style>{styles}</style>\n</head>\n"
        f'<body>\n<a class="skip" href="#main">Skip to the content</a>\n{escaped(body)}\n'
        + (f"<script>{script}</script>\n" if script else "")
        + "</body>\n</html>\n"
    )


def contents(links: Sequence[tuple[str, str]]) -> Markup:
    """The bar of links to the page's sections: (name, words)."""
    items = [element("li", element("a", words, href=f"#{name}")) for name, words in links]
    return element("nav", element("ul", joined(items)), class_="contents", aria_label="Contents")


@cache
def common_style() -> str:
    """The style that all pages share."""
    return (HERE / "style.css").read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """How a policy names an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
