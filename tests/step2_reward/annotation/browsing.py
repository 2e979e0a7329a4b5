"""Labelers in a real browser."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from common.files import write_json_lines
from tests.step2_reward.annotation.serving import Server

NAMES = ["anna", "ben", "carla"]


class Person:
    """Somebody at the page. `places()` gives the responses' places, best first, to this person."""

    def __init__(self, page: Page, link: str) -> None:
        self.page = page
        self.link = link
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._on_dialog)

    def _on_dialog(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def arrive(self) -> None:
        self.page.goto(self.link)
        self.page.wait_for_selector(".card, #message:not([hidden])")

    def texts(self) -> list[str]:
        return self.page.eval_on_selector_all(".card .text", "all => all.map(n => n.textContent)")

    def places(self) -> list[int]:
        """Shortest first."""
        texts = self.texts()
        return sorted(range(len(texts)), key=lambda i: len(texts[i]))

    def prompt(self) -> str:
        return self.page.locator("#prompt").inner_text()

    def groups(self) -> list[list[int]]:
        """The ranking on the board."""
        return self.page.eval_on_selector_all(
            ".place",
            "all => all.map(p => [...p.querySelectorAll('.tile')].map(t => +t.dataset.response))",
        )

    def wait_for_another(self, prompt: str) -> None:
        self.page.wait_for_function(
            "before => document.querySelector('#main').ariaBusy !== 'true' && "
            "(document.querySelector('#main').hidden || "
            "document.querySelector('#prompt').innerText !== before)",
            arg=prompt,
            timeout=60_000,
        )

    def save(self) -> None:
        before = self.prompt()
        self.page.locator("#save").click()
        self.wait_for_another(before)

    # --- by click

    def click_ranking(self) -> None:
        for place in self.places():
            self.page.locator(f"#response-{place} .place-button").click()

    # --- by keyboard

    def tab_to(self, selector: str, key: str = "Tab") -> None:
        for _ in range(120):
            if self.page.evaluate("s => document.activeElement.matches(s)", selector):
                return
            self.page.keyboard.press(key)
        raise AssertionError(f"no way by {key} to {selector}")

    def key_in_ranking(self, *, digits: bool) -> None:
        """Tab and Enter from best to worst; or every tile in turn, with the digit of its place."""
        keys = self.page.keyboard
        places = self.places()
        if not digits:
            for place in places:
                tile = f'.tray .tile[data-response="{place}"] .grip'
                backwards = self.page.evaluate(
                    "s => document.activeElement.compareDocumentPosition(document.querySelector(s))"
                    " & Node.DOCUMENT_POSITION_PRECEDING",
                    tile,
                )
                self.tab_to(tile, "Shift+Tab" if backwards else "Tab")
                keys.press("Enter")
            return
        placed: list[int] = []
        for place in range(len(places)):
            tile = f'.tray .tile[data-response="{place}"] .grip'
            self.tab_to(tile)
            placed = [p for p in places if p in (*placed, place)]
            keys.press(str(1 + placed.index(place)))

    # --- by drag

    def drag(self, response: int, target: str, share: float) -> None:
        """Onto an element, at this share of its height."""
        mouse = self.page.mouse
        grip = self.page.locator(f'.tile[data-response="{response}"] .grip')
        grip.scroll_into_view_if_needed()
        start, end = grip.bounding_box(), self.page.locator(target).bounding_box()
        mouse.move(start["x"] + 8, start["y"] + start["height"] / 2)
        mouse.down()
        mouse.move(start["x"] + 20, start["y"] + start["height"] / 2 - 8)
        mouse.move(end["x"] + 40, end["y"] + share * end["height"])
        mouse.up()

    def drag_ranking(self) -> None:
        for n, place in enumerate(self.places()):
            self.drag(place, f".place:nth-child({n})" if n else ".empty", 0.95 if n else 0.5)


def person(browser: Browser, server: Server, name: str, **options: Any) -> Person:
    """A labeler at the page, in a browser of their own."""
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    someone = Person(context.new_page(), server.link(name))
    someone.arrive()
    return someone


def serve(folder: Path, samples: list[dict[str, Any]], **settings: Any) -> Server:
    """A project of these samples."""
    write_json_lines(folder / "samples.jsonl", samples)
    more = {"labelers": NAMES} | settings
    return Server(folder / "run", samples=str(folder / "samples.jsonl"), **more)


def answers_of(server: Server, name: str) -> int:
    """As the project page has it."""
    with server.project_page() as client:
        labelers = client.get("/api/project").json()["labelers"]
    return next(row["answers"] for row in labelers if row["name"] == name)
