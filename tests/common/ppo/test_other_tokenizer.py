"""PPO with a reward model of another architecture, tokenizer and size than the actor's."""

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from common.config.arguments import (
    LoraArguments,
    ModelArguments,
    SamplingArguments,
    TextArguments,
    ZeroArguments,
)
from common.data.encoding import EncodedPrompt
from common.data.records import Message, Prompt
from common.data.template import PREAMBLE, Template
from common.hybrid_engine.engine import RolloutArguments
from common.models.loading import load_tokenizer, save_model
from common.models.scalar import load_scalar_model
from common.models.tiny import TinyArguments, write_tiny_model
from common.ppo.arguments import PPOArguments
from common.ppo.build import build_trainer
from common.ppo.sources import RewardSourceArguments
from common.reward.places import RewardPlace
from common.training.engine import process_group
from tests.models import save_tiny
from tests.ranks import run_ranks

TEXTS = ["Is the sky red?", "Is the grass blue?", "Why is snow white?", "What is coal?"]
MEAN, STD, CLIP, NO_END = 0.7, 2.5, 0.8, -3.0


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A Llama whose tokens are words, and a GPT-2 that reads bytes, with its normalization."""
    root = tmp_path_factory.mktemp("models")
    words = TEXTS * 20 + ["It is. It is not. The sky is blue."] * 20
    write_tiny_model(root / "sft", words, TinyArguments(1, 32, 2, 300), 0, max_positions=64)
    folder = str(save_tiny(root / "bytes", "gpt2"))
    tokenizer = load_tokenizer(folder)
    reward = load_scalar_model(
        folder, "reward", ModelArguments(), new_head=True, tokenizer=tokenizer
    )
    reward.inner.config.score_mean, reward.inner.config.score_std = MEAN, STD
    save_model(reward, tokenizer, root / "reward", "")
    return str(root / "sft"), str(root / "reward")


def roll_out(sft, reward):
    """A rollout's texts, whether each ended, their scores; and the metrics of two PPO steps."""
    with process_group():
        template = Template(load_tokenizer(sft))
        ppo = {
            **{"steps": 2, "rollout_batch_size": 4, "mini_batch_size": 4, "micro_batch_size": 2},
            **{"score_clip": CLIP, "no_end_score": NO_END, "score_batch_size": 3},
        }
        trainer = build_trainer(
            sft,
            [RewardPlace(reward, name="reward")],
            RewardSourceArguments(),
            "sft",
            False,
            template,
            TextArguments(max_response_tokens=12),
            PPOArguments(**ppo),
            SamplingArguments(generation_batch_size=4),
            RolloutArguments(),
            ModelArguments(),
            LoraArguments(),
            ZeroArguments("0"),
            seed=1,
        )
        rows = [(Message("user", text),) for text in TEXTS]
        prompts = [EncodedPrompt(template.encode_prompt(m), Prompt(m, "test:1")) for m in rows]
        rollout = trainer.generate(prompts * 4, "rollout", 1)
        experience = trainer.experience(rollout, prompts * 4)
        ids = rollout.response_ids()
        metrics = [trainer.iterate(step, prompts) for step in (1, 2)]
        scores = experience.raw_scores["reward"].tolist(), experience.scores.tolist()
        return ids, rollout.ended.tolist(), *scores, metrics


def test_text_is_decoded_and_read_in_the_reward_models_own_tokens(folders):
    """By hand: the actor's ids as text, that text as bytes, the stock model on them alone."""
    sft, reward = folders
    ((ids, ended, raw, scores, metrics),) = run_ranks(
        roll_out, 1, sft, reward, start_group=False, timeout=200
    )
    words, letters = (AutoTokenizer.from_pretrained(folder) for folder in folders)
    assert len(words) != len(letters)
    stock = AutoModelForSequenceClassification.from_pretrained(reward).eval()
    assert stock.config.model_type == "gpt2"
    expected = []
    for prompt, response in zip(TEXTS * 4, ids, strict=True):
        text = words.decode(response, skip_special_tokens=True).strip()
        whole = f"{PREAMBLE} ### USER: {prompt} ASSISTANT: {text}"
        row = [
            letters.bos_token_id,
            *letters(whole, add_special_tokens=False)["input_ids"],
            letters.eos_token_id,
        ]
        with torch.no_grad():
            expected.append(float(stock(torch.tensor([row])).logits))
    assert raw == pytest.approx(expected, abs=1e-3)
    assert max(raw) - min(raw) > 0.5
    normal = [max(-CLIP, min(CLIP, (x - MEAN) / STD)) for x in expected]
    wanted = [x if end else NO_END for x, end in zip(normal, ended, strict=True)]
    assert scores == pytest.approx(wanted, abs=1e-3)
    assert all(m["value/grad_norm"] > 0 for m in metrics)
