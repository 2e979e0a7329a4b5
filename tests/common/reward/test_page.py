"""The diagnostics page: self-contained, escaped, and honest about how little it may know."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from common.data.encoding import Comparison
from common.data.records import Message
from common.reward.diagnostics import Diagnosis, measure, worst_mistakes
from common.reward.held_out import held_out_of
from common.reward.measures import distribution
from common.reward.page import page
from common.reward.training import PairObjective, RewardArguments
from tests.common.reward.held_out_pairs import make

HOSTILE = '<script>alert(1)</script> <img src=x onerror=alert(2)> \u202eevil \x00 & "quoted"'
SHIFT = {"shift": 0.8, "ci95": [0.5, 1.0], "size": 0.9, "flips": 0.25, "responses": 40, "unseen": 3}
UNSEEN = {"shift": None, "size": None, "flips": None, "responses": 0, "unseen": 3}


def diagnosis(prompts, hostile=False, known=True, factor=1.0):
    comparisons, rankings, scores = make(prompts)
    scores = [[factor * score for score in row] for row in scores]
    if hostile:
        comparisons = [
            Comparison(
                c.rows,
                c.pairs,
                [
                    replace(p, messages=(Message("user", HOSTILE),), origin="<b>file</b>:1")
                    for p in c.records
                ],
                c.prompt_tokens,
            )
            for c in comparisons
        ]
    held_out = held_out_of(comparisons, scores, rankings if known else [])
    training = PairObjective(make(40, seed=9)[0], 0, RewardArguments(), share_prompts=False)
    found = measure(held_out, training, seed=0)
    found["rewrites"] = {"white space at the end": UNSEEN, "a closing sentence": SHIFT}
    facts = {
        "diagnostics": found,
        "scores": distribution(held_out.responses.scores),
        "scores_preferred": distribution(held_out.scores[:, 0]),
        "scores_other": distribution(held_out.scores[:, 1]),
    }
    return Diagnosis(facts, held_out, worst_mistakes(held_out, 1.0))


class Reader(HTMLParser):
    """Tags, their attributes, and the text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links, self.open, self.text = [], [], [], ""
        self.feed(text)
        self.close()
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [v for k, v in attrs if k in ("src", "href", "action", "data")]
        assert not any(k.startswith("on") for k, _ in attrs)
        if tag not in ("meta", "img", "!doctype"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


WHO = "3 <i>simulated</i> labelers"


def test_nothing_comes_from_elsewhere_and_nothing_runs():
    text = page(diagnosis(40, hostile=True), loss="margin", chosen_by_accuracy=False, labelers=WHO)
    found = Reader(text)
    assert "script" not in found.tags and "link" not in found.tags and "b" not in found.tags
    assert found.links and all(link.startswith("data:image/png;base64,") for link in found.links)
    assert "url(" not in text and "@import" not in text
    assert "default-src 'none'" in text
    assert "<script>alert(1)</script>" in found.text and "onerror=alert(2)" in found.text
    assert "\u202e" not in text and "\x00" not in text and r"\u202eevil \u0000" in found.text
    assert "<b>file</b>:1" in found.text
    assert "Who ranked the pairs: 3 <i>simulated</i> labelers." in found.text
    assert len(re.findall(r"Wrong by", found.text)) == 10


@pytest.mark.parametrize("prompts", [1, 3, 12, 40])
@pytest.mark.parametrize("known", [True, False])
def test_it_survives_sets_of_any_size(prompts, known):
    text = Reader(
        page(
            diagnosis(prompts, known=known), loss="logistic", chosen_by_accuracy=True, labelers=WHO
        )
    ).text
    assert ("Too few held-out prompts: 20 are needed" in text) == (prompts < 20)
    assert ("too few to show much" in text) == (prompts < 10)
    assert ("of two labelers or more (rankings), not pairs alone" in text) == (not known)
    assert ("Agreement of the labelers on each prompt is not known" in text) == (not known)
    assert "it is the best of several looks" in text and "hinge" not in text
    assert "nan" not in text.lower()


def test_the_short_account_says_who_wins():
    made = diagnosis(40)
    length = made.facts["diagnostics"]["length_only"]
    for (low, high), words in (
        ((0.02, 0.2), "the model is better"),
        ((-0.2, -0.02), "the model is worse"),
        ((-0.1, 0.1), "the model cannot be told from that"),
    ):
        length["model_minus"] = {"value": (low + high) / 2, "ci95": [low, high]}
        text = Reader(page(made, loss="margin", chosen_by_accuracy=False, labelers=WHO)).text
        assert words in text
    assert "moves the score by +0.80 deviations and turns 25% of the orders round" in text
    assert "which gives scores no scale" in text  # the hinge
    best = made.facts["diagnostics"]["ceiling"]["value"]
    assert f"in {best:.1%}" in text


@pytest.mark.parametrize("factor", [0.0, 1e30, -1e-30])
def test_it_survives_scores_of_any_size(factor):
    """At 0 all scores are equal: half of the pairs count, nothing correlates, none is a mistake."""
    made = diagnosis(40, factor=factor)
    text = Reader(page(made, loss="logistic", chosen_by_accuracy=False, labelers=WHO)).text
    assert "nan" not in text.lower() and "inf" not in text.lower()
    if factor == 0.0:
        assert "It orders 50.0%" in text and "No held-out pair is in the wrong order" in text
