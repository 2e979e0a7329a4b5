"""Sampling on several ranks: each prompt is sampled for, whoever does it, and the same text."""

import json

import pytest

import step2_reward.sample as sample
from common.config.arguments import (
    ModelArguments,
    RunArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
)
from common.hybrid_engine.engine import RolloutArguments
from common.training.engine import process_group
from common.training.resume.arguments import CheckpointArguments
from common.training.stage import Stage
from step2_reward.sample import SampleArguments
from tests.models import save_tiny
from tests.ranks import run_ranks, shard_everything


def on_ranks(model, data, folder):
    """Samples three responses a prompt into `folder`."""
    run = RunArguments(run=folder, progress=False)
    shard_everything()
    with process_group():
        sample.main(
            Stage("sample", run, {}),
            run,
            SampleArguments(model=model, data=[data], responses=3),
            ModelArguments(),
            TextArguments(max_response_tokens=12),
            SamplingArguments(generation_batch_size=4),
            RolloutArguments(),
            ZeroArguments(),
            CheckpointArguments(),
        )


@pytest.mark.parametrize("prompts", [1, 5])
def test_rank_counts_give_the_same_samples(tmp_path, prompts):
    """Also where there are more ranks than prompts."""
    model = str(save_tiny(tmp_path / "model"))
    data = tmp_path / "prompts.jsonl"
    data.write_text(
        "".join(json.dumps({"prompt": f"q{i}" * (1 + i)}) + "\n" for i in range(prompts))
    )
    found, results = [], []
    for ranks in (1, 2):
        folder = tmp_path / f"run{ranks}"
        (folder / "sample").mkdir(parents=True)
        run_ranks(on_ranks, ranks, model, str(data), str(folder), start_group=False)
        lines = (folder / "sample/samples.jsonl").read_text().splitlines()
        rows = [json.loads(line) for line in lines]
        found.append([row["responses"] for row in rows])
        results.append(json.loads((folder / "sample/result.json").read_text()))
    assert found[0] == found[1] and len(found[0]) == prompts
    for name in ("prompts", "responses", "drawn", "empty", "repeated", "prompts_with_fewer"):
        assert results[0][name] == results[1][name]
    assert results[0]["drawn"] == sum(row["drawn"] for row in rows)
    assert all(len(set(responses)) == 3 for responses in found[0])


def test_every_row_says_where_it_comes_from(tmp_path):
    """The model, what it weighs, how it was sampled; another model has another hash."""
    data = tmp_path / "prompts.jsonl"
    data.write_text('{"prompt": "q"}\n')
    hashes = []
    for seed in (0, 1, 0):
        model = save_tiny(tmp_path / f"model{len(hashes)}", seed=seed)
        (model / "README.md").write_text(f"a card of its own: {len(hashes)}")
        run = RunArguments(run=str(tmp_path / f"run{len(hashes)}"), progress=False, seed=7)
        sample.main(
            Stage("sample", run, {}),
            run,
            SampleArguments(model=str(model), data=[str(data)], responses=2),
            ModelArguments(),
            TextArguments(max_response_tokens=6, max_prompt_tokens=400),
            SamplingArguments(temperature=1.5, top_p=0.99, top_k=50, repetition_penalty=1.1),
            RolloutArguments(),
            ZeroArguments(),
            CheckpointArguments(),
        )
        (line,) = (tmp_path / f"run{len(hashes)}/sample/samples.jsonl").read_text().splitlines()
        row = json.loads(line)
        hashes.append(row["model_hash"])
        assert (row["model"], row["seed"]) == (str(model), 7)
        assert row["sampling"] == {
            "temperature": 1.5,
            "top_k": 50,
            "top_p": 0.99,
            "repetition_penalty": 1.1,
            "min_response_tokens": 0,
            "max_response_tokens": 6,
            "max_prompt_tokens": 400,
            "template": "ice",
        }
    assert hashes[0] == hashes[2] != hashes[1]
    assert all(h.startswith("sha256:") and len(h) == 7 + 64 for h in hashes)
