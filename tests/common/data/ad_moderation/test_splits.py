"""The files: deterministic, disjoint, independent of each other's sizes, and truly unseen."""

import hashlib
import json
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.rubric import overall, score
from common.data.ad_moderation.splits import GENERAL_SHARES, Sizes, write_splits
from common.data.ad_moderation.tasks import HINT_QUESTIONS, QUESTIONS
from common.errors import UserError

ROOT = Path(__file__).parents[4]
TRAINING = ("sft", "sft_general", "reward_prompts", "rlhf_prompts")
PROMPT = re.compile(r'Ad for (?P<audience>\w+) on (?P<channel>\w+): "(?P<ad>.*)" (?P<question>.*)')
SMALL = Sizes(60, 30, 30, 40, 20, 20, 20, 20)


def load(folder):
    return {
        path.stem: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for path in sorted(folder.glob("*.jsonl"))
    }


def digests(folder):
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.glob("*.jsonl"))
    }


@pytest.fixture(scope="module")
def full_size(tmp_path_factory):
    folder = tmp_path_factory.mktemp("domain")
    counts = write_splits(folder, seed=0)
    assert counts == asdict(Sizes())
    return load(folder)


def test_rows_have_their_fields(full_size):
    assert {name: len(rows) for name, rows in full_size.items()} == asdict(Sizes())
    for name, rows in full_size.items():
        extra = {
            "sft": {"completion"},
            "sft_general": {"completion"},
            "probe": {"right", "wrong"},
        }.get(name, set())
        assert all(set(row) == {"prompt", "facts"} | extra for row in rows)
        assert all(isinstance(row[key], str) and row[key] for row in rows for key in extra)


def test_all_prompts_are_distinct_over_all_splits(full_size):
    prompts = [row["prompt"] for rows in full_size.values() for row in rows]
    assert len(prompts) == len(set(prompts)) == sum(asdict(Sizes()).values())
    retyped = {" ".join(prompt.casefold().split()) for prompt in prompts}
    assert len(retyped) == len(prompts)


def test_the_share_of_general_prompts(full_size):
    for name in ("reward_prompts", "rlhf_prompts"):
        rows = full_size[name]
        share = sum(row["facts"]["domain"] == "general" for row in rows) / len(rows)
        assert share == pytest.approx(GENERAL_SHARES[name], abs=0.035)
    assert {row["facts"]["domain"] for row in full_size["sft"]} == {"ads"}
    assert {row["facts"]["domain"] for row in full_size["eval_general"]} == {"general"}


def test_unseen_words_never_occur_in_training(full_size):
    text = "\n".join(
        " ".join(str(value) for key, value in row.items() if key != "facts")
        for name in (*TRAINING, "eval_seen", "probe")
        for row in full_size[name]
    ).lower()
    unseen = [phrase for policy in words.POLICIES.values() for phrase in policy.unseen]
    unseen += [name for policy in words.POLICIES.values() for name in policy.unseen_names]
    unseen += [question for pools in QUESTIONS.values() for question in pools["unseen"]]
    unseen += [*words.PRODUCTS["unseen"], *words.BENEFITS["unseen"]]
    unseen += [part for q in HINT_QUESTIONS["unseen"] for part in q.split("{hint}")[:1]]

    def occurs(phrase):
        phrase = phrase.lower()
        return phrase in text and re.search(rf"\b{re.escape(phrase)}", text) is not None

    assert not [phrase for phrase in unseen if occurs(phrase)]
    seen = [phrase for policy in words.POLICIES.values() for phrase in policy.seen]
    assert all(map(occurs, [*seen, *words.PRODUCTS["seen"], *words.BENEFITS["seen"]]))


def test_unseen_rows_are_unseen_in_product_phrase_and_question(full_size):
    policies, products = set(), set()
    for row in full_size["eval_unseen"]:
        facts, text = row["facts"], PROMPT.fullmatch(row["prompt"])
        products.add(facts["product"])
        assert re.search(rf"(^|Try ){facts['product']}[:,]", text["ad"])
        assert facts["product"] in words.PRODUCTS["unseen"]
        assert facts["benefit"] in words.BENEFITS["unseen"] and facts["benefit"] in text["ad"]
        for claim in (*facts["violations"], *facts["allowed"]):
            policies.add(claim["policy"])
            assert claim["phrase"] in words.POLICIES[claim["policy"]].unseen
        asked = [text["question"] == question for question in QUESTIONS[facts["task"]]["unseen"]]
        asked += [
            text["question"] == question.format(hint=hint)
            for question in HINT_QUESTIONS["unseen"]
            for policy in words.POLICIES.values()
            for hint in policy.unseen_names
        ]
        assert sum(asked) == 1, row["prompt"]
    assert policies == set(words.POLICIES)
    assert len(products) > len(words.PRODUCTS["unseen"]) / 2


