"""The chat's page: who is let in, what is answered, and people at it in a real browser."""

import json
import re
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict

import httpx
import pytest
import uvicorn
from fastapi.testclient import TestClient

from common.chat.server import build_app, configuration
from common.web_guard import HEADERS, Guard
from tests.common.chat.models import save_endless, save_run, session

TOKEN = "t" * 43


@pytest.fixture(scope="module")
def talk(tmp_path_factory):
    return session([save_run(tmp_path_factory.mktemp("run"))])


def app_of(talk):
    return build_app(talk.speakers, talk.judge, talk.sampling, "", TOKEN)


@pytest.fixture
def client(talk):
    address = "http://127.0.0.1:8770"
    with TestClient(Guard(app_of(talk), address, remote=False), base_url=address) as client:
        yield client


def body(talk, question="Hi", turns=(), **changes):
    sampling = asdict(talk.sampling) | changes
    return {"turns": list(turns), "question": question, "sampling": sampling, "attempt": 0}


def test_without_the_links_token_there_is_no_answer(client, talk):
    assert client.get("/api/about").status_code == 401
    assert client.post("/api/answer", json=body(talk)).status_code == 401
    assert client.post("/api/session", json={"token": "u" * 43}).status_code == 403
    assert client.post("/api/session", json={"token": TOKEN}).status_code == 200
    assert client.get("/api/about").json()["models"] == ["sft", "actor"]


def test_other_sites_and_names_are_refused(client, talk):
    client.post("/api/session", json={"token": TOKEN})
    foreign = {"origin": "http://evil.example"}
    assert client.post("/api/answer", json=body(talk), headers=foreign).status_code == 403
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421


def test_pages_carry_the_policy(client):
    reply = client.get("/")
    assert all(reply.headers[name] == value for name, value in HEADERS.items())
    for name in set(re.findall(r"/static/[\w.]+", reply.text)):
        assert client.get(name).status_code == 200
    assert client.get("/static/../server.py").status_code == 404


def test_pieces_come_as_lines_and_make_the_terminals_answer(client, talk):
    client.post("/api/session", json={"token": TOKEN})
    reply = client.post("/api/answer", json=body(talk))
    lines = [json.loads(line) for line in reply.text.splitlines()]
    again = session_answers(talk, "Hi")
    for model in (0, 1):
        pieces = [x["text"] for x in lines if x["model"] == model and "text" in x]
        (whole,) = [x for x in lines if x["model"] == model and "answer" in x]
        assert len(pieces) > 1 and "".join(pieces).strip() == whole["answer"]
        assert whole["answer"] == again.answers[model]
        assert whole["score"] == pytest.approx(again.scores[model])


def session_answers(talk, question):
    replies = talk.ask(question)
    while any([reply.advance() is not None for reply in replies]):
        pass
    turn = talk.keep(question, replies)
    talk.reset()
    return turn


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"temperature": -1}, "temperature is -1"),
        ({"top_k": 2.5}, "top_k must be a whole number"),
        ({"heat": 1}, "there is no setting 'heat'"),
        ({"question": "x" * 400}, "write a shorter one"),
        ({"turns": [{"question": "a", "answers": ["b"]}]}, "must have 2 answers"),
    ],
)
def test_what_cannot_be_answered_says_why(client, talk, changes, complaint):
    client.post("/api/session", json={"token": TOKEN})
    reply = client.post("/api/answer", json=body(talk, **changes))
    if "question" in changes or "turns" in changes:
        content = body(talk) | changes
        reply = client.post("/api/answer", json=content)
    assert reply.status_code == 422 and complaint in reply.json()["error"]


