"""What users and models wrote, in a real browser: Markdown, and nothing but text."""

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from tests.step2_reward.annotation import hostile
from tests.step2_reward.annotation.browsing import Person, serve

pytestmark = pytest.mark.browser


def test_hostile_texts_are_shown_as_text(browser, tmp_path):
    texts = hostile.TEXTS
    samples = [
        {"prompt": texts[i], "responses": (texts + texts)[i : i + 5]}
        for i in range(0, len(texts), 5)
    ]
    with serve(tmp_path, samples, labelers_per_prompt=1, labelers=["anna"]) as server:
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        console, requests, shown = [], [], set()
        page.on("console", lambda message: console.append(message.text))
        page.on("request", lambda request: requests.append(request.url))
        anna = Person(page, server.link("anna"))
        anna.arrive()
        while page.locator("#main").is_visible():
            check_is_text(page)
            shown |= {text[:40] for text in anna.texts()}
            page.locator("#show-plain").click()
            check_is_text(page)
            page.locator("#show-plain").click()
            anna.click_ranking()
            page.locator("#comment").fill(texts[0])
            anna.save()
        assert any("window.pwned = 1</script>" in text for text in shown)
        assert any("nul ␀ bell ␇ escape ␛" in text for text in shown)
        assert any("⟨U+202E⟩gpj.exe⟨U+202C⟩" in text for text in shown)
        project = context.new_page()
        project.on("console", lambda message: console.append(message.text))
        project.goto(server.link(""))
        project.wait_for_selector("#labelers tbody tr")
        assert project.evaluate("window.pwned") is None
        assert not anna.complaints and not console
        assert all(url.startswith(server.address) for url in requests)


def check_is_text(page) -> None:
    """Nothing ran, nothing but the page's own code is in it, and no element has come of a text."""
    assert page.evaluate("window.pwned") is None
    assert page.locator("script").count() == 1
    inside = "img, svg, iframe, style, form, meta, link, base, button:not(.more), input, a, object"
    for place in (".card .text", "#prompt .text"):
        assert page.locator(place).locator(inside).count() == 0


MARKDOWN = [
    ("one\ntwo\n\nthree", "<p>one<br>two</p><p>three</p>"),
    ("def f():\n    return 1", "<p>def f():<br>    return 1</p>"),
    ("# A *b*\n## C ##", "<h4>A <em>b</em></h4><h5>C</h5>"),
    (
        "**a _b_** `c*d*` 2 * 3 * 4",
        "<p><strong>a <em>b</em></strong> <code>c*d*</code> 2 * 3 * 4</p>",
    ),
    ("snake_case_name \\*no\\*", "<p>snake_case_name *no*</p>"),
    ("- a\n  - b\n- c", "<ul><li>a<ul><li>b</li></ul></li><li>c</li></ul>"),
    ("3. a\n4) b\n\nc", '<ol start="3"><li>a</li><li>b</li></ol><p>c</p>'),
    ("> a\n> - b", "<blockquote><p>a</p><ul><li>b</li></ul></blockquote>"),
    ("~~~\na\n ~~~ b\n~~~\nc", '<pre tabindex="0" dir="ltr"><code>a\n ~~~ b</code></pre><p>c</p>'),
    ("```\nnever closed", '<pre tabindex="0" dir="ltr"><code>never closed</code></pre>'),
    ("a\n***\nb", "<p>a</p><hr><p>b</p>"),
    ("**never closed", "<p>**never closed</p>"),
    ("[a](javascript:b)", "<p>[a](javascript:b)</p>"),
    (
        "see\n|a|b|\n|-|:-:|\n|1|`2`|",
        '<p>see</p><div class="wide" tabindex="0"><table>'
        "<thead><tr><th>a</th><th>b</th></tr></thead>"
        "<tbody><tr><td>1</td><td><code>2</code></td></tr></tbody></table></div>",
    ),
]


def test_markdown(browser, quiet_server):
    page = browser.new_context().new_page()
    page.goto(quiet_server.address)
    render = "async text => (await import('/static/markdown.js')).show(text, false).innerHTML"
    for text, wanted in MARKDOWN:
        assert page.evaluate(render, text) == wanted, text
    for hard in ("*a ", "_a_b", "`", "[(", "> ", "- ", "1. ", "|-", "#", "~~~\n", "\\", "**_`"):
        assert page.evaluate(render, hard * 8000)  # in time that grows with the length alone