def test_facts_say_what_the_prompt_says(full_size):
    """The ground truth, found again from the text alone with the two rules written down here."""
    policy_of = {
        phrase: policy.name
        for policy in words.POLICIES.values()
        for phrase in (*policy.seen, *policy.unseen)
    }
    kinds = set()
    for name in ("reward_prompts", "eval_seen", "eval_unseen", "probe"):
        for row in full_size[name]:
            facts = row["facts"]
            if facts["domain"] != "ads":
                continue
            text = PROMPT.fullmatch(row["prompt"])
            claims = {p: policy_of[p] for p in policy_of if re.search(rf"\b{p}(?!\w)", text["ad"])}
            in_order = {
                "alcohol": text["audience"] in ("adults", "parents", "seniors", "workers"),
                "gambling": text["channel"] in ("apps", "websites", "email", "magazines"),
            }
            fine = {p: policy for p, policy in claims.items() if in_order.get(policy, False)}
            broken = {p: policy for p, policy in claims.items() if p not in fine}
            assert {v["phrase"]: v["policy"] for v in facts["violations"]} == broken
            assert {a["phrase"]: a["policy"] for a in facts["allowed"]} == fine
            assert [v["phrase"] for v in facts["violations"]] == sorted(broken, key=text["ad"].find)
            kinds.add((len(broken), len(fine)))
    assert kinds == {(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)}


def test_unseen_rows_use_only_words_that_training_has(full_size):
    def vocabulary(names):
        return {
            word
            for name in names
            for row in full_size[name]
            for word in re.findall(r"[a-z0-9]+", row["prompt"].lower())
        }

    missing = vocabulary(["eval_unseen"]) - vocabulary(TRAINING)
    assert len(missing) <= 3, missing


def test_held_out_general_facts_were_asked_in_other_words(full_size):
    """Facts from the tables, not lists, which are new combinations."""
    tables = ("opposite", "capital", "colour", "plural")
    known = {(row["facts"]["task"], row["facts"]["slots"]["a"]) for row in full_size["sft_general"]}
    asked = [
        (row["facts"]["task"], row["facts"]["slots"]["a"])
        for row in full_size["eval_general"]
        if row["facts"]["task"] in tables
    ]
    assert len(asked) > 40
    assert sum(fact in known for fact in asked) / len(asked) > 0.95


def test_the_same_seed_gives_the_same_bytes_in_another_process(tmp_path):
    write_splits(tmp_path / "here", seed=7, sizes=Sizes().scaled(0.01))
    for name, environment in (("one", "1"), ("two", "2")):
        subprocess.run(
            [sys.executable, "-m", "common.data.ad_moderation", "--output", str(tmp_path / name)]
            + ["--seed", "7", "--scale", "0.01"],
            check=True,
            cwd=ROOT,
            env={"PYTHONHASHSEED": environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
        )
    write_splits(tmp_path / "other", seed=8, sizes=Sizes().scaled(0.01))
    assert digests(tmp_path / "here") == digests(tmp_path / "one") == digests(tmp_path / "two")
    here, other = digests(tmp_path / "here"), digests(tmp_path / "other")
    assert all(here[name] != other[name] for name in here)


def test_a_larger_size_only_appends_and_leaves_the_other_splits_alone(tmp_path):
    write_splits(tmp_path / "small", seed=3, sizes=SMALL)
    before = load(tmp_path / "small")
    for name in before:
        larger = replace(SMALL, **{name: 2 * getattr(SMALL, name)})
        write_splits(tmp_path / name, seed=3, sizes=larger)
        after = load(tmp_path / name)
        assert after[name][: len(before[name])] == before[name]
        assert len(after[name]) == 2 * len(before[name])
        assert {k: v for k, v in after.items() if k != name} == {
            k: v for k, v in before.items() if k != name
        }


def test_probe_rows_hold_a_right_and_a_wrong_answer(full_size):
    for row in full_size["probe"]:
        assert overall(row["right"], row["facts"]) >= 95
        assert score(row["wrong"], row["facts"])["accuracy"] == 0


def test_asking_for_more_prompts_than_there_are_is_an_error(tmp_path):
    with pytest.raises(UserError, match="eval_general .* distinct prompts"):
        write_splits(tmp_path, seed=0, sizes=replace(SMALL, eval_general=100_000))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_scaling_keeps_at_least_one_row_of_each():
    assert Sizes(60, 30, 10, 40, 20, 2, 20, 8).scaled(0.5) == Sizes(30, 15, 5, 20, 10, 1, 10, 4)
    assert set(asdict(Sizes().scaled(1e-6)).values()) == {1}
