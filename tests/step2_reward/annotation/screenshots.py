"""Draws the screenshots of step2_reward/README.md: a demo project in a real browser.

    .venv/bin/python -m tests.step2_reward.annotation.screenshots [FOLDER]

writes label.png, label_phone.png, label_dark.png and project.png; needs the test tools.
"""

import json
import random
import sqlite3
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.browsers import launch_options
from tests.step2_reward.annotation.browsing import Person
from tests.step2_reward.annotation.demo import QUESTIONS, rows
from tests.step2_reward.annotation.serving import ROOT, Server

LABELERS = ["anna", "ben", "carla", "dmitri"]
CARE = {"anna": 0.5, "ben": 0.8, "carla": 0.6, "dmitri": 2.2}
"""How far a demo labeler's taste strays from the order in which the demo's responses stand."""


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        files = {"samples": rows(48), "gold": gold()}
        for name, content in files.items():
            text = "".join(json.dumps(row) + "\n" for row in content)
            Path(place, f"{name}.jsonl").write_text(text, encoding="utf-8")
        paths = {name: str(Path(place, f"{name}.jsonl")) for name in files}
        with Server(Path(place) / "run", labelers=LABELERS, gold_every=6, **paths) as server:
            work(server)
            with sync_playwright() as playwright:
                browser = playwright.chromium.launch(**launch_options())
                draw(browser, server, folder)
                browser.close()


def gold() -> list[dict]:
    """Questions of which the order is known: the demo's responses stand best first."""
    made = []
    for i, (prompt, responses) in enumerate(QUESTIONS):
        if isinstance(prompt, str):
            row = {"prompt": f"{prompt} ({i})", "responses": responses, "orders": [[0, 1, 2, 3, 4]]}
            made.append(row)
    return made


def work(server: Server) -> None:
    """The demo labelers rank some of the prompts, each in their own way."""
    known = {text: i for _, responses in QUESTIONS for i, text in enumerate(responses)}
    draws = random.Random(7)
    for name, count in zip(LABELERS, (31, 26, 34, 19), strict=True):
        labeler = server.labeler(name).sign_in()
        for _ in range(count):
            item = labeler.next()
            taste = [known[text] + draws.gauss(0, CARE[name]) for text in item["responses"]]
            order = [[place] for place in sorted(range(len(taste)), key=lambda p: taste[p])]
            if draws.random() < 0.2:
                order[1:3] = [order[1] + order[2]]
            more = {"seconds": round(draws.uniform(40, 150), 1)}
            if draws.random() < 0.1:
                more["comment"] = "The second one states as fact what it cannot know."
            if draws.random() < 0.04:
                order, more["cannot_judge"] = [], True
            labeler.save(item, order, **more)
    spread_over_days(server)


def spread_over_days(server: Server) -> None:
    """As if they had come over a week; done in the demo's database, which nobody trains on."""
    database = sqlite3.connect(server.folder / "annotate" / "labels.sqlite")
    ids = [i for (i,) in database.execute("SELECT answer_id FROM answers ORDER BY saved")]
    for i, answer_id in enumerate(random.Random(3).sample(ids, len(ids))):
        database.execute(
            "UPDATE answers SET saved = saved - 86400 * ? WHERE answer_id = ?",
            (i * 7 // len(ids), answer_id),
        )
    database.commit()
    database.close()


def draw(browser: Browser, server: Server, folder: Path) -> None:
    desktop = {"width": 1280, "height": 860}
    for name, options in {
        "label": {"viewport": desktop},
        "label_dark": {"viewport": desktop, "color_scheme": "dark"},
        "label_phone": {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 1},
    }.items():
        phone = "phone" in name
        page = browser.new_context(has_touch=phone, is_mobile=phone, **options).new_page()
        anna = Person(page, server.link("anna"))
        anna.arrive()
        while "Python" not in anna.prompt():  # some code is good to look at
            page.locator("#cannot-judge").check()
            anna.save()
        rank_a_little(page)
        if phone:
            page.locator("#board-title").scroll_into_view_if_needed()
            page.evaluate("document.getElementById('board-title').scrollIntoView()")
        page.screenshot(path=folder / f"{name}.png")
        page.close()
    for name, options in {"project": {"width": 1280, "height": 1250}}.items():
        page = browser.new_context(viewport=options).new_page()
        page.goto(server.link(""))
        page.wait_for_selector("#labelers tbody tr")
        page.screenshot(path=folder / f"{name}.png")
        page.close()


def rank_a_little(page: Page) -> None:
    while page.locator(".place").count():
        page.locator(".place .grip").first.focus()
        page.keyboard.press("Delete")
    texts = page.locator(".card .text").all_inner_texts()
    best_first = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    for place in best_first[:4]:
        page.locator(f'.tray [data-response="{place}"] [data-act=place]').click()
    page.locator(".place .grip").nth(2).focus()
    page.keyboard.press("t")
    page.mouse.move(5, 5)
    page.locator("#prompt-title").focus()


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "step2_reward"))
