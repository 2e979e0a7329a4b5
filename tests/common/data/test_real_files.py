"""Other people's files through our readers; left out where they are not at hand.

They are looked for in $RLHF_DATA, or in ../shared/data beside the repository. Numbers come from the
files' own documentation, or are counted here from the raw rows.
"""

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from common.config.parsing import fill_placeholders
from common.data.cleaning import clean
from common.data.layouts import read_conversations, read_prompts, read_rankings
from common.data.pairs import PairArguments, make_pairs, read_pairs, write_pairs
from common.data.pii import scrub
from common.data.sources import DataSource

ROOT = Path(fill_placeholders("{data}", "")) / "preference"

pytestmark = pytest.mark.skipif(
    not ROOT.is_dir(), reason=f"no data in {ROOT}; RLHF_DATA names the folder of data files"
)

ALPACA = "llamafactory_demo/alpaca_en_demo.json"
SHAREGPT = "llamafactory_demo/dpo_en_demo.json"
GPT4_LLM = "gpt4_llm_comparison_en_subset/comparison_gpt4_data_en.json"
FIVE_WAY = "alpaca_eval/derived_5way_gpt4turbo_ranked.jsonl"
TREES = "oasst_en_100/en_100_tree.jsonl"
ROOTS = "oasst_en_100/en_100_message.jsonl"


def source(name):
    return [DataSource(str(ROOT / name))]


