"""The judge's endpoint: one request a question, a budget that holds, a key that stays secret."""

import json
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException

import pytest

from common.endpoint.cache import AnswerCache, Spent, key_of
from common.endpoint.judge import (
    BudgetSpent,
    EndpointArguments,
    Halted,
    Judge,
    read_completion,
    url_of,
)
from common.errors import UserError
from common.web import SHOWN, NoAnswer
from tests.servers import Server
from tests.step2_reward.ai_feedback.judges import completion

ASKED = [{"role": "user", "content": "q"}]
PATH = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


class Quick(threading.Event):
    """An event that notes what is waited for, and returns at once."""

    def __init__(self):
        super().__init__()
        self.waited = []

    def wait(self, timeout=None):
        self.waited.append(timeout)
        return self.is_set()


@pytest.fixture
def cache(tmp_path):
    cache = AnswerCache(tmp_path / "answers.sqlite")
    yield cache
    cache.close()


def judge_at(server, cache, **settings):
    base = server.url.removesuffix("/chat/completions")
    settings = {"endpoint": base, "judge_model": "judge", **settings}
    return Judge(EndpointArguments(**settings), cache, Quick())


def test_a_request_as_the_api_has_it(cache, monkeypatch):
    monkeypatch.setenv("MY_KEY", " sk-secret\n")
    with Server([(200, completion("yes"))], PATH) as server:
        judge = judge_at(server, cache, api_key_variable="MY_KEY", answer_tokens=7)
        assert judge.answer(ASKED) == "yes"
    assert server.bodies == [
        {"model": "judge", "messages": ASKED, "temperature": 0.0, "max_tokens": 7}
    ]
    assert server.headers[0]["Authorization"] == "Bearer sk-secret"


def test_further_fields_and_fields_taken_out(cache):
    request = '{"max_tokens": null, "max_completion_tokens": 9, "temperature": null}'
    with Server([(200, completion("yes"))], PATH) as server:
        judge_at(server, cache, request=request).answer(ASKED)
    assert server.bodies == [{"model": "judge", "messages": ASKED, "max_completion_tokens": 9}]
    assert "Authorization" not in server.headers[0]


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000/v1/chat/completions"),
        ("https://api.example.org/v1/", "https://api.example.org/v1/chat/completions"),
        ("https://x.org/a/chat/completions", "https://x.org/a/chat/completions"),
    ],
)
def test_the_url_of_chat_completions(endpoint, url):
    assert url_of(endpoint) == url


@pytest.mark.parametrize(
    "endpoint",
    [
        *("file:///etc/passwd", "ftp://x.org", "x.org/v1", "http://", "http://x.org:99999/v1"),
        *("http://x.org/a b", "http://x.org/\nv1", "http://[::1/v1"),
    ],
)
def test_what_is_no_endpoint(endpoint):
    with pytest.raises(UserError, match="endpoint must be an HTTP URL"):
        EndpointArguments(endpoint=endpoint)


@pytest.mark.parametrize("endpoint", ["https://me:pw@x.org/v1", "https://x.org/v1?key=pw"])
def test_secrets_in_the_endpoint_are_refused_and_not_repeated(endpoint):
    with pytest.raises(UserError, match="must have no user name, password, query") as caught:
        EndpointArguments(endpoint=endpoint)
    assert "pw" not in str(caught.value).replace("password", "")


@pytest.mark.parametrize("request_", ["[1]", "{", '{"model": "x"}', '{"stream": true}', "nope"])
def test_what_no_request_may_have(request_):
    with pytest.raises(UserError, match="request must"):
        EndpointArguments(request=request_)


def test_no_question_is_asked_twice_not_even_by_another_process(cache, tmp_path):
    with Server([(200, completion("yes"))], PATH) as server:
        judge = judge_at(server, cache)
        assert [judge.answer(ASKED) for _ in range(3)] == ["yes"] * 3
        assert judge.from_cache == 2
        other = AnswerCache(tmp_path / "answers.sqlite")
        assert judge_at(server, other).answer(ASKED) == "yes"
        assert other.spent() == Spent(requests=1, tokens=10)
        other.close()
    assert len(server.bodies) == 1


@pytest.mark.parametrize(
    "change", [{"judge_model": "b"}, {"judge_temperature": 1.0}, {"answer_tokens": 9}]
)
def test_another_model_or_setting_is_another_question(cache, change):
    with Server([(200, completion("yes"))], PATH) as server:
        judge_at(server, cache).answer(ASKED)
        judge_at(server, cache, **change).answer(ASKED)
    assert len(server.bodies) == 2
    assert key_of("http://a/v1", {"x": 1}) != key_of("http://b/v1", {"x": 1})


