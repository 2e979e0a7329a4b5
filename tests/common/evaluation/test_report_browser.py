"""The report in a real browser: nothing comes from elsewhere, filters work, it fits a phone."""

import json
import re

import pytest

from common.evaluation.report import write_report
from tests.common.evaluation.conftest import response_row, write_lines

pytestmark = pytest.mark.browser

ATTACK = (
    "</script><script>window.owned = 1</script><img src='http://evil.example/x' onerror='owned=2'>"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A report of thirty prompts: wins, ties and losses, two tasks, hostile text, tokens of two."""
    run = tmp_path_factory.mktemp("run")
    rows = []
    for index in range(30):
        gap = {0: 20.0, 1: 0.0, 2: -10.0 - index}[index % 3]
        task = "rewrite" if index < 10 else "policy"
        for model in ("sft", "rlhf"):
            for decoding in ("sample", "greedy"):
                score = 50.0 + (gap if model == "rlhf" and decoding == "sample" else 0.0)
                text = ATTACK if index == 4 else f"{model} says {index}, a word " * 12
                values = {"overall": score, "reward": score / 50, "task": task, "response": text}
                rows.append(response_row("seen", index, model, decoding, **values))
    write_lines(run / "evaluation" / "responses.jsonl", rows)
    tokens = []
    for index in (0, 2):
        row = {"split": "seen", "index": index, "model": "rlhf", "decoding": "sample", "sample": 0}
        row |= {"tokens": [" yes", " <b>", ""], "sft": [-1.0, -3.0, -0.5], "values": [1, 2, 3]}
        tokens.append(row | {"rlhf": [-0.5, -0.25 - index, -0.5], "advantages": [-1.5, 0.5, 0]})
    write_lines(run / "evaluation" / "tokens.jsonl", tokens)
    steps = [{"step": s, "reward/score": s / 9, "kl/sequence_k1": s / 9} for s in range(1, 40)]
    write_lines(run / "rlhf" / "metrics.jsonl", steps)
    event = {"step": 7, "text": "the KL is high", "action": "goes on"}
    write_lines(run / "rlhf" / "events.jsonl", [event])
    return write_report(run)[1]


@pytest.fixture
def visit(browser, path):
    """Opens the report; whatever the page complains of or asks for fails the test."""
    odd = []

    def open_page(**options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", lambda message: odd.append(message.text))
        page.on("pageerror", lambda error: odd.append(str(error)))
        page.on("request", lambda r: odd.append(r.url) if not r.url.startswith("file:") else None)
        page.goto(path.as_uri())
        page.wait_for_selector(".sample")
        return page

    yield open_page
    assert odd == []


def shown(page):
    """Numbers of the prompts on the page."""
    return [
        int(re.search(r"prompt (\d+)", t)[1]) for t in page.locator(".sample h3").all_inner_texts()
    ]


def field(page, label):
    return page.locator("#samples").get_by_label(label)


def count(page):
    return page.locator(".count").inner_text()


def test_filters_choose_and_orders_sort(visit):
    page = visit()
    assert shown(page) == list(range(8)) and count(page) == "30 of 30 prompts"
    page.get_by_role("button", name="Next").click()
    assert shown(page) == list(range(8, 16))
    field(page, "RLHF against SFT").select_option("loss")
    assert count(page) == "10 of 30 prompts" and shown(page) == [2, 5, 8, 11, 14, 17, 20, 23]
    field(page, "Order").select_option("worst")
    assert shown(page)[:3] == [29, 26, 23]
    field(page, "Task").select_option("rewrite")
    assert shown(page) == [8, 5, 2]
    field(page, "Decoding").select_option("greedy")
    assert count(page) == "0 of 30 prompts"  # all ties
    field(page, "Decoding").select_option("sample")
    field(page, "RLHF against SFT").select_option("")
    field(page, "Text in prompt or answers").fill("RLHF SAYS 7,")
    assert shown(page) == [7]
    field(page, "Text in prompt or answers").fill("")
    field(page, "only with scores by token").check()
    field(page, "Order").select_option("kl")
    assert shown(page) == [0, 2]


def test_tokens_are_coloured_and_tell_their_numbers_to_mouse_and_keyboard(visit):
    page = visit()
    field(page, "only with scores by token").check()
    first = page.locator(".tokens").first
    tokens = first.locator(".token")
    assert tokens.all_inner_texts() == ["yes", " <b>", "end"]
    colour = "node => getComputedStyle(node).backgroundColor"
    by_ratio = tokens.nth(1).evaluate(colour)
    assert by_ratio != tokens.nth(2).evaluate(colour)
    tokens.nth(0).hover()
    detail = page.locator(".detail").first
    assert "+0.500 nats" in detail.inner_text() and "value +1.000 deviations" in detail.inner_text()
    tokens.nth(0).focus()
    page.keyboard.press("ArrowRight")
    assert "2. “ <b>”" in detail.inner_text() and "advantage +0.500" in detail.inner_text()
    page.keyboard.press("End")
    assert "end token" in detail.inner_text()
    field(page, "Colour over the text").select_option("g")
    assert "Advantage, deviations" in page.locator(".colour-legend").inner_text()
    assert page.locator(".token").nth(1).evaluate(colour) != by_ratio
    field(page, "Colour over the text").select_option("")
    assert page.locator(".token").nth(1).evaluate(colour) == "rgba(0, 0, 0, 0)"


def test_hostile_text_is_only_text(visit):
    page = visit()
    field(page, "Text in prompt or answers").fill("evil.example")
    assert shown(page) == [4]
    assert page.locator(".answer .text").all_inner_texts() == [ATTACK, ATTACK]
    assert page.evaluate("window.owned") is None and page.locator("main img").count() == 0


@pytest.mark.parametrize("width", [320, 375])
def test_it_fits_a_phone_and_is_dark_where_that_is_wished(visit, width):
    page = visit(viewport={"width": width, "height": 700}, color_scheme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("button", name="Next").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    back, ink = page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )
    dark, light = (sum(json.loads(f"[{c[4:-1]}]")) for c in (back, ink))
    assert dark < 120 and light > 500
    page.emulate_media(media="print", color_scheme="dark")
    back, ink = page.evaluate(
        "() => { const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]; }"
    )
    light, dark = (sum(json.loads(f"[{c[4:-1]}]")) for c in (back, ink))
    assert dark < 150 and light > 700  # paper is white
    for chart in page.locator("figure.chart svg[role=img]").all():
        assert chart.get_attribute("aria-label").count(":") >= 1
