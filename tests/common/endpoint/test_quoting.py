"""Markers around texts of others: no text contains its own."""

import hashlib
import re

from common.endpoint import quoting
from common.endpoint.quoting import marker_for


def test_no_text_holds_the_marker_of_its_request():
    texts = ["q", "a", "b"]
    first = marker_for(texts)
    assert first == marker_for(texts) and re.fullmatch(r"[0-9a-f]{16}", first)
    chased = texts
    for _ in range(5):  # whoever knows the marker of one request writes it into the next
        chased = [*chased, marker_for(chased)]
        assert all(marker_for(chased) not in text for text in chased)


def test_a_marker_that_a_text_holds_by_chance_is_passed_over(monkeypatch):
    real = hashlib.sha256
    calls = []

    def constant_at_first(data):
        calls.append(data)
        return real(b"fixed") if len(calls) == 1 else real(data)

    monkeypatch.setattr(quoting.hashlib, "sha256", constant_at_first)
    bad = real(b"fixed").hexdigest()[:16]
    assert marker_for(["q", f"see {bad}"]) != bad and len(calls) == 2
