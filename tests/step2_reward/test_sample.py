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
from common.training.resume.checkpoints import CheckpointArguments
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
    found = []
    for ranks in (1, 2):
        folder = tmp_path / f"run{ranks}"
        (folder / "sample").mkdir(parents=True)
        run_ranks(on_ranks, ranks, model, str(data), str(folder), start_group=False)
        lines = (folder / "sample/samples.jsonl").read_text().splitlines()
        found.append([json.loads(line)["responses"] for line in lines])
    assert found[0] == found[1] and len(found[0]) == prompts
    assert all(len(set(responses)) == 3 for responses in found[0])
