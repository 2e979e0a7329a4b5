"""Configs of well-known models, as they are published; folders with nothing else in them."""

import json

OPT = {
    "model_type": "opt",
    "architectures": ["OPTForCausalLM"],
    "vocab_size": 50272,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": True,
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
LLAMA_3 = {**LLAMA, "vocab_size": 128256, "num_key_value_heads": 8}


def _opt(width, layers, heads):
    shape = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads}
    return {**OPT, **shape, "ffn_dim": 4 * width, "word_embed_proj_dim": width}


def _llama(base, width, inner, layers, heads, **more):
    shape = {"hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers}
    return {**base, **shape, "num_attention_heads": heads, **more}


CONFIGS = {
    "facebook/opt-125m": _opt(768, 12, 12),
    "facebook/opt-1.3b": _opt(2048, 24, 32),
    "facebook/opt-13b": _opt(5120, 40, 40),
    "facebook/opt-66b": _opt(9216, 64, 72),
    "meta-llama/Llama-3.2-1B": _llama(
        LLAMA_3, 2048, 8192, 16, 32, head_dim=64, tie_word_embeddings=True
    ),
    "meta-llama/Llama-3.1-8B": _llama(LLAMA_3, 4096, 14336, 32, 32),
    "meta-llama/Llama-2-13b-hf": _llama(LLAMA, 5120, 13824, 40, 40, vocab_size=32000),
    "meta-llama/Llama-3.1-70B": _llama(LLAMA_3, 8192, 28672, 80, 64),
}
"""By hub name."""


def write_config(folder, name):
    """A folder with that model's config alone."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    return folder
