"""Texts side by side: whole lines, as soon as all columns have them, and never over the width."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.chat.columns import Columns, cells, width_for, wrap


def shown(count, width, pieces):
    """Lines after every piece, and at the end."""
    lines: list[str] = []
    columns = Columns(count, width, lines.append)
    seen = []
    for column, piece in pieces:
        columns.add(column, piece)
        seen.append(len(lines))
    columns.close()
    return lines, seen


def test_a_line_is_printed_when_both_columns_have_it():
    pieces = [(0, "one two "), (0, "three four"), (1, "a b"), (1, "\nc"), (0, " five"), (1, " d")]
    lines, seen = shown(2, 8, pieces)
    assert lines == ["one two  | a b\n", "three    | c d\n", "four     |\n", "five     |\n"]
    assert seen == [0, 0, 0, 1, 1, 1]


def test_wide_characters_take_two_cells():
    assert cells("日本") == 4 and cells("e\u0301") == 1
    assert wrap("日本語です", 4) == ["日本", "語で", "す"]
    lines, _ = shown(2, 6, [(0, "日本"), (1, "x")])
    assert lines == ["日本   | x\n"]


def test_words_that_are_too_long_are_broken():
    assert wrap("abcdefgh ij", 3) == ["abc", "def", "gh", "ij"]
    assert wrap("", 5) == [""]
    assert wrap("a\n\nb", 5) == ["a", "", "b"]


TEXTS = st.text(alphabet="ab \n日é", max_size=60)


@settings(max_examples=40, deadline=None)
@given(TEXTS, st.integers(min_value=2, max_value=9))
def test_nothing_is_lost_and_nothing_is_too_wide(text, width):
    lines = wrap(text, width)
    assert all(cells(line) <= width for line in lines)
    assert "".join("".join(lines).split()) == "".join(text.split())


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1), TEXTS), max_size=12))
def test_pieces_make_no_difference(pieces):
    """What is printed as it comes is what the whole texts would give."""
    lines, _ = shown(2, 7, pieces)
    whole = ["".join(text for column, text in pieces if column == c) for c in (0, 1)]
    again, _ = shown(2, 7, list(enumerate(whole)))
    assert lines == again


@pytest.mark.parametrize(
    ("count", "terminal", "width"),
    [(2, 80, 38), (2, 75, None), (3, 120, 37), (1, 200, None), (2, 0, None)],
)
def test_columns_need_room(count, terminal, width):
    assert width_for(count, terminal) == width