def raw(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    return (
        json.loads(text)
        if name.endswith(".json")
        else [json.loads(x) for x in text.split("\n") if x]
    )


@pytest.mark.parametrize(("name", "count"), [(ALPACA, 999), (TREES, 100), (ROOTS, 100)])
def test_conversations(name, count):
    found = read_conversations(source(name))
    assert len(found) == count
    assert all(m.content.strip() for c in found for m in c.messages)


def test_alpaca_rows_keep_their_text_and_their_line():
    lines = (ROOT / ALPACA).read_text(encoding="utf-8").split("\n")
    rows = raw(ALPACA)
    for conversation, row in zip(read_conversations(source(ALPACA)), rows, strict=True):
        user, assistant = (m.content for m in conversation.messages)
        assert user.startswith(row["instruction"]) and user.endswith(row["input"])
        assert assistant == row["output"]
        line = int(conversation.origin.rsplit(":", 1)[1])
        assert lines[line - 1].strip() == "{"
        assert json.dumps(row["instruction"], ensure_ascii=False) in lines[line]


def found_pairs(name, **settings):
    """Rankings, pairs and account of a file."""
    rankings = read_rankings(source(name))
    return rankings, *make_pairs(rankings, PairArguments(**settings), seed=0)


@pytest.mark.parametrize(
    ("name", "count", "sizes", "dropped"),
    [
        (GPT4_LLM, 1095, {2: 1095}, {}),
        (SHAREGPT, 300, {2: 300}, {}),
        (
            FIVE_WAY,
            805,
            {5: 772, 4: 19, 3: 12, 2: 2},
            {"empty": (0, 2, 0), "identical": (0, 47, 18), "tied": (0, 0, 0)},
        ),
        *(
            (
                name,
                40 + 2 + 212,
                {2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1},
                # Of the two groups that nobody ranked one has two answers and one has three.
                {"one response": (40, 40, 0), "not ranked": (2, 2 + 3 + 1, 1 + 3 + 1)},
            )
            for name in (TREES, ROOTS)
        ),
    ],
)
def test_rankings_and_what_becomes_of_them(name, count, sizes, dropped, tmp_path):
    rankings, pairs, account = found_pairs(name)
    assert len(rankings) == account.found.rankings == count
    usable = [ranking for r in rankings if (ranking := clean(r).ranking)]
    assert Counter(len(r.responses) for r in usable) == sizes
    lost = account.as_dict()["dropped"]
    found = {
        reason: tuple(counts[column] for column in ("rankings", "responses", "pairs"))
        for reason, counts in lost.items()
    }
    assert found == dropped
    # Nobody is level with whom it is compared: 2 responses give one pair, 3 three, more give 2·2.
    assert len(pairs) == sum({2: 1, 3: 3}.get(size, 4) * n for size, n in sizes.items())
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


@pytest.mark.parametrize(
    ("name", "texts"),
    [
        (GPT4_LLM, lambda row: row["output"]),
        (SHAREGPT, lambda row: [row["chosen"]["value"], row["rejected"]["value"]]),
    ],
)
def test_pairs_are_those_of_the_file(name, texts):
    _, pairs, _ = found_pairs(name)
    assert [[p.chosen, p.rejected] for p in pairs] == [texts(row) for row in raw(name)]


def five_way():
    """The raw rows: [(prompt, [(preference, text stripped), five of them])]."""
    return [
        (row["prompt"], [(r["pref_vs_gpt4_1106"], r["text"].strip()) for r in row["responses"]])
        for row in raw(FIVE_WAY)
    ]


def test_five_way_responses_that_are_identical_tied_or_empty_are_all_accounted_for():
    identical, tied, empty = set(), set(), set()
    pairs_expected = without_twins = 0
    for i, (_, responses) in enumerate(five_way()):
        for (one, text), (other, twin) in itertools.combinations(responses, 2):
            if text == twin:
                identical.add(i)
                assert one == other  # the same answer, the same preference
            if one == other:
                tied.add(i)
        if any(not text for _, text in responses):
            empty.add(i)
        left = {text for _, text in responses if text}
        pairs_expected += {2: 1, 3: 3, 4: 4, 5: 4}[len(left)]
        without_twins += len(responses) - len(left) - (i in empty)
    # All of the 31 are among the 48; the two with an empty response are neither.
    assert (len(identical), len(tied), len(empty)) == (31, 48, 2)
    assert identical < tied and not empty & tied
    assert len(identical | tied | empty) == 50
    _, pairs, account = found_pairs(FIVE_WAY)
    assert (account.seen["identical"], account.seen["tied"], account.seen["empty"]) == (31, 48, 2)
    assert account.found == (805, 805 * 5, 805 * 4)
    # An empty response costs no pair, for the other four give four; nor do the 17 prompts with a
    # tie between different texts: nobody is compared there with an equal.
    assert account.dropped["identical"] == (0, without_twins, 805 * 4 - pairs_expected)
    assert account.dropped["identical"].pairs == 18
    assert len(pairs) == pairs_expected == 3202


def test_five_way_pairs_are_the_two_best_against_the_two_worst():
    _, pairs, _ = found_pairs(FIVE_WAY)
    by_prompt = {}
    for pair in pairs:
        by_prompt.setdefault(pair.messages[0].content, []).append(pair)
    assert len(by_prompt) == 805
    exact = 0
    for prompt, responses in five_way():
        best = dict(sorted((text, preference) for preference, text in responses if text))
        ordered = sorted(best.values())
        found = {(p.chosen.strip(), p.rejected.strip()) for p in by_prompt[prompt]}
        for chosen, rejected in found:
            assert best[chosen] > best[rejected]
            assert best[chosen] >= ordered[-2] and best[rejected] <= ordered[1]
        if len(set(ordered)) == 5:  # nothing to draw: it is known which four these are
            texts = sorted(best, key=best.get)
            assert found == set(itertools.product(texts[-2:], texts[:2]))
            exact += 1
    assert exact == 805 - 50


def tree_pairs(node, before):
    """((texts so far, better, worse), ranks of the group) of every pair below a message."""
    thread = (*before, node["text"])
    replies = [reply for reply in node["replies"] if not reply.get("deleted")]
    ranked = [r for r in replies if r["role"] == "assistant" and r.get("rank") is not None]
    ranked.sort(key=lambda r: r["rank"])
    n = len(ranked)
    for a, better in enumerate(ranked):
        for b, worse in enumerate(ranked):
            if a < b and a < 2 and b >= n - 2:
                yield (thread, better["text"], worse["text"]), n
    for reply in replies:
        yield from tree_pairs(reply, thread)


@pytest.mark.parametrize("name", [TREES, ROOTS])
def test_trees_give_the_pairs_of_every_ranked_group(name):
    expected = [p for row in raw(name) for p in tree_pairs(row.get("prompt", row), ())]
    _, pairs, account = found_pairs(name)
    found = [(tuple(m.content for m in p.messages), p.chosen, p.rejected) for p in pairs]
    assert sorted(found) == sorted(pair for pair, _ in expected)
    by_size = Counter(n for _, n in expected)
    # Of two and three the best two and the worst two overlap: one pair and three, not four.
    assert by_size[2] == 57 and by_size[3] == 117 * 3 and by_size[9] == by_size[8] == 4
    assert len(pairs) == 57 + 117 * 3 + (27 + 3 + 6 + 1 + 1) * 4
    assert account.kept.rankings == 212


@pytest.mark.parametrize("name", [FIVE_WAY, TREES])
def test_other_choices_of_pairs(name):
    for choice in ("all", "best_worst"):
        rankings, pairs, account = found_pairs(name, choice=choice)
        expected = 0
        for ranking in rankings:
            texts = zip(*ranking.ranks, ranking.responses, strict=True)
            ranks = {t.strip(): rank for rank, t in texts if rank is not None and t.strip()}
            every = sum(a != b for a, b in itertools.combinations(ranks.values(), 2))
            expected += every if choice == "all" else min(every, 1)
        assert len(pairs) == account.kept.pairs == expected


def test_five_answers_stand_in_the_order_of_the_judges_preference():
    for ranking, (_, responses) in zip(read_rankings(source(FIVE_WAY)), five_way(), strict=True):
        (ranks,) = ranking.ranks
        preferences = [preference for preference, _ in responses]
        for i, j in itertools.permutations(range(5), 2):
            assert (ranks[i] < ranks[j]) == (preferences[i] > preferences[j])


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("prompts/mt_bench_question.jsonl", 80),
        ("prompts/vicuna_question_80.jsonl", 80),
        ("prompts/alpaca_seed_tasks.jsonl", 175),
        ("oasst_en_100/prompt_lottery_en_250_text.jsonl", 250),
        (TREES, 100),
        (SHAREGPT, 300),
        (FIVE_WAY, 805),
    ],
)
def test_prompts(name, count):
    found = read_prompts(source(name))
    assert len(found) == count
    assert all(p.messages[-1].role == "user" for p in found)


@pytest.mark.parametrize("name", [ALPACA, SHAREGPT, FIVE_WAY, "prompts/alpaca_seed_tasks.jsonl"])
def test_scrubbing_leaves_no_plain_address_and_little_else_changed(name):
    texts = [t for t in _strings(raw(name)) if len(t) > 1]
    plain = re.compile(r"(?<=[\s(\"'])[a-z0-9.]+@[a-z0-9]+\.(?:com|edu)\b")
    changed = 0
    for text in texts:
        clean, counts = scrub(text)
        assert not plain.search(clean)
        assert scrub(clean)[0] == clean
        changed += bool(counts)
    assert 0 < changed < 0.02 * len(texts) + 10


def _strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)
