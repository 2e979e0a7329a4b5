"""The labeler's page, in a real browser: ranking, correcting, a phone, a screen reader."""

import json

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.storage import Storage
from tests.step2_reward.annotation.browsing import person, serve
from tests.step2_reward.annotation.demo import rows
from tests.step2_reward.annotation.projects import save

pytestmark = pytest.mark.browser


def test_ties_ratings_comments_and_corrections(browser, tmp_path):
    with serve(tmp_path, rows(3), labelers_per_prompt=1, labelers=["anna"]) as server:
        anna = person(browser, server, "anna")
        page, keys = anna.page, anna.page.keyboard
        page.locator("#save").click()
        assert "not placed yet" in page.locator("#status").inner_text()
        assert "optional" in page.locator("#response-0 summary").inner_text()
        anna.click_ranking()
        assert page.locator("#status").inner_text() == ""  # it would not be true any more
        first, second, third, fourth, fifth = anna.places()
        page.locator(f'.tile[data-response="{third}"] .grip').focus()
        keys.press("t")
        assert anna.groups() == [[first], sorted([second, third]), [fourth], [fifth]]
        said = page.locator("#announcer").inner_text()
        assert f"Response {'ABCDE'[third]} is 2nd, tied with {'ABCDE'[second]}" in said
        anna.drag(fifth, ".place:nth-child(1)", 0.5)  # onto the best: a tie
        assert anna.groups()[0] == sorted([first, fifth])
        anna.drag(fifth, ".place:nth-child(1)", 0.02)
        assert anna.groups()[:2] == [[fifth], [first]]
        keys.press("ArrowDown")
        assert anna.groups()[:2] == [[first], [fifth]]
        page.locator(f"#response-{first} summary").click()
        page.locator(f"#rating-{first}-clarity-2 + span").click(force=True)
        page.locator("#comment").fill("of the <b>five</b> two are alike")
        order = anna.groups()
        page.reload()  # the draft is kept
        page.wait_for_selector(".card")
        assert anna.groups() == order
        before = anna.prompt()
        anna.save()
        assert page.locator("#status").inner_text().startswith("Saved at")
        assert page.evaluate("document.activeElement.id") == "prompt-title"
        page.locator("#cannot-judge").check()
        anna.save()

        page.locator("#show-earlier").click()
        page.locator("#earlier[open]").wait_for()
        assert page.locator("#earlier-list li").count() == 2
        page.locator("#earlier-list li:last-child button").click()
        page.wait_for_selector("#leave-correction:not([hidden])")
        assert anna.prompt() == before and anna.groups() == order
        assert page.locator("#comment").input_value() == "of the <b>five</b> two are alike"
        page.locator(f'.tile[data-response="{first}"] .grip').focus()
        keys.press("Delete")
        keys.press("5")
        anna.save()
        page.locator("#cannot-judge").check()
        anna.save()
        assert page.locator("#message-title").inner_text() == "Thank you, all done"
        assert not anna.complaints
        with server.project_page() as client:
            (row,) = map(json.loads, client.get("/api/project/export").text.splitlines())
        assert row["revisions"] == [2] and row["comments"] == ["of the <b>five</b> two are alike"]
        assert [r for r in row["ratings"][0] if r] == [{"clarity": 2}]
        assert row["orders"][0][-1] == row["shown"][0][first]
        assert [len(e) for e in row["orders"][0] if isinstance(e, list)] == [2]


def test_where_ratings_are_asked_for_their_boxes_are_open(browser, tmp_path):
    settings = {"labelers_per_prompt": 1, "labelers": ["anna"], "ask_ratings": True}
    with serve(tmp_path, rows(1), **settings) as server:
        anna = person(browser, server, "anna")
        boxes = anna.page.locator(".card details.ratings[open]")
        assert boxes.count() == 5 and boxes.locator("fieldset").count() == 5 * 8
        assert boxes.first.locator("summary").inner_text() == "Rate on eight criteria 0 of 8 rated"
        anna.page.locator("#rating-0-clarity-2 + span").click(force=True)
        assert "1 of 8 rated" in boxes.first.locator("summary").inner_text()
        assert not anna.complaints


def test_older_answers_are_reached_by_keyboard(browser, tmp_path):
    samples = [{"prompt": f"prompt {i}", "responses": ["a", "b"]} for i in range(102)]
    server = serve(tmp_path, samples, labelers_per_prompt=1, labelers=["anna"])
    storage = Storage(server.folder / "annotate" / "labels.sqlite")
    project = Project(read_items(tmp_path / "samples.jsonl"), [], storage, Rules(per_prompt=1))
    while item := project.next_page("anna"):
        save(project, "anna", item)
    storage.close()
    with server:
        page = person(browser, server, "anna").page
        page.locator("#show-earlier").press("Enter")
        page.locator("#earlier[open]").wait_for()
        assert page.locator("#earlier-list button").count() == 100
        assert page.locator("#earlier-count").inner_text() == "100 of 102 are shown."
        page.locator("#earlier-more").press("Enter")
        page.get_by_text("102 of 102 are shown.").wait_for()
        assert page.locator("#earlier-more").is_hidden()
        texts = page.locator("#earlier-list button span").all_inner_texts()
        assert sorted(texts) == sorted(sample["prompt"] for sample in samples)
        page.wait_for_function(  # the first of those that were added
            "document.activeElement.closest('li') === document.querySelector('#earlier-list')"
            ".children[100]"
        )
        page.keyboard.press("Enter")
        page.wait_for_selector("#leave-correction:not([hidden])")
        assert page.locator("#prompt").inner_text() == texts[100]
        page.context.close()


