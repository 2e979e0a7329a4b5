"""Functions of a user's own and HTTP endpoints as rewards: what they get, and how they fail."""

import http.client
import math
import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import common.reward.callers as callers
import common.web as web
from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.hybrid_engine.rollout import Rollout
from common.reward.callers import Endpoint, TextScorer, checked, load_function, text_of
from common.training.watchdog import WATCHDOG
from tests.models import byte_tokenizer
from tests.servers import Server

PROMPTS = [
    (Message("user", "zwei"),),
    (Message("system", "be kind"), Message("user", "drei")),
    (Message("user", "four\nfive"),),
]
TEXTS = ["ja", "", "a < b"]


@pytest.fixture
def policy():
    return Template(byte_tokenizer())


def rollout_of(policy, texts=TEXTS) -> Rollout:
    """Responses as they would be sampled; the second is nothing but its end token."""
    rows = [
        policy.tokenizer(t, add_special_tokens=False).input_ids + [policy.end_id] for t in texts
    ]
    width = max(map(len, rows))
    ids = [[1, 9] + row + [0] * (width - len(row)) for row in rows]
    mask = [[True] * (2 + len(row)) + [False] * (width - len(row)) for row in rows]
    ended = torch.ones(len(rows)).bool()
    return Rollout(
        torch.tensor(ids), torch.tensor(mask), width, ended, torch.zeros(len(rows), width)
    )


def score(function, policy, batch_size=2):
    return TextScorer("mine", function, policy).score_rollout(
        rollout_of(policy), PROMPTS, batch_size
    )


# What a function gets and gives


def test_a_function_gets_texts_in_batches_and_gives_numbers(policy):
    calls = []

    def function(prompts, responses):
        calls.append((prompts, responses))
        return np.array([len(r) for r in responses])

    found = score(function, policy)
    assert found.dtype == torch.float32 and found.tolist() == [2.0, 0.0, 5.0]
    assert calls == [
        (["zwei", "system: be kind\nuser: drei"], ["ja", ""]),
        (["four\nfive"], ["a < b"]),
    ]


def test_text_of_one_message_is_its_content():
    assert text_of((Message("user", " a\nb "),)) == " a\nb "


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0], "gave 1 scores for 2 responses"),
        ([1.0, math.nan], "the score of response 1 of this rank's rollout (from 0) is nan"),
        ([-math.inf, 1.0], "the score of response 0 of this rank's rollout (from 0) is -inf"),
        ([1.0, "2"], "is '2', but must be a finite number"),
        ([1.0, None], "is None, but must be a finite number"),
        (None, "gave None, but must give a list of numbers"),
        ("12", "gave '12', but must give a list of numbers"),
        (3.5, "gave 3.5, but must give a list of numbers"),
    ],
)
def test_what_is_no_score_is_refused_by_name(policy, given, message):
    with pytest.raises(UserError) as caught:
        score(lambda prompts, responses: given, policy)
    assert str(caught.value).startswith("reward mine: ") and message in str(caught.value)


def test_a_bad_score_is_named_by_its_place_in_the_rollout(policy):
    with pytest.raises(UserError, match="score of response 2 of"):
        score(lambda p, responses: [math.nan if r == "a < b" else 0.0 for r in responses], policy)


@pytest.mark.parametrize("given", [[1, 2.5], (1, 2.5), torch.tensor([1, 2.5]), np.array([1, 2.5])])
def test_scores_may_be_any_kind_of_list(given):
    assert checked(given, 2, "mine") == [1.0, 2.5]


def test_an_error_of_the_users_own_is_told(policy):
    def function(prompts, responses):
        return {}["missing"]

    with pytest.raises(UserError, match="reward mine: KeyError: 'missing'"):
        score(function, policy)


# Loading


def test_a_function_of_a_file(tmp_path):
    file = tmp_path / "my rules.py"
    file.write_text("SHIFT = 1\ndef good(prompts, responses):\n    return [SHIFT] * len(prompts)\n")
    assert load_function(str(file), "good")(["a", "b"], ["", ""]) == [1, 1]


def test_a_file_may_have_dataclasses_and_a_namesake(tmp_path):
    code = (
        "from __future__ import annotations\nimport pickle\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Rule:\n    worth: float\n"
        "def good(prompts, responses):\n"
        "    return [pickle.loads(pickle.dumps(Rule(WORTH))).worth] * len(prompts)\n"
    )
    functions = []
    for worth in (1.5, 2.5):
        folder = tmp_path / str(worth)
        folder.mkdir()
        (folder / "rules.py").write_text(code.replace("WORTH", str(worth)))
        functions.append(load_function(str(folder / "rules.py"), "good"))
    assert [function(["a"], [""]) for function in functions] == [[1.5], [2.5]]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (None, "good", "cannot be run: FileNotFoundError"),
        ("x = 1\n", "good", "has no function 'good'"),
        ("good = 1\n", "good", "has no function 'good'"),
        ("def good(:\n", "good", "cannot be run: SyntaxError"),
        ("1 / 0\n", "good", "cannot be run: ZeroDivisionError"),
    ],
)
def test_a_file_without_the_function_is_refused(tmp_path, text, name, message):
    file = tmp_path / "rules.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(UserError) as caught:
        load_function(str(file), name)
    assert str(caught.value).startswith(f"reward python:{file}:{name}: ")
    assert message in str(caught.value)


# Endpoints


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """How long was waited before each further try; no test waits. No proxy, either."""
    waited = []
    monkeypatch.setattr(
        callers, "time", SimpleNamespace(sleep=waited.append, monotonic=time.monotonic)
    )
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return waited


