"""An AI judge, scripted, over the whole command: fair, biased, out of money, unreadable."""

import json

import pytest

from common.endpoint import judge as endpoints
from common.errors import UserError
from common.evaluation.criteria import CRITERIA
from common.evaluation.judges.__main__ import main
from tests.servers import Server
from tests.step2_reward.ai_feedback.judges import completion
from tests.step2_reward.ai_feedback.test_rubric import pieces

PATH = "/v1/chat/completions"
QUESTIONS = 6 * (3 + 6) + 2 * (2 + 2)
"""Of a prompt three answers and three pairs in both orders; of prompts 0, where two answers are the
same, two answers and one pair."""


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No proxy, and pauses that are over at once."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    real = endpoints.ask

    def ask(send, *, wait, **settings):
        return real(send, wait=lambda _: wait(0), **settings)

    monkeypatch.setattr(endpoints, "ask", ask)


def scripted(better, points=lambda text: 1):
    """A judge who gives each answer `points` on all criteria, and compares by `better`."""

    def judge(body):
        texts = pieces(body["messages"][1]["content"])
        if "RESPONSE" in texts:
            return 200, completion(json.dumps(dict.fromkeys(CRITERIA, points(texts["RESPONSE"]))))
        verdict = better(texts["RESPONSE 1"], texts["RESPONSE 2"])
        return 200, completion(json.dumps({"better": verdict}))

    return judge


def longer(first, second):
    return 1 if len(first) > len(second) else 2 if len(first) < len(second) else "tie"


LONGER = scripted(longer, lambda text: {"s": 0, "r": 1, "b": 2}[text[0]])
FIRST = scripted(lambda *_: 1)


def judge(run, server, *more):
    base = server.url.removesuffix("/chat/completions")
    main(["ai", "--run", str(run), "--endpoint", base, "--judge_model", "some judge",
          "--progress", "false", "--retries", "1", *more])  # fmt: skip
    return json.loads((run / "evaluation/criteria.json").read_text())["judges"][0]


def pair(split, model, other, by):
    (found,) = (
        p for p in split["pairs"] if (p["model"], p["other"], p["by"]) == (model, other, by)
    )
    return found


def test_a_judge_who_does_not_mind_places(answered, capsys):
    with Server([LONGER], PATH) as server:
        table = judge(answered, server)
    assert len(server.bodies) == QUESTIONS
    assert (table["title"], table["kind"]) == ("AI judge some judge", "ai")
    assert table["facts"]["requests_of_all_ai_judges"] == len(server.bodies)
    assert table["prompts"] == 8
    means = {m: rows["clarity"]["mean"] for m, rows in table["splits"]["seen"]["models"].items()}
    assert means == {"sft": 0.0, "rlhf": 50.0, "best_of_4": 75.0}  # the best of prompt 0 is SFT's
    both = pair(table["splits"]["all"], "rlhf", "sft", "both orders")
    assert (both["wins"], both["ties"], both["losses"], both["consistent"]) == (8, 0, 0, 1.0)
    best = pair(table["splits"]["all"], "best_of_4", "sft", "both orders")
    assert (best["wins"], best["ties"], best["losses"], best["asked"]) == (6, 2, 0, 6)
    best = pair(table["splits"]["all"], "best_of_4", "rlhf", "both orders")
    assert (best["wins"], best["losses"]) == (6, 2)
    page = (answered / "evaluation/criteria.md").read_text()
    assert "## By AI judge some judge" in page and "8 of 8 prompts" in (
        said := capsys.readouterr().out
    )
    assert f"8 prompts, {QUESTIONS} questions" in said


def test_a_judge_who_looks_at_places_alone_comes_out_as_ties(answered):
    with Server([FIRST], PATH) as server:
        table = judge(answered, server)
    for model, other in (("rlhf", "sft"), ("best_of_4", "sft"), ("best_of_4", "rlhf")):
        both = pair(table["splits"]["all"], model, other, "both orders")
        assert (both["wins"], both["ties"], both["losses"]) == (0, 8, 0)
        missed = 1 - 0.025 ** (1 / 8)  # of verdicts that eight ties can hide
        assert both["win_rate"] == 0.5
        assert both["ci95"] == pytest.approx([0.5 - missed / 2, 0.5 + missed / 2])
        assert (both["consistent"], both["first_preferred"]) == (0.0, 1.0)
        assert both["second_preferred"] == 0.0
    page = (answered / "evaluation/criteria.md").read_text()
    assert "0% had one verdict in both orders; in 100% the answer won that was shown first" in page


