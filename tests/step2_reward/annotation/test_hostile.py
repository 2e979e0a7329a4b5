"""Hostile inputs: none executes, none ends the server, none reads what it should not."""

import json

import httpx
import pytest

from common.errors import UserError
from common.files import write_json_lines
from step2_reward.annotate import AnnotateArguments, main
from tests.step2_reward.annotation import hostile
from tests.step2_reward.annotation.serving import Server, answer

SECRET = "a remark of ben's that nobody else may read"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {"prompt": text, "responses": [f"{text}{n}" for n in range(5)]}
        for text in hostile.TEXTS[:8]
    ]
    write_json_lines(folder / "samples.jsonl", rows)
    names = ["anna", "ben", "carla"]
    with Server(folder / "run", samples=str(folder / "samples.jsonl"), labelers=names) as server:
        ben = server.labeler("ben").sign_in()
        ben.save(ben.next(), hostile.ORDER, comment=SECRET)
        yield server


@pytest.fixture
def anna(server):
    return server.labeler("anna").sign_in()


def answers(server) -> int:
    with server.project_page() as client:
        return client.get("/api/project").json()["answers"]


def check_nothing_leaks(server, text: str) -> None:
    assert server.process.poll() is None
    for secret in (*server.tokens.values(), SECRET, "root:", "import ", "Traceback"):
        assert secret not in text


@pytest.mark.parametrize("path", hostile.PATHS, ids=lambda p: p[:40])
def test_paths(server, path):
    status, text = hostile.raw(server, hostile.head(server, f"GET {path} HTTP/1.1"))
    assert status in (400, 401, 404, 414, 431, 0), text[:300]
    check_nothing_leaks(server, text)


@pytest.mark.parametrize("method", hostile.METHODS)
@pytest.mark.parametrize("path", ["/", "/api/next", "/api/project/export"])
def test_methods(server, method, path):
    json_type = "Content-Type: application/json"
    status, text = hostile.raw(server, hostile.head(server, f"{method} {path} HTTP/1.1", json_type))
    assert status in (400, 404, 405), text[:300]
    check_nothing_leaks(server, text)


@pytest.mark.parametrize(("what", "body"), hostile.bodies(), ids=[w for w, _ in hostile.bodies()])
def test_answers(server, anna, what, body):
    before, item = answers(server), anna.next()
    reply = anna.client.post(
        f"/api/items/{item['key']}/answer",
        content=json.dumps(body),
        headers={"content-type": "application/json"},
    )
    assert reply.status_code == 422, what
    assert set(reply.json()) == {"kind", "error"} and len(reply.text) < 300
    assert answers(server) == before


@pytest.mark.parametrize("number", range(7))
def test_broken_json(server, anna, number):
    before, item = answers(server), anna.next()
    reply = anna.client.post(
        f"/api/items/{item['key']}/answer",
        content=hostile.broken_json()[number],
        headers={"content-type": "application/json"},
    )
    assert reply.status_code in (400, 422), reply.text[:200]
    check_nothing_leaks(server, reply.text)
    assert answers(server) == before


