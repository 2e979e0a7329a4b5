"""The model named `tiny`: a small Llama with random weights, and a tokenizer made for its text.

Nothing is downloaded. It is written to disk once as an ordinary model folder, and loaded from
there like any other base model.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config.arguments import TextArguments, option
from common.data.records import Conversation
from common.data.template import RESPONSE_CUE, TEMPLATE_HEAD
from common.training.distributed import barrier, is_main
from common.training.seeding import seed_global


@dataclass
class TinyArguments:
    """Shape of the base model `tiny`."""

    tiny_layers: int = option(3, "decoder layers of the model `tiny`")
    tiny_width: int = option(128, "hidden size of the model `tiny`")
    # With 8 heads, 16 wide, one run in six never learned to copy a brand name; 4 heads always have.
    tiny_heads: int = option(4, "attention heads of the model `tiny`")
    tiny_vocabulary: int = option(1536, "tokens of the byte-level BPE of the model `tiny`")


def write_tiny_model(
    folder: Path, texts: Iterable[str], settings: TinyArguments, seed: int, max_positions: int
) -> None:
    """Trains the tokenizer on `texts`, draws the weights from `seed`, and saves both.

    Args:
        folder: where the model folder goes.
        texts: the training text, prompts and responses.
        max_positions: longest sequence the model is to see, in tokens.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _train_tokenizer(texts, settings.tiny_vocabulary)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=settings.tiny_width,
        intermediate_size=settings.tiny_width * 5 // 2,
        num_hidden_layers=settings.tiny_layers,
        num_attention_heads=settings.tiny_heads,
        num_key_value_heads=settings.tiny_heads,
        max_position_embeddings=max(max_positions, 64),
        tie_word_embeddings=True,
        initializer_range=0.75 / settings.tiny_width**0.5,  # transformers' 0.02 suits wide models
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    seed_global(seed, "tiny weights")
    model = LlamaForCausalLM(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_base(
    folder: Path,
    train: Sequence[Conversation],
    settings: TinyArguments,
    text: TextArguments,
    seed: int,
) -> str:
    """`write_tiny_model` with a tokenizer from the training text; its folder. A collective."""
    if is_main():
        words = (m.content for c in train for m in c.messages)
        longest = text.max_prompt_tokens + text.max_response_tokens
        write_tiny_model(folder, words, settings, seed, max_positions=longest)
    barrier()
    return str(folder)


def _train_tokenizer(texts: Iterable[str], vocabulary: int):  # noqa: ANN202 - a lazy import's type
    """A byte-level BPE in which the template's fixed pieces are one special token each.

    An opening quotation mark gets a blank behind it (taken away again in decoding), so that a
    quoted word is the same token as the word in running text: copying a phrase into quotation
    marks is then the identity, which a small model learns many times faster.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.normalizer = normalizers.Replace(Regex(r' "(?=\S)'), ' " ')
    bpe.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace(' " ', ' "')])
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=["<pad>", "<s>", "</s>", TEMPLATE_HEAD, RESPONSE_CUE],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
    )