@pytest.mark.parametrize(
    "settings", [{"timeout": 9.0}, {"retries": 1}, {"concurrency": 1}, {"max_requests": 50}]
)
def test_what_changes_no_answer_finds_it_again(cache, settings):
    with Server([(200, completion("yes"))], PATH) as server:
        judge_at(server, cache).answer(ASKED)
        judge_at(server, cache, **settings).answer(ASKED)
    assert len(server.bodies) == 1


def test_trouble_is_waited_out_with_growing_spread_pauses(cache, capsys):
    trouble = [
        (503, b"loading"),
        (429, b"slow", {"Retry-After": "17"}),
        None,
        (200, b"<html>gateway</html>"),
        (200, {"error": "odd"}),
    ]
    with Server([*trouble, (200, completion("yes"))], PATH) as server:
        judge = judge_at(server, cache)
        assert judge.answer(ASKED) == "yes"
    assert len(server.bodies) == 6 and cache.spent() == Spent(6, 10)
    waits = judge.halted.waited
    assert waits[1] == 17
    assert all(1.0 * 2**i <= w <= 1.5 * 2**i for i, w in enumerate(waits) if i != 1)
    told = capsys.readouterr().err
    assert told.count("no answer from") == 1, "the first time only"
    assert f"{judge.url}: code 503" in told and "up to 6 more times" in told


def test_tries_that_all_fail(cache):
    with Server([(500, b"broken")], PATH) as server:
        with pytest.raises(NoAnswer, match="code 500 .*broken") as caught:
            judge_at(server, cache, retries=2).answer(ASKED)
    assert caught.value.tries == 3 and cache.spent() == Spent(3, 0)


def test_a_server_that_stalls(cache):
    gate = threading.Event()

    def stall(body):
        gate.wait(30)
        return 200, completion("late")

    with Server([stall, (200, completion("yes"))], PATH) as server:
        assert judge_at(server, cache, timeout=0.5).answer(ASKED) == "yes"
        gate.set()
    assert cache.spent().requests == 2


def test_a_budget_of_requests_holds_among_threads(cache):
    with Server([(200, completion("yes"))], PATH) as server:
        judge = judge_at(server, cache, max_requests=5)
        ends = []

        def ask(n):
            try:
                judge.answer([{"role": "user", "content": str(n)}])
            except BudgetSpent as error:
                ends.append(str(error))

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(server.bodies) == 5 == cache.spent().requests
    assert ends == ["max_requests (5) is reached: 5 so far"] * 7


def test_a_budget_of_tokens_and_an_endpoint_that_counts_none(cache):
    with Server([(200, completion("yes", tokens=40))], PATH) as server:
        judge = judge_at(server, cache, max_tokens=100)
        for n in range(3):  # the third begins at 80
            judge.answer([{"role": "user", "content": str(n)}])
        with pytest.raises(BudgetSpent, match="max_tokens .100. is reached: 120 so far"):
            judge.answer(ASKED)
        assert judge.answer([{"role": "user", "content": "1"}]) == "yes"  # known: costs nothing
    mute = {k: v for k, v in completion("yes").items() if k != "usage"}
    with Server([(200, mute)], PATH) as server:
        with pytest.raises(UserError, match="max_tokens cannot be held"):
            judge_at(server, cache, max_tokens=1000).answer(ASKED)
        assert judge_at(server, cache).answer(ASKED) == "yes"  # was kept all the same
    assert len(server.bodies) == 1


def test_a_budget_holds_for_all_commands_that_share_a_cache(cache, tmp_path):
    other = AnswerCache(tmp_path / "answers.sqlite")
    with Server([(200, completion("yes"))], PATH) as server:
        judge_at(server, other).answer(ASKED)
        for limit in ({"max_requests": 1}, {"max_tokens": 10}):
            with pytest.raises(BudgetSpent):
                judge_at(server, cache, **limit).answer([{"role": "user", "content": "other"}])
    assert len(server.bodies) == 1 and cache.spent() == other.spent() == Spent(1, 10)
    other.close()


def test_once_halted_nothing_is_sent(cache):
    with Server([(200, completion("yes"))], PATH) as server:
        judge = judge_at(server, cache)
        judge.halted.set()
        with pytest.raises(Halted):
            judge.answer(ASKED)
    assert server.bodies == [] and cache.spent() == Spent(0, 0)


