"""Small random models and tokenizers, made on the spot: no test downloads anything."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

WIDTH = 16


def byte_tokenizer(pad: str = "<pad>") -> PreTrainedTokenizerFast:
    """One token a byte, and three special ones; `pad="</s>"` makes pad equal the end token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {t: i for i, t in enumerate(["<pad>", "<s>", "</s>", *alphabet])}
    bpe = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bpe.add_special_tokens(["<pad>", "<s>", "</s>"])
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=pad,
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )


def tiny_causal_lm(kind: str, vocabulary: int = 259, seed: int = 0) -> Any:
    """A two-layer model of width 16 in eval mode, weights large enough to matter.

    Args:
        kind: llama, llama-gqa (two query heads a key head), gpt2, opt, qwen2 (one layer sees four
            tokens back, one all), or mistral (sees only four tokens back).
    """
    torch.manual_seed(seed)
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if kind in ("llama", "llama-gqa", "mistral", "qwen2"):
        shape = {
            "vocab_size": vocabulary,
            "hidden_size": WIDTH,
            "intermediate_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 256,
            "tie_word_embeddings": True,
        }
        if kind == "llama":
            model = LlamaForCausalLM(LlamaConfig(**shape, **special))
        elif kind == "llama-gqa":
            model = LlamaForCausalLM(LlamaConfig(num_key_value_heads=1, **shape, **special))
        elif kind == "qwen2":
            window = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
            extra = {"num_key_value_heads": 1, **window}
            model = Qwen2ForCausalLM(Qwen2Config(**shape, **extra, **special))
        else:
            extra = {"num_key_value_heads": 1, "sliding_window": 4}
            model = MistralForCausalLM(MistralConfig(**shape, **extra, **special))
    elif kind == "gpt2":
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=256, **special
            )
        )
    else:
        model = OPTForCausalLM(
            OPTConfig(
                vocab_size=vocabulary,
                hidden_size=WIDTH,
                word_embed_proj_dim=WIDTH,
                ffn_dim=32,
                num_hidden_layers=2,
                num_attention_heads=2,
                max_position_embeddings=256,
                **special,
            )
        )
    with torch.no_grad():  # the default initialization is so small that mistakes hardly show
        for parameter in model.parameters():
            if parameter.ndim >= 2:
                parameter.mul_(8.0)
    return model.eval()


def save_tiny(folder: Path, kind: str = "llama", pad: str = "<pad>", seed: int = 0) -> Path:
    """A model folder with model and tokenizer."""
    tokenizer = byte_tokenizer(pad)
    model = tiny_causal_lm(kind, len(tokenizer), seed)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_reward(folder: Path, tokenizer: PreTrainedTokenizerFast | None = None) -> str:
    """A reward folder as stage 2 leaves it."""
    tokenizer = tokenizer or byte_tokenizer()
    save_tiny(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    model.resize_token_embeddings(len(tokenizer))
    model.config.score_mean, model.config.score_std = 0.0, 1.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
