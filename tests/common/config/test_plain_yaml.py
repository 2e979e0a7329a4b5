"""YAML as settings need it: what is text, and what is refused on which line."""

import pytest
import yaml

from common.config.plain_yaml import NotPlain, PlainLoader


def load(text):
    return yaml.load(text, Loader=PlainLoader)


def test_values_are_those_of_json():
    text = "a: [1, 0x10, 1.5, .inf, true, no, null, ~, 'x']\nb: {c: &c {d: 1}, e: {<<: *c, d: 2}}"
    assert load(text) == {
        "a": [1, 16, 1.5, float("inf"), True, False, None, None, "x"],
        "b": {"c": {"d": 1}, "e": {"d": 2}},
    }


@pytest.mark.parametrize("text", ["2024-01-31", "2024-13-45", "2001-12-14t21:59:43.10-05:00"])
def test_dates_are_texts(text):
    assert load(f"a: {text}") == {"a": text}


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 0x_", 2, "'0x_' is no int that can be read"),
        ("a: !!bool x", 1, "'x' is no bool that can be read"),
        ("a: " + "9" * 5000, 1, f"'{'9' * 40}' is no int that can be read"),
        ("a:\n  - !!set {x}", 2, "settings hold no set"),
        ("a:\n  b: !!binary YQ==", 2, "settings hold no binary"),
        ("a: !!timestamp 2024-01-31", 1, "settings hold no timestamp"),
        ("a: [{b: 1},\n  {2: 1}]", 2, "'2' is no name of a setting"),
        ("a: [{b: 1,\n  b: 1}]", 2, "'b' is given twice"),
        ("<<: {null: 1}", 1, "'null' is no name of a setting"),
        ('a: 1\nb: ["\\ud800"]', 2, "the text holds \\0 or half of a surrogate pair"),
        ('"\\0": 1', 1, "the text holds \\0 or half of a surrogate pair"),
    ],
)
def test_what_settings_cannot_hold_is_refused_with_its_line(text, line, message):
    with pytest.raises(NotPlain) as caught:
        load(text)
    assert (caught.value.line, str(caught.value)) == (line, message)


def test_a_value_inside_itself_is_refused():
    with pytest.raises(yaml.YAMLError, match="recursive"):
        load("a: &a [*a]")
