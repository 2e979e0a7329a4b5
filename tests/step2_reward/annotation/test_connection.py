"""Answers without a connection, of two tabs and of two devices, in a real browser."""

import json

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from tests.step2_reward.annotation.browsing import Person, answers_of, person, serve
from tests.step2_reward.annotation.demo import rows

pytestmark = pytest.mark.browser


def test_two_tabs_without_a_connection(browser, tmp_path):
    """Each keeps its answer; both arrive after both have been closed."""
    with serve(tmp_path, rows(1), labelers_per_prompt=1, labelers=["anna"]) as server:
        context = browser.new_context()
        tabs = [Person(context.new_page(), server.link("anna")) for _ in range(2)]
        for tab in tabs:
            tab.arrive()
        for n, tab in enumerate(tabs):
            tab.click_ranking()
            tab.page.locator("#comment").fill(f"tab {n}")
        context.set_offline(True)
        for tab in tabs:
            tab.page.locator("#save").click()
            tab.page.locator("#notice").get_by_text("Not saved yet").wait_for()
        for tab in tabs:
            tab.page.close()
        context.set_offline(False)
        Person(context.new_page(), server.link("anna")).arrive()
        with server.project_page() as client:
            (row,) = map(json.loads, client.get("/api/project/export").text.splitlines())
        assert row["revisions"] == [2] and row["comments"] == ["tab 1"]
        context.close()


def test_only_a_final_refusal_takes_an_answer_out_of_the_browser(browser, tmp_path):
    """What a proxy or another host name refuses is sent again when that is mended."""
    with serve(tmp_path, rows(1), labelers_per_prompt=1, labelers=["anna"]) as server:
        anna = person(browser, server, "anna")
        anna.click_ranking()
        refusal = {"status": 421, "json": {"error": "this host name is not served here"}}
        anna.page.route("**/answer", lambda route: route.fulfill(**refusal))
        anna.page.locator("#save").click()
        anna.page.get_by_text("Your last answer is kept in this browser").wait_for()
        context = anna.page.context
        anna.page.close()
        again = Person(context.new_page(), server.link("anna"))
        again.arrive()
        again.page.get_by_text("Thank you, all done").wait_for()
        assert answers_of(server, "anna") == 1
        context.close()


def test_an_answer_is_on_its_way_once(browser, quiet_server):
    """Sending twice at a time once took an answer away that had not been sent."""
    page = browser.new_context().new_page()
    page.goto(quiet_server.address)
    sent = page.evaluate(
        """async () => {
          const { Outbox } = await import("/static/outbox.js");
          const sent = [];
          window.fetch = async (path, { body }) => {
            sent.push(JSON.parse(body).answer_id);
            await new Promise((done) => setTimeout(done, 50));
            return new Response("{}");
          };
          const outbox = new Outbox("test", { waiting() {} });
          outbox.add("x", { answer_id: "1".repeat(32) });
          const first = outbox.send();
          outbox.add("y", { answer_id: "2".repeat(32) });
          await Promise.all([first, outbox.send()]);
          return [sent, Object.keys(localStorage)];
        }"""
    )
    assert sent == [["1" * 32, "2" * 32], []]
    page.context.close()


def test_a_draft_is_no_newer_than_a_correction_made_elsewhere(browser, tmp_path):
    with serve(tmp_path, rows(2), labelers_per_prompt=1, labelers=["anna"]) as server:

        def correct(someone):
            someone.page.locator("#show-earlier").click()
            someone.page.locator("#earlier-list button").click()
            someone.page.wait_for_selector("#leave-correction:not([hidden])")

        desk = person(browser, server, "anna")
        desk.click_ranking()
        desk.save()
        correct(desk)  # and leaves it so
        desk.page.reload()
        desk.page.wait_for_selector(".card")
        phone = person(browser, server, "anna")
        correct(phone)
        phone.page.locator("#comment").fill("by phone")
        phone.save()
        correct(desk)
        assert desk.page.locator("#comment").input_value() == "by phone"
        for someone in (desk, phone):
            someone.page.context.close()
