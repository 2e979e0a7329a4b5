"""What reward models and DPO train on: no prompt in both halves, and pairs as they were written."""

import json

from common.config.arguments import RunArguments
from common.data.layouts import read_rankings
from common.data.pairs import PairArguments, make_pairs, read_pairs, write_pairs
from common.data.records import Message, Pair
from common.data.sources import DataSource
from common.training.preferences import PreferenceArguments, load_pairs, simulated, split_pairs
from common.training.stage import Stage


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


def test_a_models_card_says_whose_rankings_were_no_peoples(tmp_path):
    stage = Stage("reward", RunArguments(run=str(tmp_path)), {})
    assert simulated(stage, PreferenceArguments()) == []
    for name, word in (("ai_rank", "AI feedback"), ("rank", "simulated")):
        (tmp_path / name).mkdir()
        (found, *others) = simulated(stage, PreferenceArguments())
        assert word in found and len(others) == (name == "rank")
    assert simulated(stage, PreferenceArguments(data=["mine.jsonl"])) == []