def test_the_key_is_in_no_file_and_no_error(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("RLHF_JUDGE_KEY", "sk-very-secret")
    echo = (401, b'{"error": "no such key: sk-very-secret"}')
    with Server([(200, completion("yes")), echo], PATH) as server:
        judge = judge_at(server, cache)
        judge.answer(ASKED)
        with pytest.raises(NoAnswer) as caught:
            judge.answer([{"role": "user", "content": "other"}])
    assert "sk-very-secret" not in judge.hide_key(str(caught.value))
    cache.close()
    for file in tmp_path.iterdir():
        assert b"sk-very-secret" not in file.read_bytes()
    assert "sk-very-secret" not in repr(judge.settings)


def test_the_beginning_of_a_key_that_was_cut_off_is_hidden_too(cache, monkeypatch):
    """Errors quote answers up to a length, perhaps the middle of the key."""
    monkeypatch.setenv("RLHF_JUDGE_KEY", "sk-proj-very-secret")
    padding = "x" * (SHOWN - 16)
    echo = (401, f"{padding} sk-proj-very-secret".encode())
    with Server([echo], PATH) as server:
        judge = judge_at(server, cache)
        with pytest.raises(NoAnswer) as caught:
            judge.answer(ASKED)
    assert "sk-proj-very" in str(caught.value)
    assert "sk-proj-" not in judge.hide_key(str(caught.value))
    monkeypatch.setenv("RLHF_JUDGE_KEY", "short")
    with Server([echo], PATH) as server:
        assert judge_at(server, cache).hide_key("a short one") == "a … one"


def test_two_threads_with_the_same_question_pay_for_one(cache):
    """As when a file of samples has a row twice."""
    came, go = threading.Event(), threading.Event()

    def slow(body):
        came.set()
        go.wait(30)
        return 200, completion("yes")

    with Server([slow], PATH) as server, ThreadPoolExecutor(2) as pool:
        judge = judge_at(server, cache)
        first = pool.submit(judge.answer, ASKED)
        assert came.wait(30)
        second = pool.submit(judge.answer, ASKED)
        time.sleep(0.3)  # the second has come as far as it can
        go.set()
        assert (first.result(30), second.result(30)) == ("yes", "yes")
    assert cache.spent().requests == 1 and judge.from_cache == 1


def test_an_answer_is_on_the_disk_before_it_is_used(cache, tmp_path):
    """Another connection, as after a kill, sees the request while it is out, and the answer."""
    seen = []

    def look(body):
        other = sqlite3.connect(tmp_path / "answers.sqlite")
        seen.append(other.execute("SELECT count(*) FROM requests").fetchone()[0])
        other.close()
        return 200, completion("yes")

    with Server([look], PATH) as server:
        judge_at(server, cache).answer(ASKED)
    other = sqlite3.connect(tmp_path / "answers.sqlite")
    assert seen == [1]
    ((answer, request),) = other.execute("SELECT answer, request FROM answers").fetchall()
    other.close()
    assert answer == "yes" and json.loads(request)["messages"] == ASKED


def test_a_file_that_is_no_cache_is_refused(tmp_path):
    (tmp_path / "bad.sqlite").write_text("x" * 5000)
    with pytest.raises(UserError, match="bad.sqlite: is no cache of answers"):
        AnswerCache(tmp_path / "bad.sqlite")
    with pytest.raises(UserError, match="is no cache of answers"):
        AnswerCache(tmp_path)  # a folder


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (completion("yes"), ("yes", 10)),
        ({"choices": [{"message": {"content": "yes"}}]}, ("yes", None)),
        ({"choices": [{"message": {"content": None}}], "usage": None}, ("", None)),
        ({"choices": [{"message": {"content": 3}}], "usage": {}}, ("", None)),
        (
            {
                "choices": [{"message": {"content": [{"type": "text", "text": "a"}, {"x": 1}]}}],
                "usage": {"total_tokens": "9"},
            },
            ("a", None),
        ),
        ({"choices": [{"message": {"content": "\ud800!"}}]}, ("?!", None)),
    ],
)
def test_texts_of_completions(content, expected):
    assert read_completion(json.dumps(content).encode()) == expected


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[]", b"null", b'{"choices": []}', b'{"choices": [{}]}', b"\xff", b"[" * 10**5],
)
def test_what_is_no_completion(raw):
    with pytest.raises(HTTPException, match="answered no chat completion"):
        read_completion(raw)