def test_nothing_says_who_wrote_an_answer(tmp_path, row, write_responses):
    rows = [row("seen", 0, m, t) for m, t in (("sft", "one"), ("rlhf", "two"), ("dpo", "three"))]
    with Server([FIRST], PATH) as server:
        judge(write_responses(tmp_path, rows), server)
    sent = json.dumps(server.bodies).casefold()
    assert "three" in sent and not any(name in sent for name in ("sft", "rlhf", "dpo"))


def test_a_second_run_asks_nothing_and_other_weights_ask_nothing(answered):
    with Server([LONGER], PATH) as server:
        first = judge(answered, server, "--limit", "2")
        asked = len(server.bodies)
        assert judge(answered, server, "--limit", "2") == first
        weighed = judge(answered, server, "--limit", "2", "--weights", "safety=1")
        assert len(server.bodies) == asked
        more = judge(answered, server, "--limit", "4")
    assert weighed["splits"]["seen"]["models"]["rlhf"]["overall"]["mean"] == 50.0
    assert first["prompts"] == 4 and more["prompts"] == 8
    assert len(server.bodies) == QUESTIONS  # the first four were not asked about again


def test_a_spent_budget_leaves_a_table_of_what_is_done(answered):
    with Server([LONGER], PATH) as server:
        with pytest.raises(UserError) as caught:
            judge(answered, server, "--max_requests", "30", "--concurrency", "1")
        said = str(caught.value)
        assert "max_requests (30) is reached" in said and "of 8 prompts are judged" in said
        table = json.loads((answered / "evaluation/criteria.json").read_text())["judges"][0]
        assert 3 <= table["prompts"] <= 4 and table["facts"]["asked"] == 8
        assert judge(answered, server)["prompts"] == 8
    assert len(server.bodies) == QUESTIONS


def test_what_cannot_be_read_is_asked_again_then_left_out_and_told(answered):
    def mumbles(body):
        text = body["messages"][1]["content"]
        if "seen 1?" in text or ("seen 2?" in text and "(Try 2:" not in text):
            return 200, completion("Hm.")
        return LONGER(body)

    with Server([mumbles], PATH) as server:
        table = judge(answered, server)
    assert table["prompts"] == 7
    assert table["facts"]["left_out"] == {"prompts whose answers could not be read": 1}
    assert table["facts"]["unreadable_answers"] == 3 + 9
    page = (answered / "evaluation/criteria.md").read_text()
    assert "1 prompts whose answers could not be read" in page
    with Server([(200, completion("Hm."))], PATH) as server:
        with pytest.raises(UserError, match="gave nothing that can be used on 8 prompts.*'Hm.'"):
            judge(answered, server, "--judge_model", "another")


def test_fewer_than_half_is_an_error_and_a_repaired_judge_is_asked_again(answered, capsys):
    def mumbles(body):
        well = "seen 1?" in body["messages"][1]["content"]
        return LONGER(body) if well else (200, completion("Hm."))

    with Server([mumbles], PATH) as server:
        with pytest.raises(
            UserError, match=r"only [1-3] of 8 .*fewer than half.*'Hm\.'.*asks again"
        ):
            judge(answered, server)
        assert "left out: 7 prompts whose answers could not be read" in capsys.readouterr().out
        server.answers = [LONGER]
        assert judge(answered, server)["prompts"] == 8
        asked = len(server.bodies)
        assert judge(answered, server)["prompts"] == 8 and len(server.bodies) == asked


def test_without_comparisons_answers_are_only_rated(answered):
    with Server([LONGER], PATH) as server:
        table = judge(answered, server, "--compare", "false")
    assert len(server.bodies) == 6 * 3 + 2 * 2
    assert {p["by"] for p in table["splits"]["all"]["pairs"]} == {"score"}


def test_a_wrong_key_is_told_at_once(answered):
    with Server([(401, b"who are you?")], PATH) as server:
        with pytest.raises(UserError, match="RLHF_JUDGE_KEY is not set"):
            judge(answered, server, "--concurrency", "1")
        assert len(server.bodies) == 1


def test_the_endpoint_must_be_named(answered):
    with pytest.raises(UserError, match="needs --endpoint and --judge_model"):
        main(["ai", "--run", str(answered)])
