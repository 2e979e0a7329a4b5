"""People at the labeling page, in a real browser."""

import json
import os
import subprocess
from pathlib import Path

import pytest

pytest.importorskip("playwright", reason="Playwright is not installed")

from playwright.sync_api import sync_playwright

from common.files import read_json_lines, write_json_lines
from step2_reward.annotate import AnnotateArguments, main
from tests.models import save_tiny
from tests.stages import finish, start
from tests.step2_reward.annotation import hostile
from tests.step2_reward.annotation.browsing import Person, launch_options, why_no_browser
from tests.step2_reward.annotation.demo import rows
from tests.step2_reward.annotation.serving import ROOT, Server

NAMES = ["anna", "ben", "carla"]
WORDS = "a few words more of this answer".split()

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    reason = why_no_browser()
    if reason:
        pytest.skip(reason)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(**launch_options())
        yield browser
        browser.close()


def person(browser, server, name, **options) -> Person:
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    someone = Person(context.new_page(), server.link(name))
    someone.arrive()
    return someone


def serve(tmp_path, samples, **settings) -> Server:
    write_json_lines(tmp_path / "samples.jsonl", samples)
    more = {"labelers": NAMES} | settings
    return Server(tmp_path / "run", samples=str(tmp_path / "samples.jsonl"), **more)


def short_and_long(count: int) -> list[dict]:
    """Responses that differ in length, for labelers who like short ones."""
    return [
        {
            "prompt": f"question {i}?",
            "responses": [" ".join(WORDS[: 1 + (i + n) % 5]) + f" {n}." for n in range(5)],
        }
        for i in range(count)
    ]


def side_by_side(browser, server, prompts: int) -> None:
    """Three labelers take turns at the same prompts."""
    anna, ben, carla = (person(browser, server, name) for name in NAMES)
    for turn in range(prompts):
        anna.click_ranking()
        anna.save()

        prompt = ben.prompt()  # by keyboard alone, from here to the next prompt
        ben.key_in_ranking(digits=turn % 2 == 1)
        ben.page.keyboard.press("Control+Enter")
        ben.wait_for_another(prompt)

        carla.drag_ranking()
        if turn == prompts // 2:
            carla = lose_connection_and_come_back(browser, server, carla)
        elif turn == prompts // 2 + 1:
            lose_connection_for_a_moment(carla)
        else:
            carla.save()
    for someone in (anna, ben, carla):
        assert someone.page.locator("#message-title").inner_text() == "Thank you, all done"
        assert not someone.complaints
        someone.page.context.close()


def lose_connection_and_come_back(browser, server, carla) -> Person:
    """The answer waits in the browser, whose page is closed and opened again later."""
    before = answers_of(server, "carla")
    context = carla.page.context
    context.set_offline(True)
    carla.page.locator("#save").click()
    notice = carla.page.locator("#notice")
    notice.get_by_text("Not saved yet").wait_for()
    assert "kept in this browser" in notice.inner_text()
    assert carla.page.locator("#status").inner_text() == "Not saved yet"
    # A page that is being closed may see the connection come back, and send what is to wait.
    carla.page.evaluate("() => { window.fetch = () => new Promise(() => {}); }")
    carla.page.close()
    context.set_offline(False)
    assert answers_of(server, "carla") == before
    again = Person(context.new_page(), server.link("carla"))
    again.arrive()
    assert answers_of(server, "carla") == before + 1
    return again


def lose_connection_for_a_moment(carla) -> None:
    """The page sends the answer by itself when the connection is back."""
    prompt = carla.prompt()
    carla.page.context.set_offline(True)
    carla.page.locator("#save").click()
    carla.page.locator("#notice").get_by_text("Not saved yet").wait_for()
    carla.page.context.set_offline(False)
    carla.wait_for_another(prompt)
    assert carla.page.locator("#notice").is_hidden()


def answers_of(server, name) -> int:
    with server.project_page() as client:
        labelers = client.get("/api/project").json()["labelers"]
    return next(row["answers"] for row in labelers if row["name"] == name)


def command(*words) -> str:
    done = subprocess.run(
        ["bash", *map(str, words)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rank_and_export(browser, tmp_path, prompts: int) -> Path:
    """From samples to a file of rankings, through three browsers."""
    run = tmp_path / "run"
    rankings = run / "annotate" / "rankings.jsonl"
    with serve(tmp_path, short_and_long(prompts)) as server:
        side_by_side(browser, server, prompts)
        samples = str(tmp_path / "samples.jsonl")
        main(AnnotateArguments(run=str(run), samples=samples, export=str(rankings)))  # beside it
    exported = read_json_lines(rankings)
    assert len(exported) == prompts
    for row in exported:
        by_length = sorted(range(5), key=lambda n: len(row["responses"][n]))
        assert row["labelers"] == NAMES and row["orders"] == [by_length] * 3
        assert row["revisions"] == [1, 1, 1] and min(row["seconds"]) > 0
    assert len({tuple(shown) for row in exported for shown in row["shown"]}) > prompts
    return rankings


def test_three_labelers_side_by_side(browser, tmp_path):
    rank_and_export(browser, tmp_path, prompts=4)


@pytest.mark.slow
def test_from_the_browser_to_a_reward_model(browser, tmp_path):
    """Twenty prompts, ranked side by side; export; pairs; a reward model that has learned them."""
    run = tmp_path / "run"
    rankings = rank_and_export(browser, tmp_path, prompts=20)
    shell = ["step2_reward/annotate.sh", "--run", run, "--samples", tmp_path / "samples.jsonl"]
    said = command(*shell, "--export", tmp_path / "again.jsonl")
    assert "20 prompts with 60 rankings" in said
    assert (tmp_path / "again.jsonl").read_text() == rankings.read_text()
    command("step2_reward/pairs.sh", "--run", run, "--rankings", rankings)
    pairs = read_json_lines(run / "pairs" / "pairs.jsonl")
    assert len(pairs) == 4 * 20
    assert all(len(pair["chosen"]) < len(pair["rejected"]) for pair in pairs)
    save_tiny(run / "models" / "sft")
    settings = {"learning_rate": 0.01, "epochs": 4, "batch_size": 8, "micro_batch_size": 8}
    settings |= {"eval_fraction": 0.25, "max_prompt_tokens": 200, "max_response_tokens": 60}
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    finish(start("step2_reward/main.py", "--run", str(run), *words), seconds=300)
    assert (run / "models" / "reward" / "config.json").is_file()
    result = json.loads((run / "reward" / "result.json").read_text())
    assert result["accuracy"] > 0.8, result


def test_ties_ratings_comments_and_corrections(browser, tmp_path):
    with serve(tmp_path, rows(3), labelers_per_prompt=1, labelers=["anna"]) as server:
        anna = person(browser, server, "anna")
        page, keys = anna.page, anna.page.keyboard
        page.locator("#save").click()
        assert "not placed yet" in page.locator("#status").inner_text()
        anna.click_ranking()
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


@pytest.fixture(scope="module")
def quiet_server(tmp_path_factory):
    """A project in which nobody ranks."""
    with serve(tmp_path_factory.mktemp("quiet"), rows(2)) as server:
        yield server


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
