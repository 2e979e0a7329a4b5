"""Other people's files through our readers; left out where they are not at hand.

They are looked for in $RLHF_SHARED_DATA, or in ../shared/data beside the repository. Numbers come
from the files' own documentation or were counted with other means.
"""

import json
import os
import re
from collections import Counter
from pathlib import Path

import pytest

from common.data.layouts import read_conversations, read_prompts, read_rankings
from common.data.pairs import all_pairs, read_pairs, write_pairs
from common.data.pii import scrub
from common.data.sources import DataSource

_DEFAULT = Path(__file__).resolve().parents[3].parent / "shared" / "data"
ROOT = Path(os.environ.get("RLHF_SHARED_DATA", _DEFAULT)) / "preference"

pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no real data in {ROOT}")

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


@pytest.mark.parametrize(
    ("name", "count", "sizes", "dropped"),
    [
        (GPT4_LLM, 1095, {2: 1095}, {}),
        (SHAREGPT, 300, {2: 300}, {}),
        (
            FIVE_WAY,
            805,
            {5: 772, 4: 19, 3: 12, 2: 2},
            {"repeated responses": 47, "empty responses": 2},
        ),
        (
            TREES,
            212,
            {2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1},
            {"responses without a rank": 1},
        ),
        (
            ROOTS,
            212,
            {2: 57, 3: 117, 4: 27, 5: 3, 6: 6, 8: 1, 9: 1},
            {"responses without a rank": 1},
        ),
    ],
)
def test_rankings(name, count, sizes, dropped, tmp_path):
    found = read_rankings(source(name))
    assert len(found.rankings) == count
    assert Counter(len(r.responses) for r in found.rankings) == sizes
    assert found.dropped == dropped
    # Nobody tied here: 2 responses give one pair, 3 three, more give two times two.
    pairs, left_out = all_pairs(found.rankings, seed=0)
    assert len(pairs) == sum({2: 1, 3: 3}.get(size, 4) * n for size, n in sizes.items())
    assert not left_out
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs


def test_the_better_answer_comes_first_in_pairs():
    for ranking, row in zip(read_rankings(source(GPT4_LLM)).rankings, raw(GPT4_LLM), strict=True):
        assert ranking.responses == tuple(row["output"])
        assert ranking.ranks == ((1, 2),)


def test_five_answers_stand_in_the_order_of_the_judges_preference():
    for ranking, row in zip(read_rankings(source(FIVE_WAY)).rankings, raw(FIVE_WAY), strict=True):
        (ranks,) = ranking.ranks
        by_rank = [text for _, text in sorted(zip(ranks, ranking.responses, strict=True))]
        best_first = [row["responses"][i]["text"] for i in row["ranking_best_to_worst"]]
        if len(by_rank) == 5:
            assert by_rank == best_first
        else:
            assert set(by_rank) <= set(best_first)


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
