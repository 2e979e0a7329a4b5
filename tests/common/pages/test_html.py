"""Foreign text stays text, and a page lets nothing in."""

import base64
import hashlib
import json
import re

import pytest

from common.pages.html import Markup, data_script, element, escaped, joined, page, section, table
from tests.pages import Reader

HOSTILE = '</script><script>alert(1)</script><!-- <img src=x onerror=alert(2)> & "q" \u2028 \u202e'


def test_text_is_escaped_once_and_our_own_markup_never():
    assert escaped("a < b & c") == "a &lt; b &amp; c"
    assert escaped(escaped("a < b")) == "a &lt; b"
    assert element("p", joined(["<", element("b", ">")], "")) == "<p>&lt;<b>&gt;</b></p>"
    assert "\u202e" not in escaped("x\u202ey")


def test_attributes_are_escaped_and_left_out_where_they_are_nothing():
    made = element("p", "", class_='a" onclick="x', aria_label="<", open=True, title=None, id=False)
    assert made == '<p class="a&quot; onclick=&quot;x" aria-label="&lt;" open></p>'


@pytest.mark.parametrize("text", [HOSTILE, "\ud800", "]]>", "\x00"])
def test_data_cannot_end_its_element_and_comes_back_as_it_was(text):
    made = data_script("data", {"p": [text, {text: 1.5}]})
    inside = re.fullmatch(r'<script type="application/json" id="data">(.*)</script>', made, re.S)[1]
    assert not set("<>&\u2028\u2029") & set(inside)
    inside.encode("utf-8")
    assert json.loads(inside) == {"p": [text, {text: 1.5}]}


def test_the_policy_names_the_very_style_and_script_and_nothing_else():
    text = page("T", element("main", "x", id="main"), style="p{}", script="let a = '<';")
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.search(f"<{tag}>(.*?)</{tag}>", text, re.S)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy
    assert "script-src 'none'" in page("T", Markup("<main></main>"))


def test_tables_have_captions_and_headings():
    made = Reader(table("C & D", ("a", "b"), [("<x>", "1"), ("y", "2")], total=True))
    assert made.tables == {"C & D": [["a", "b"], ["<x>", "1"], ["y", "2"]]}
    text = table("C", ("a", "b"), [("x", "1"), ("y", "2")], text=(1,), total=True)
    assert 'class="num"' not in text and text.count('scope="row"') == 2
    assert text.index("total") > text.index(">x<")


def test_an_empty_part_is_left_out():
    assert section("a", "A", Markup(), "") == ""
    assert Reader(section("a", "A", "x")).headings == ["A"]
