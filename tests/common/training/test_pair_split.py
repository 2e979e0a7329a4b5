"""What reward models and DPO train on: no prompt in both halves, and pairs as they were written."""

import json
from dataclasses import replace

from common.config.arguments import RunArguments, TextArguments
from common.data.layouts import read_rankings
from common.data.pairs import PairArguments, make_pairs, read_pairs, write_pairs
from common.data.records import Message, Pair
from common.data.sources import DataSource
from common.data.template import Template
from common.training.preferences import (
    PreferenceArguments,
    load_comparisons,
    load_pairs,
    split_pairs,
)
from common.training.stage import Stage
from step2_reward import pairs as pairs_stage
from tests.models import byte_tokenizer


def test_no_prompt_is_in_both_halves_whatever_file_and_layout_it_came_in(tmp_path):
    def spellings(n):
        return f"What is {n}?", f"what  is\t{n}? ", f"WHAT IS {n}?\n"

    files = []
    for i, layout in enumerate(
        [
            lambda q: {"prompt": q, "responses": ["a", "b", "c"], "orders": [[0, 1, 2], [1, 0, 2]]},
            lambda q: {"instruction": q, "input": "", "output": ["x", "y"]},
            lambda q: {
                "chosen": f"\n\nHuman: {q}\n\nAssistant: good",
                "rejected": f"\n\nHuman: {q}\n\nAssistant: bad",
            },
        ]
    ):
        files.append(tmp_path / f"{i}.jsonl")
        rows = [layout(spellings(n)[i]) for n in range(60)]
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in rows))
    rankings = read_rankings([DataSource(str(file)) for file in files])
    pairs, _ = make_pairs(rankings, PairArguments(), seed=0)
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    for items in (pairs, read_pairs(tmp_path / "pairs.jsonl")):
        halves = split_pairs(items, 0.3, seed=0)
        numbers = [
            {int("".join(filter(str.isdigit, p.messages[-1].content))) for p in half}
            for half in halves
        ]
        assert not numbers[0] & numbers[1] and numbers[0] | numbers[1] == set(range(60))
        assert [len(half) for half in halves] == [4 * len(found) for found in numbers]


def test_the_turns_of_one_conversation_are_on_one_side():
    def turn(thread, number, system=""):
        said = [Message("system", system)] if system else []
        for k in range(number):
            said += [Message("user", f"Thread {thread}, {k}"), Message("assistant", f"{k}")]
        return Pair((*said, Message("user", f"Thread {thread}, {number}")), "a", "b", 1.0, "o")

    pairs = [turn(t, n, "be brief" * (n % 2)) for t in range(50) for n in range(4)]
    halves = split_pairs(pairs, 0.3, seed=0)
    threads = [{p.messages[-1].content.split(",")[0] for p in half} for half in halves]
    assert not threads[0] & threads[1] and len(threads[0] | threads[1]) == 50
    assert [len(half) for half in halves] == [4 * len(found) for found in threads]


def test_a_file_of_pairs_given_as_data_keeps_its_numbers(tmp_path):
    written = [
        Pair(
            (Message("user", f"q{i}"),),
            "good",
            "bad",
            2.5,
            f"labels.jsonl:{i}",
            weight=0.5,
            margin=0.25 * i,
            agreement=0.4,
            support=0.75,
        )
        for i in range(3)
    ]
    file = tmp_path / "other" / "pairs.jsonl"
    write_pairs(file, written)
    stage = Stage("reward", RunArguments(run=str(tmp_path / "run")), {})
    found, _ = load_pairs(stage, PreferenceArguments(data=[str(file)]))
    numbers = ("messages", "chosen", "rejected", "gap", "weight", "margin", "agreement", "support")
    for pair, before in zip(found, written, strict=True):
        assert [getattr(pair, n) for n in numbers] == [getattr(before, n) for n in numbers]
    account = json.loads((tmp_path / "run/reward/account.json").read_text())
    assert account["kept"] == {"rankings": 3, "responses": 6, "pairs": 3}


def labelers_of(root, source=None):
    """Who ranked, as training on pairs notes it for card and report."""
    stage = Stage("reward", RunArguments(run=str(root)), {})
    found = load_comparisons(
        stage,
        source or PreferenceArguments(eval_fraction=0.3),
        Template(byte_tokenizer()),
        TextArguments(max_prompt_tokens=200, max_response_tokens=50),
        always_ends=True,
    )
    return found.facts["labelers"]


def write_ranked(file, labelers, prompts=range(20)):
    file.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt": f"q{i}", "responses": ["a", "b"], "orders": [[0, 1]] * 2, "labelers": labelers}
        for i in prompts
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_who_ranked_is_told_by_the_rankings_that_made_the_pairs_not_by_what_else_there_is(tmp_path):
    write_ranked(tmp_path / "rank/rankings.jsonl", "simulated")
    write_ranked(tmp_path / "ai_rank/rankings.jsonl", ["ai:judge", "ai:other"])
    write_ranked(tmp_path / "people.jsonl", ["ann", "ben"])
    run = RunArguments(run=str(tmp_path))
    nobody = {"people": [], "simulated": [], "ai": [], "unnamed": 0}
    for file, who in (
        ("people.jsonl", {"people": ["ann", "ben"]}),
        ("ai_rank/rankings.jsonl", {"ai": ["ai:judge", "ai:other"]}),
        ("rank/rankings.jsonl", {"simulated": ["simulated:1", "simulated:2"]}),
    ):
        pairs_stage.main(
            Stage("pairs", run, {}),
            run,
            pairs_stage.PairsArguments(rankings=[str(tmp_path / file)]),
        )
        account = json.loads((tmp_path / "pairs/account.json").read_text())
        assert account["labelers"]["of_pairs"] == nobody | who
        (tmp_path / "pairs/result.json").unlink()
        assert labelers_of(tmp_path) == nobody | who
        # In another run, which has nothing but the pairs' file, or none but the rankings'.
        for given in ("pairs/pairs.jsonl", file):
            source = PreferenceArguments(data=[str(tmp_path / given)], eval_fraction=0.3)
            assert labelers_of(tmp_path / "other", source) == nobody | who


def test_pairs_that_were_made_before_they_held_names_are_told_by_their_rankings(tmp_path):
    write_ranked(tmp_path / "rank/rankings.jsonl", "simulated")
    rankings = read_rankings([DataSource(str(tmp_path / "rank/rankings.jsonl"))])
    pairs, _ = make_pairs(rankings, PairArguments(), seed=0)
    pairs = [replace(pair, labelers=()) for pair in pairs]
    write_pairs(tmp_path / "pairs/pairs.jsonl", pairs)
    assert labelers_of(tmp_path)["simulated"] == ["simulated:1", "simulated:2"]
    (tmp_path / "rank/rankings.jsonl").unlink()
    assert labelers_of(tmp_path)["unnamed"] == 20
