"""Texts that grow side by side, on any terminal: a line is printed when all columns have it."""

import unicodedata
from collections.abc import Callable, Sequence

GAP = " | "
NARROWEST = 36
"""Columns of a terminal that a text needs beside another."""


def width_for(columns: int, terminal: int) -> int | None:
    """How wide each of several texts may be side by side; None where they don't fit."""
    width = (terminal - 1 - len(GAP) * (columns - 1)) // columns
    return width if columns > 1 and width >= NARROWEST else None


class Columns:
    """Takes pieces of several texts, and prints whole lines."""

    def __init__(self, count: int, width: int, write: Callable[[str], None]) -> None:
        """Args:
        width: cells of each column.
        write: takes a line with its end.
        """
        self.width = width
        self._lines: list[list[str]] = [[] for _ in range(count)]
        """Of each column, those that are not printed yet."""
        self._last = [""] * count
        """Of each column, the line that may still change."""
        self._write = write

    def heads(self, names: Sequence[str]) -> None:
        """A line of names, and a rule."""
        self._line([cut(name, self.width) for name in names])
        self._line(["-" * self.width for _ in names])

    def add(self, column: int, piece: str) -> None:
        """More of one text."""
        *lines, self._last[column] = wrap(self._last[column] + piece, self.width)
        self._lines[column] += lines
        self._print(min(map(len, self._lines)))

    def close(self) -> None:
        """No text grows any more: what is left of them is printed."""
        for lines, last in zip(self._lines, self._last, strict=True):
            lines.append(last)
        self._print(max(map(len, self._lines)))

    def _print(self, rows: int) -> None:
        for row in range(rows):
            self._line([own[row] if row < len(own) else "" for own in self._lines])
        self._lines = [own[rows:] for own in self._lines]

    def _line(self, parts: Sequence[str]) -> None:
        padded = [part + " " * (self.width - cells(part)) for part in parts]
        self._write(GAP.join(padded).rstrip() + "\n")


def wrap(text: str, width: int) -> list[str]:
    """Lines of at most `width` cells, broken at blanks where possible; at least one line."""
    lines = []
    for paragraph in text.replace("\t", "    ").split("\n"):
        line = ""
        for word in paragraph.split(" "):
            joined = f"{line} {word}" if line else word
            if cells(joined) <= width:
                line = joined
                continue
            if line:
                lines.append(line)
            while cells(word) > width:
                head = cut(word, width)
                lines.append(head)
                word = word[len(head) :]
            line = word
        lines.append(line)
    return lines


def cut(text: str, width: int) -> str:
    """The beginning of a text, at most `width` cells."""
    while cells(text) > width:
        text = text[:-1]
    return text


def cells(text: str) -> int:
    """Cells that a terminal gives a text: two for wide characters, none for combining ones."""
    return sum(
        0
        if unicodedata.combining(char) or unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 1 + (unicodedata.east_asian_width(char) in ("W", "F"))
        for char in text
    )
