"""Stage 3 on one base, end to end: killed and given again it ends bit for bit as one left alone."""

import json

import pytest
import torch
from safetensors.torch import load_file

from common.config.arguments import LoraArguments, ModelArguments
from common.models.loading import load_causal_lm, load_tokenizer, save_model, separate_pad
from common.models.scalar import load_scalar_model
from tests.models import save_tiny
from tests.stages import finish, kill_after, read, start, write_data

LORA = LoraArguments(lora_rank=2)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """An SFT model that is adapters itself, and a reward model of adapters on that."""
    root = tmp_path_factory.mktemp("one_base")
    write_data(root)
    base = str(save_tiny(root / "base"))
    tokenizer = load_tokenizer(base)
    save_model(load_causal_lm(base, ModelArguments(), LORA), tokenizer, root / "sft", "")
    pad = separate_pad(load_tokenizer(base))
    sft = str(root / "sft")
    reward = load_scalar_model(
        sft, "reward", ModelArguments(), new_head=True, tokenizer=pad, lora=LORA
    )
    save_model(reward, pad, root / "reward", "")
    return root


def begin(root, run):
    options = {
        "config": root / "all.yaml",
        "run": run,
        "actor": root / "sft",
        "reward": root / "reward",
        "one_base": "true",
        "lora_rank": 2,
        "score_scaling": "running",
        "steps": 8,
        "checkpoint_steps": 1,
        "template": "ice",
        "max_prompt_tokens": 200,
        "zero": 2,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return start("step3_rlhf/main.py", *words)


@pytest.mark.slow
def test_a_killed_run_ends_as_one_left_alone(models, tmp_path):
    finish(begin(models, tmp_path / "alone"))
    killed = begin(models, tmp_path / "killed")
    kill_after(killed, tmp_path / "killed", "rlhf", 3)
    assert "going on after step" in finish(begin(models, tmp_path / "killed"))
    rows = [read(tmp_path / name, "rlhf")[1] for name in ("alone", "killed")]
    alone, again = (
        [{k: v for k, v in r.items() if "time" not in k} for r in part] for part in rows
    )
    assert len(alone) == 8 and json.dumps(alone) == json.dumps(again)
    for model in ("actor", "critic"):
        weights, other = (
            load_file(tmp_path / name / "models" / model / "adapter_model.safetensors")
            for name in ("alone", "killed")
        )
        assert weights.keys() == other.keys()
        assert all(torch.equal(weights[name], other[name]) for name in weights)
        assert any(w.abs().max() > 0 for name, w in weights.items() if "lora_B" in name)