def test_long_requests(server, anna):
    item = anna.next()
    path = f"/api/items/{item['key']}/answer"
    kind = {"content-type": "application/json"}
    unannounced = (b" " * 50_000 for _ in range(100))
    for content in (b" " * 300_000, unannounced):
        try:
            assert anna.client.post(path, content=content, headers=kind).status_code == 413
        except httpx.TransportError:
            pass  # the server hung up while we were sending
    line = f"POST {path} HTTP/1.1"
    kind = "Content-Type: application/json"
    for length in ("-5", "1e3", "9" * 30, "0x10"):
        status, text = hostile.raw(
            server, hostile.head(server, line, kind, f"Content-Length: {length}")
        )
        assert status in (400, 413, 0), text[:200]
    status, _ = hostile.raw(server, hostile.head(server, line, kind, "Content-Length: 50") + b"{")
    assert status in (400, 0)
    status, _ = hostile.raw(server, hostile.head(server, "GET / HTTP/1.1", f"X: {'y' * 200_000}"))
    assert status in (400, 431, 0)
    status, _ = hostile.raw(server, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # TLS
    assert status in (400, 0)
    check_nothing_leaks(server, "")
    assert httpx.get(server.address).status_code == 200


def test_forged_tokens(server):
    real = server.tokens
    forged = ["", "x", real["anna"][:-1], real["anna"] + "A", real["anna"].swapcase(), real[""]]
    forged += ["' OR 1=1 --", "\x00" * 43, "é" * 43, "x" * 100_000, None, ["a"], {"$ne": ""}]
    for token in forged:
        body = json.dumps({"page": "labeler", "token": token})
        kind = {"content-type": "application/json"}
        reply = httpx.post(f"{server.address}/api/session", content=body, headers=kind)
        assert reply.status_code in (403, 413, 422), token
        assert "set-cookie" not in reply.headers
    # A labeler's token opens no project page, be it sent as a link or as a cookie.
    body = {"page": "project", "token": real["anna"]}
    assert httpx.post(f"{server.address}/api/session", json=body).status_code == 403
    with server.project_page() as client:
        (cookie,) = [c.name for c in client.cookies.jar]
        assert httpx.get(f"{server.address}/api/project", cookies={cookie: real[""]}).is_success
        for token in (real["anna"], "", "\x80", real[""] + " x"):
            headers = {"cookie": f"{cookie}={token}".encode("latin-1")}
            for path in ("/api/project", "/api/project/export"):
                reply = httpx.get(f"{server.address}{path}", headers=headers)
                assert reply.status_code == 401
                check_nothing_leaks(server, reply.text)


def test_nobody_reads_or_writes_for_another(server, anna):
    ben = server.labeler("ben").sign_in()
    (his,) = ben.client.get("/api/mine").json()["answers"]
    before = answers(server)
    assert anna.client.get("/api/mine").json()["answers"] == []
    # Not on anna's desk: neither to be read nor to be answered, nor to be kept from others.
    carla = server.labeler("carla").sign_in()
    for reply in (
        carla.client.get(f"/api/items/{his['key']}"),
        carla.post(his["key"], answer(hostile.ORDER)),
    ):
        assert reply.status_code == 410
        check_nothing_leaks(server, reply.text)
    assert not carla.client.post(f"/api/items/{his['key']}/at-work", json={}).json()["yours"]
    # Ben's browser, in which anna has signed in meanwhile.
    ben.client.headers["x-annotate"] = "anna"
    assert ben.post(his["key"], answer(hostile.ORDER)).status_code == 409
    del ben.client.headers["x-annotate"]
    reply = ben.post(his["key"], answer(hostile.ORDER))
    assert reply.status_code == 409 and "X-Annotate is missing" in reply.json()["error"]
    assert answers(server) == before


def test_replayed_requests(server):
    carla = server.labeler("carla").sign_in()
    item = carla.next()
    body = answer(hostile.ORDER, comment="once")
    first = carla.post(item["key"], body).json()
    before = answers(server)
    for _ in range(3):
        again = carla.post(item["key"], body)
        assert again.json() | {"left": 0} == first | {"new": False, "left": 0}
    assert carla.post(item["key"], body | {"comment": "forged"}).status_code == 409
    other = carla.next()
    assert carla.post(other["key"], body).status_code == 409
    assert answers(server) == before
    assert (
        carla.client.get(f"/api/items/{item['key']}").json()["item"]["answer"]["comment"] == "once"
    )


def test_requests_from_other_sites(server, anna):
    """With anna's cookie, as a browser would send it from a page of another port or host."""
    here = server.address
    for headers in (
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:1"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ):
        assert anna.client.post("/api/next", json={}, headers=headers).status_code == 403
    form = anna.client.post("/api/next", data={"a": "b"})
    plain = anna.client.post("/api/next", content="{}", headers={"content-type": "text/plain"})
    assert form.status_code == plain.status_code == 415
    del anna.client.headers["x-annotate"]
    assert anna.client.post("/api/next", json={}, headers={"origin": here}).status_code == 409
    preflight = {"origin": "http://evil.example", "access-control-request-method": "POST"}
    reply = anna.client.options(
        "/api/next", headers=preflight | {"content-type": "application/json"}
    )
    assert reply.status_code == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:80",
        "127.0.0.1.evil.example",
        "localhost.evil",
        "10.0.0.1",
        "",
        "[",
    ],
)
def test_other_hosts(server, host):
    """A name that an attacker's DNS points here (rebinding) is not served."""
    request = f"GET /project HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    status, text = hostile.raw(server, request.encode())
    assert status in (400, 421), text
    twice = f"GET / HTTP/1.1\r\nHost: localhost\r\nHost: {host}\r\nConnection: close\r\n\r\n"
    assert hostile.raw(server, twice.encode())[0] in (400, 421)


