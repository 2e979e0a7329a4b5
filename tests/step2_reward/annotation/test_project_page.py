"""The project page, in a real browser."""

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from tests.step2_reward.annotation.browsing import serve
from tests.step2_reward.annotation.demo import rows

pytestmark = pytest.mark.browser


def test_whoever_reads_the_project_page_keeps_the_place(browser, tmp_path):
    """It is drawn anew every 20 seconds."""
    with serve(tmp_path, rows(2), labelers_per_prompt=2, labelers=["anna", "ben"]) as server:
        anna, ben = (server.labeler(name).sign_in() for name in ("anna", "ben"))

        def disagree():
            for someone, order in ((anna, 1), (ben, -1)):
                item = someone.next()
                texts = item["responses"]
                places = sorted(range(5), key=lambda n: texts[n])[::order]
                someone.save(item, [[place] for place in places])

        disagree()
        page = browser.new_context().new_page()
        page.clock.install()
        page.goto(server.link(""))
        summary = page.locator("#disagreed summary").first
        summary.focus()
        page.keyboard.press("Enter")
        page.locator("#disagreed .in-full").wait_for()
        page.evaluate("document.querySelector('.in-full').dataset.mark = 'read'")
        with page.expect_response("**/api/project"):
            page.clock.run_for(21_000)
        assert page.locator("#disagreed [data-mark=read]").count() == 1
        disagree()
        page.clock.run_for(21_000)
        page.locator("#disagreed summary").nth(1).wait_for()
        assert page.evaluate("document.activeElement.parentElement.open")
        page.context.close()