@contextmanager
def served(talk):
    """The page's link; the server is a thread of this process."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(configuration(app_of(talk), address))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        yield f"{address}/#{TOKEN}"
    finally:
        server.should_exit = True
        thread.join(60)


@pytest.mark.browser
def test_in_a_browser(talk, tmp_path, browser):
    """Two answers stream with scores; retry, undo, save, load; a phone's width; no trouble."""
    from playwright.sync_api import expect

    with served(talk) as link:
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.set_default_timeout(60_000)
        expect.set_options(timeout=60_000)
        trouble: list[str] = []
        page.on("console", lambda m: trouble.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on("dialog", lambda dialog: trouble.append(dialog.message))
        outside: list[str] = []
        page.on(
            "request",
            lambda r: None if r.url.startswith((link[:18], "blob:")) else outside.append(r.url),
        )
        page.goto(link)
        expect(page.locator("#who")).to_have_text("sft and actor, scored by the reward model")
        assert TOKEN not in page.url
        hostile = "<img src=x onerror=alert(1)> & <b>bold</b>"
        page.locator("#question").fill(hostile)
        page.locator("#question").press("Enter")
        remarks = page.locator(".remark")
        expect(remarks).to_have_count(2)
        expect(remarks.nth(0)).to_have_text(
            re.compile(r"^reward [+-]\d+\.\d\d deviations, \d+ tokens")
        )
        expect(remarks.nth(1)).to_have_text(re.compile(r"^reward"))
        assert page.locator(".question").text_content() == hostile
        assert page.locator("#talk img, #talk b").count() == 0
        said = session_answers(talk, hostile)
        texts = page.locator(".answer .text")
        shown = [texts.nth(n).text_content() for n in (0, 1)]
        assert [re.sub(r"[^\x20-\x7e]", "", t) for t in shown] == [
            re.sub(r"[^\x20-\x7e]", "", t) for t in said.answers
        ]
        left, right = (page.locator(".answer").nth(n).bounding_box() for n in (0, 1))
        assert left["y"] == right["y"] and left["x"] < right["x"]

        with page.expect_download() as download:
            page.locator("#save").click()
        file = tmp_path / "talk.jsonl"
        download.value.save_as(file)
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        assert [r["messages"][1]["content"] for r in rows] == said.answers

        page.locator("#retry").click()
        expect(page.locator(".exchange")).to_have_count(1)
        expect(page.locator("#status")).to_have_text("")
        expect(texts.nth(0)).not_to_have_text(shown[0])
        page.locator("#undo").click()
        expect(page.locator(".exchange")).to_have_count(0)
        page.locator("#load").set_input_files(file)
        expect(texts.nth(0)).to_have_text(shown[0])

        for row in rows:
            row["messages"].insert(0, {"role": "system", "content": "Be brief."})
        file.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        page.locator("#load").set_input_files(file)
        expect(page.locator("#notice")).to_contain_text("system message differs")
        expect(texts.nth(0)).to_have_text(shown[0])

        page.locator("summary").click()
        page.locator("input[name=top_p]").fill("7")
        page.locator("#question").fill("again")
        page.locator("#send").click()
        expect(page.locator("#notice")).to_contain_text("top_p (7.0) must lie in (0, 1]")
        assert page.locator("#question").input_value() == "again"
        refused = [t for t in trouble if "422" not in t]  # the browser notes refused requests
        assert not refused and not outside

        page.set_viewport_size({"width": 360, "height": 640})
        page.emulate_media(color_scheme="dark")
        left, right = (page.locator(".answer").nth(n).bounding_box() for n in (0, 1))
        assert right["y"] >= left["y"] + left["height"] and right["x"] == left["x"]
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, re.findall(r"\d+", dark)[:3])) < 64
        page.screenshot(path=tmp_path / "phone.png")
        page.close()


def test_a_page_that_goes_away_stops_the_answer(tmp_path):
    """The next question is answered at once, not behind thirty thousand tokens."""
    talk = session([save_endless(tmp_path / "endless")], temperature=0, max_response_tokens=30_000)
    with served(talk) as link:
        address = link.partition("/#")[0]
        with httpx.Client(base_url=address, timeout=60) as client:
            client.post("/api/session", json={"token": TOKEN}).raise_for_status()
            with client.stream("POST", "/api/answer", json=body(talk)) as reply:
                next(reply.iter_lines())
            short = client.post("/api/answer", json=body(talk, max_response_tokens=2))
            assert "2 tokens" in json.loads(short.text.splitlines()[-1])["remark"]