def test_what_every_reply_carries(server):
    for path in ("/", "/project", "/static/label.js", "/api/me", "/nowhere"):
        reply = httpx.get(f"{server.address}{path}")
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "require-trusted-types-for 'script'" in policy
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["referrer-policy"] == "no-referrer"
        assert "server" not in reply.headers
    reply = httpx.post(
        f"{server.address}/api/session", json={"page": "labeler", "token": server.tokens["anna"]}
    )
    cookie = reply.headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie and "secure" not in cookie
    reply = httpx.post(
        f"{server.address}/api/session",
        json={"page": "labeler", "token": server.tokens["anna"]},
        headers={"origin": f"https://127.0.0.1:{server.port}"},  # behind a proxy with TLS
    )
    assert "secure" in reply.headers["set-cookie"].lower()


def test_pages_hold_no_inline_code(server):
    for path in ("/", "/project"):
        text = httpx.get(f"{server.address}{path}").text
        assert "<style" not in text and " style=" not in text and " onclick" not in text
        assert text.count("<script") == text.count('<script type="module" src="/static/') == 1
        assert "http://" not in text and "https://" not in text


def test_a_proxy_with_its_own_name(tmp_path):
    write_json_lines(tmp_path / "samples.jsonl", [{"prompt": "p", "responses": ["a", "b"]}])
    settings = {"labelers": ["anna"], "labelers_per_prompt": 1, "address": "https://label.example"}
    with Server(tmp_path / "run", samples=str(tmp_path / "samples.jsonl"), **settings) as server:
        links = (tmp_path / "run" / "annotate" / "links.txt").read_text()
        assert f"anna\thttps://label.example/#{server.tokens['anna']}" in links
        body = {"page": "labeler", "token": server.tokens["anna"]}
        proxied = {"host": "label.example", "origin": "https://label.example"}
        assert httpx.post(f"{server.address}/api/session", json=body, headers=proxied).is_success
        own = {"host": f"127.0.0.1:{server.port}"}  # as nginx sends it on, unless told otherwise
        session = f"{server.address}/api/session"
        https = own | {"origin": "https://label.example"}
        assert httpx.post(session, json=body, headers=https).is_success
        evil = own | {"origin": "https://evil.example"}
        assert httpx.post(session, json=body, headers=evil).status_code == 403
        other = {"host": "other.example"}
        assert httpx.get(server.address, headers=other).status_code == 421


def test_other_machines_are_let_in_only_when_asked_and_with_a_warning(tmp_path):
    write_json_lines(tmp_path / "samples.jsonl", [{"prompt": "p", "responses": ["a", "b"]}])
    settings = {"labelers": ["anna"], "labelers_per_prompt": 1}
    settings |= {"samples": str(tmp_path / "samples.jsonl")}
    with Server(tmp_path / "run", host="0.0.0.0", allow_remote=True, **settings) as server:
        assert "WARNING: other machines can reach this page" in server.log.read_text()
        by_address = {"host": "10.1.2.3:8765"}
        assert httpx.get(server.address, headers=by_address).status_code == 200
        by_name = {"host": "evil.example"}
        assert httpx.get(server.address, headers=by_name).status_code == 421
        second = AnnotateArguments(run=str(tmp_path / "run"), port=0, **settings)
        with pytest.raises(UserError, match="another process .* is at work"):
            main(second)
