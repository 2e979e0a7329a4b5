"""Foreign text can neither act in a terminal nor as Markdown."""

import html
import re

import pytest

from common.evaluation.formatting import cell, duration, fact, number, visible

NASTY = [
    "a | b || c",
    "```\n# heading\n```",
    "<script>alert(1)</script> <!-- x",
    "&lt;b&gt; &amp; &#124;",
    "[link](javascript:alert(1)) ![img](http://x.example/p.png) www.x.example",
    "**bold** __bold__ _it_ a_b ~~gone~~ \\| $x$ `c`",
    "line\r\nline\rline\n\n\nline",
    "\x1b[31mred\x1b[0m\x07 \x00 \x85 \u2028 \u2029",
    "left\u202eright \u2066x\u2069",
    "lone \ud800 surrogate",
    "# not a heading\n- not a list\n---",
]


@pytest.mark.parametrize("text", NASTY)
def test_a_cell_is_one_line_without_anything_active(text):
    shown = cell(text)
    assert "\n" not in shown and "\r" not in shown
    rest = shown.replace("<br>", "")
    assert not set(rest) & set("<>|`*~[]\\$"), rest
    assert not any(ord(char) < 32 or 0x7F <= ord(char) < 0xA0 for char in shown)
    assert not re.search("[\u2028\u2029\u202a-\u202e\u2066-\u2069]", shown)
    assert "://" not in shown and "www." not in shown
    shown.encode("utf-8")


@pytest.mark.parametrize("text", NASTY)
def test_a_reader_sees_the_very_text(text):
    # What a browser does with entities must give back what `visible` shows.
    assert html.unescape(cell(text).replace("<br>", "\n")) == visible(text)


def test_underscores_escape_only_where_they_mark_emphasis():
    assert cell("value/explained_variance") == "value/explained_variance"
    assert "_" not in cell("_it_ __b__ a__b")


def test_ordinary_text_of_any_script_stays():
    text = "Größe: 5 %, 广告合规, “quoted” – it’s 👩‍👩‍👧 (fine); really? yes!"
    assert visible(text) == text
    assert cell(text) == text


def test_control_characters_are_written_out():
    assert visible("a\x1b[2Jb") == "a\\u001b[2Jb"
    assert visible("\ud800\u202e") == "\\ud800\\u202e"
    assert visible("a\tb\nc") == "a\tb\nc"


def test_facts_and_numbers():
    assert fact({"emails": 3, "share": 0.123456}) == "emails: 3, share: 0.1235"
    assert (fact(None), fact(True), fact({}), fact([1, 2])) == (
        "not measured",
        "yes",
        "none",
        "1, 2",
    )
    assert (number(None), number(1.25), number(0.5, 2, sign=True)) == ("–", "1.2", "+0.50")
    assert (duration(75.4), duration(375), duration(119.6)) == ("75 s", "6 min 15 s", "2 min 00 s")
