"""Which data is trained on beside PPO. (Gradients: tests/common/training/test_engine.py.)"""

import json
from collections import Counter

import pytest

from common.config.arguments import TextArguments
from common.data.encoding import EncodedExample
from common.data.template import Template
from common.errors import UserError
from common.ppo import pretraining
from common.ppo.pretraining import PretrainingArguments, PretrainingMix, read_pretraining
from common.training.batching import FILLER
from tests.models import byte_tokenizer

EXAMPLES = [
    EncodedExample([1] * (3 + i), [False] * 2 + [True] * (1 + i), f"ptx.jsonl:{i + 1}")
    for i in range(10)
]


def mix_of(batch_size: int, seed: int = 0) -> PretrainingMix:
    settings = PretrainingArguments(0.5, ["ptx.jsonl"], ptx_batch_size=batch_size)
    return PretrainingMix(EXAMPLES, 0, settings, seed)


def on_ranks(monkeypatch, mix, update, count, ranks):
    """Shares of each rank, and the tokens, which all must agree on."""
    monkeypatch.setattr(pretraining, "world_size", lambda: ranks)
    found, tokens = [], set()
    for number in range(ranks):
        monkeypatch.setattr(pretraining, "rank", lambda number=number: number)
        shares, total = mix.shares(update, count)
        found.append([share.tolist() for share in shares])
        tokens.add(total)
    assert len(tokens) == 1
    return found, tokens.pop()


@pytest.mark.parametrize("batch_size", [1, 4, 7, 25])
@pytest.mark.parametrize(("ranks", "count"), [(1, 1), (1, 3), (2, 1), (2, 3)])
def test_every_way_to_cut_an_update_has_the_same_examples(monkeypatch, batch_size, ranks, count):
    mix = mix_of(batch_size)
    seen = Counter()
    for update in range(10):
        found, tokens = on_ranks(monkeypatch, mix, update, count, ranks)
        sizes = {len(share) for shares in found for share in shares}
        assert [len(shares) for shares in found] == [count] * ranks and len(sizes) == 1
        chosen = [i for shares in found for share in shares for i in share if i != FILLER]
        assert len(chosen) == batch_size
        assert tokens == sum(1 + i for i in chosen)
        whole, total = on_ranks(monkeypatch, mix, update, 1, 1)
        assert sorted(whole[0][0]) == sorted(chosen) and total == tokens
        seen.update(chosen)
    # Ten updates are whole passes over ten examples.
    assert set(seen.values()) == {batch_size}


def test_an_update_does_not_depend_on_those_before_it(monkeypatch):
    once = [on_ranks(monkeypatch, mix_of(4), update, 1, 1) for update in range(5)]
    again = [on_ranks(monkeypatch, mix_of(4), update, 1, 1) for update in reversed(range(5))]
    assert once == again[::-1]
    assert len({tuple(shares[0][0]) for shares, _ in once}) == 5
    other = [on_ranks(monkeypatch, mix_of(4, seed=1), update, 1, 1) for update in range(5)]
    assert other != once


def test_data_is_read_as_in_stage_1(tmp_path):
    rows = [
        {"prompt": "who?", "completion": "me"},
        {"instruction": "write to me", "output": "at someone@example.com"},
        {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]},
    ]
    files = []
    for i, row in enumerate(rows):
        file = tmp_path / f"{i}.jsonl"
        file.write_text(json.dumps(row) + "\n")
        files.append(str(file))
    files[2] = json.dumps({"path": files[2], "weight": 2})
    template, text = Template(byte_tokenizer()), TextArguments()
    found, counts = read_pretraining(PretrainingArguments(1.0, files), template, text, seed=0)
    decode = template.tokenizer.decode
    learned = sorted(
        decode([i for i, m in zip(e.input_ids, e.loss_mask, strict=True) if m]).strip()
        for e in found
    )
    assert [x for x in learned if "at " not in x] == ["me</s>", "y</s>", "y</s>"]
    assert len(learned) == 4 and not any("someone@example.com" in x for x in learned)
    assert sum(counts.values()) == 0
    plain = PretrainingArguments(1.0, files, ptx_scrub_pii=False)
    found, _ = read_pretraining(plain, template, text, seed=0)
    assert any("someone@example.com" in decode(e.input_ids) for e in found)
    assert read_pretraining(PretrainingArguments(), template, text, seed=0) == ([], Counter())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"ptx_coefficient": 1.0}, "ptx_coefficient is 1, but ptx_data names none"),
        ({"ptx_data": ["a.jsonl"]}, "ptx_data is given, but ptx_coefficient is 0"),
        ({"ptx_coefficient": -1.0, "ptx_data": ["a"]}, "ptx_coefficient is -1.0, but must be at"),
        (
            {"ptx_coefficient": 1.0, "ptx_data": ["a"], "ptx_batch_size": 0},
            "ptx_batch_size is 0, but must be at least 1",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(given, message):
    with pytest.raises(UserError, match=message):
        PretrainingArguments(**given)