def test_digits_give_a_place(browser, tmp_path):
    with serve(tmp_path, rows(1), labelers_per_prompt=1, labelers=["anna"]) as server:
        anna = person(browser, server, "anna")
        keys = anna.page.keyboard
        anna.click_ranking()
        first, second, third, fourth, fifth = anna.places()

        def press(response, key):
            anna.page.locator(f'.tile[data-response="{response}"] .grip').focus()
            keys.press(key)
            return [place for group in anna.groups() for place in group]

        assert press(first, "2") == [second, first, third, fourth, fifth]
        assert press(second, "4") == [first, third, fourth, second, fifth]
        assert press(fifth, "1") == [fifth, first, third, fourth, second]
        assert press(first, "9") == [fifth, third, fourth, second, first]
        press(third, "t")  # two are 1st
        assert press(first, "3") == [*sorted([fifth, third]), first, fourth, second]
        assert "is 3rd" in anna.page.locator("#announcer").inner_text()
        anna.page.context.close()


def test_who_finds_nothing_gets_what_is_given_back(browser, tmp_path):
    settings = {"labelers_per_prompt": 1, "labelers": ["anna", "ben"], "lease_minutes": 0.1}
    with serve(tmp_path, rows(1), **settings) as server:
        server.labeler("anna").sign_in().next()
        ben = person(browser, server, "ben")
        title = ben.page.locator("#message-title")
        assert title.inner_text() == "Nothing for you at the moment"
        assert ben.page.evaluate("document.activeElement.id") == "message-title"
        ben.page.locator("#message-again").focus()  # which looking again does not take
        ben.page.wait_for_timeout(7000)
        ben.page.keyboard.press("Enter")
        ben.page.wait_for_selector(".card")
        ben.page.context.close()


def test_a_phone(browser, tmp_path):
    """At a phone's width nothing sticks out, and a finger drags by the dots."""
    phone = {"viewport": {"width": 390, "height": 780}, "is_mobile": True, "has_touch": True}
    with serve(tmp_path, rows(3), labelers_per_prompt=1, labelers=["anna"]) as server:
        anna = person(browser, server, "anna", **phone)
        page = anna.page
        touch = page.context.new_cdp_session(page)
        for _ in range(3):
            assert page.evaluate("document.documentElement.scrollWidth") == 390
            anna.click_ranking()
            page.locator("#board-title").evaluate("node => node.scrollIntoView()")
            (last,) = anna.groups()[-1]
            dots = page.locator(f'.tile[data-response="{last}"] .dots')
            start, end = dots.bounding_box(), page.locator(".place").nth(0).bounding_box()
            x, y = start["x"] + 8, start["y"] + 12
            points = [(x, y), (x, y - 12), (x + 20, end["y"] + 2)]
            for kind, at in zip(("touchStart", "touchMove", "touchMove"), points, strict=True):
                spot = [{"x": at[0], "y": at[1]}]
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spot})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
            page.wait_for_function(
                "last => document.querySelector('.place .tile').dataset.response === last",
                arg=str(last),
            )
            assert anna.groups()[0] == [last] and len(anna.groups()) == 5
            page.locator('.place:nth-child(1) [data-act="down"]').dispatch_event("click")  # once
            page.wait_for_function(
                "last => document.querySelectorAll('.place .tile')[1].dataset.response === last",
                arg=str(last),
            )
            before = anna.prompt()
            page.locator("#phone-save").click()
            anna.wait_for_another(before)
        assert not anna.complaints


def test_everything_has_a_name_for_a_screen_reader(browser, quiet_server):
    server = quiet_server
    pages = [person(browser, server, "anna").page]
    pages[0].locator(".card summary").first.click()
    pages.append(browser.new_context().new_page())
    pages[1].goto(server.link(""))
    pages[1].wait_for_selector("#labelers tbody tr")
    for page in pages:
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, textarea, a, [tabindex]')]
            .filter(n => n.checkVisibility() && !(n.getAttribute('aria-label') ||
              n.getAttribute('aria-labelledby') || n.labels?.length || n.innerText.trim()))
            .map(n => n.outerHTML)"""
        )
        assert nameless == []
        assert page.locator("h1").count() == 1 and page.locator("html").get_attribute("lang")
    names = pages[0].locator("#main").aria_snapshot()
    for wanted in ("Place response A", "Text of response E", "I can’t judge these", "clarity"):
        assert wanted in names


def test_a_link_that_is_not_known(browser, quiet_server):
    server = quiet_server
    page = browser.new_context().new_page()
    page.goto(server.address)
    page.locator("#message").wait_for()
    assert page.locator("#message-title").inner_text() == "Please sign in"
    page.goto(f"{server.address}/#{'x' * 43}")
    page.get_by_text("This link is not known here").wait_for()
    page.goto(server.link("anna"))
    page.locator(".card").first.wait_for()
    assert "#" not in page.url  # the secret has left the address bar
    assert page.evaluate("document.cookie") == ""
