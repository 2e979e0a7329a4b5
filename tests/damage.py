"""Random damage to values, rows and files, for property-based tests of what reads them.

Examples depend on the test alone (`derandomize`): a failure comes up again in the next run.
"""

import copy
import json
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir

set_hypothesis_home_dir(Path(tempfile.gettempdir()) / "hypothesis")  # its caches: no checkout's

ODD_TEXTS = (
    *("", " \n\t", "\x00", "\x1b[2J", "\u2028", "\ufeff", "e\u0301\u202e", "ｱ\U0001f600"),
    *("\ud800", "\udfff\ud83d", "half \udc80"),
    *("null", "NaN", "-1", "--seed=5", "[", '{"a": 1}', "{run}", "9" * 400, "x" * 70_000),
    *("\n\nHuman: a\n\nAssistant: b", "../x.jsonl", "~nobody/x.jsonl", "y" * 300 + ".csv"),
)
ODD_VALUES = (
    *(None, True, False, 0, -1, 2, 7, 2**31, 2**63, 10**400),
    *(0.0, -0.5, 1.5, 1e300, float("nan"), float("inf"), -float("inf")),
    *ODD_TEXTS,
    *([], {}, [[]], [{}], [None], [0], ["x"], [1, "x"], [["x", "y"]], [[0, 1]], [[1, 0], [0, 0]]),
    *(
        {"text": "x"},
        {"replies": []},
        {"role": "user"},
        {"x": {"y": ["\ud800"]}},
    ),
    *({"": float("nan")}, {"role": "assistant", "content": ""}, {"from": "human", "value": "x"}),
    *([{"role": "system", "content": ""}], [{"role": "assistant", "content": "x"}]),
    {"role": "prompter", "text": "x", "replies": [{"role": "system", "text": "y", "rank": 0}]},
    json.loads("[" * 200 + "]" * 200),
)
ODD_BYTES = (
    *(b"", b"", b"\n", b"\r", b"\n\n", b'"', b"'", b",", b":", b"[", b"]", b"{", b"}", b"\\", b"-"),
    *(b"\x00", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\x1b", b"\t", b"#"),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"0", b'""', b'"\\ud800"', b"[]", b"{}"),
    *(b"9" * 5000, b"[" * 5000, b'{"a":' * 5000, b"&a [*a]", b"<<: {a: 1}", b"!!int x", b"%", b"*"),
    *(b"2024-01-01", b"2024-13-45", b"0x_", b"? ", b"!!binary x", b"--- ", b"|\n", b"!!set {a}"),
)
_TOKEN = re.compile(rb'"(?:[^"\\\n]|\\.)*"|[\w.+-]+|.', re.DOTALL)
_ANY = st.integers(0, 2**16)
_FEW = st.integers(1, 3)
_VALUES = st.sampled_from(ODD_VALUES)
_BYTES = st.sampled_from(ODD_BYTES) | st.binary(max_size=2)
_CHANGES = st.sampled_from(("replace", "remove", "rename", "double", "copy"))
_LENGTHS = st.sampled_from((None, None, None, 0, 1, 2, 20, 2**16))
"""None: a whole token."""


def examples(count: int) -> settings:
    """Settings of a property: so many examples, always the same, no clock, no database."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )


def places(value: Any) -> list[tuple[Any, Any]]:
    """(dict or list, key or index) of everything inside a value, outer places first."""
    found = []
    for key in list(value if isinstance(value, dict) else range(len(value))):
        found.append((value, key))
        if isinstance(value[key], dict | list):
            found += places(value[key])
    return found


def place_in(value: Any) -> st.SearchStrategy[int]:
    """The number of a place in a value; 0 is the value itself."""
    return st.integers(0, len(places([value])) - 1)


def with_odd_values(value: Any, place: int) -> Iterator[Any]:
    """Copies of the value with each odd value at this place."""
    for odd in ODD_VALUES:
        holder = [copy.deepcopy(value)]
        inside, key = places(holder)[place]
        inside[key] = copy.deepcopy(odd)
        yield holder[0]


@st.composite
def damaged(draw: st.DrawFn, value: Any, names: Sequence[str]) -> Any:
    """The value with up to three places in it replaced, removed, renamed, doubled or copied over.

    The value itself is such a place, so that anything may come out.
    """
    holder = [copy.deepcopy(value)]
    for _ in range(draw(_FEW)):
        found = places(holder)
        if not found:
            return None
        (inside, key), (other, name) = (found[draw(_ANY) % len(found)] for _ in range(2))
        change = draw(_CHANGES)
        if change == "remove":
            del inside[key]
        elif change == "rename" and isinstance(inside, dict):
            inside[names[draw(_ANY) % len(names)]] = inside.pop(key)
        elif change == "double" and isinstance(inside, list):
            inside.insert(key, copy.deepcopy(inside[key]))
        elif change == "copy":
            inside[key] = copy.deepcopy(other[name])
        else:
            inside[key] = copy.deepcopy(draw(_VALUES))
    return holder[0] if holder else None


@st.composite
def damaged_bytes(draw: st.DrawFn, raw: bytes) -> bytes:
    """The bytes with one to three tokens or slices cut out, replaced, or put in; or truncated."""
    for _ in range(draw(_FEW)):
        length = draw(_LENGTHS)
        if length is None:
            spans = [found.span() for found in _TOKEN.finditer(raw)] or [(0, 0)]
            start, end = spans[draw(_ANY) % len(spans)]
        else:
            start = draw(_ANY) % (len(raw) + 1)
            end = start + length
        raw = raw[:start] + draw(_BYTES) + raw[end:]
    return raw