def lengths(body):
    return 200, {"scores": [len(r) for r in body["responses"]]}


def test_an_endpoint_is_sent_texts_as_json(policy, pauses):
    with Server([lengths]) as server:
        found = score(Endpoint(server.url, timeout=5, retries=0), policy, batch_size=8)
    assert found.tolist() == [2.0, 0.0, 5.0] and pauses == []
    prompts = ["zwei", "system: be kind\nuser: drei", "four\nfive"]
    assert server.bodies == [{"prompts": prompts, "responses": TEXTS}]
    assert server.headers[0]["Content-Type"] == "application/json"


def test_an_endpoint_that_is_busy_is_asked_again_and_again(pauses):
    busy = [(503, b"busy"), (429, b"slow down"), (500, b""), (502, b"")]
    with Server([*busy, lengths]) as server:
        assert Endpoint(server.url, timeout=5, retries=4)(["a"], ["bc"]) == [2]
    assert len(server.bodies) == 5
    assert pauses == [1.0, 2.0, 4.0, 8.0]


@pytest.mark.parametrize(
    ("answer", "tries", "message"),
    [
        ((503, b"still loading"), 3, "code 503 (Service Unavailable): still loading (tries: 3"),
        ((404, b"no such route"), 1, "code 404 (Not Found): no such route (tries: 1"),
        ((422, {"detail": "x" * 500}), 1, "xxx… (tries: 1"),
        ((200, b"<html>hello"), 1, "answered no JSON: <html>hello"),
        ((200, [1.0]), 1, 'answered no {"scores": […]}: [1.0]'),
        ((200, {"score": [1.0]}), 1, 'answered no {"scores": […]}: {"score": [1.0]}'),
    ],
)
def test_what_came_back_is_told_with_the_url(answer, tries, message):
    with Server([answer]) as server, pytest.raises(UserError) as caught:
        Endpoint(server.url, timeout=5, retries=2)(["a"], ["b"])
    assert f"reward endpoint {server.url}: " in str(caught.value)
    assert message in str(caught.value) and len(server.bodies) == tries


def test_scores_of_an_endpoint_are_checked(policy):
    with Server([(200, b'{"scores": [1.0, NaN, 2.0]}')]) as server:
        with pytest.raises(UserError, match="reward mine: the score of response 1 .* is nan"):
            score(Endpoint(server.url, timeout=5, retries=2), policy, batch_size=8)
    assert len(server.bodies) == 1


def test_nobody_answers(pauses):
    with Server([lengths]) as server:
        url = server.url
    with pytest.raises(UserError, match="refused.*tries: 3") as caught:
        Endpoint(url, timeout=5, retries=2)(["a"], ["b"])
    assert url in str(caught.value) and pauses == [1.0, 2.0]


def test_an_answer_that_breaks_off_is_asked_for_again(pauses):
    with Server([lengths]) as server:
        answers = iter([http.client.IncompleteRead(b"{"), None])
        endpoint = Endpoint(server.url, timeout=5, retries=1)
        post = endpoint._post

        def once(body):
            error = next(answers)
            if error:
                raise error
            return post(body)

        endpoint._post = once
        assert endpoint(["a"], ["bc"]) == [2]
    assert pauses == [1.0]


def test_an_answer_that_takes_too_long(pauses):
    gate = threading.Event()

    def slow(body):
        gate.wait(10)
        return lengths(body)

    with Server([slow, lengths]) as server:
        started = time.monotonic()
        assert Endpoint(server.url, timeout=0.3, retries=1)(["a"], ["bc"]) == [2]
        assert time.monotonic() - started < 5
        gate.set()
    with Server([slow]) as server:
        gate.clear()
        with pytest.raises(UserError, match="timed out .tries: 2, reward_timeout 0.2 s"):
            Endpoint(server.url, timeout=0.2, retries=1)(["a"], ["b"])
        gate.set()


def test_a_rollout_is_given_up_before_the_watchdogs_of_ranks_that_wait_for_it(
    policy, pauses, monkeypatch
):
    now = [0.0]
    clock = SimpleNamespace(sleep=lambda s: now.append(now[-1] + s), monotonic=lambda: now[-1])
    for module in (callers, web):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(WATCHDOG, "_limit", 60.0)
    busy = (429, b"", {"Retry-After": "10"})
    with Server([busy, busy, lengths, busy]) as server:
        # Three parts: the first waits 20 s, the second has nothing but 4 s left of its 24.
        with pytest.raises(UserError, match="code 429.*no time for a further try after 10 s"):
            score(Endpoint(server.url, timeout=5, retries=50), policy, batch_size=1)
    assert len(server.bodies) == 4 and now[-1] == 20.0
    with Server([busy, busy, lengths]) as server:  # the next rollout has all its time again
        score(Endpoint(server.url, timeout=5, retries=50), policy, batch_size=8)
    assert now[-1] == 40.0


def test_no_answer_may_take_as_long_as_the_watchdogs_wait(pauses, monkeypatch):
    monkeypatch.setattr(WATCHDOG, "_limit", 0.5)
    gate = threading.Event()

    def slow(body):
        gate.wait(10)
        return lengths(body)

    with Server([slow]) as server:
        started = time.monotonic()
        with pytest.raises(UserError, match="timed out"):
            Endpoint(server.url, timeout=60, retries=0)(["a"], ["b"])
        assert time.monotonic() - started < 5
        gate.set()
