"""Folders and sessions for tests of the chat."""

import torch
from transformers import AutoModelForCausalLM

from common.chat.session import Session
from common.chat.settings import ChatArguments, ChatSampling
from common.chat.speaker import load_all
from tests.models import save_reward, save_tiny


def save_endless(folder, seed=0):
    """A model that has room for long answers, and never takes the end token for the likeliest."""
    save_tiny(folder, seed=seed)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.max_position_embeddings = 100_000
    with torch.no_grad():
        model.get_input_embeddings().weight[2] = 0
    model.save_pretrained(folder)
    return str(folder)


def save_run(folder):
    """A run's folder with three models."""
    for number, name in enumerate(("sft", "actor")):
        save_tiny(folder / "models" / name, seed=number)
    save_reward(folder / "models" / "reward")
    return str(folder)


def session(models, reward="", system="", **sampling):
    """As `bash launch/chat.sh` would start it."""
    settings = ChatArguments(models=list(models), reward=reward)
    values = {"max_response_tokens": 12, "seed": 1} | sampling
    return Session(*load_all(settings), ChatSampling(**values), system)
