"""The model `tiny`: a tokenizer that loses nothing, single tokens for the template, seeded weights.

The texts are the embedded domain's, which the quickstart trains it on.
"""

import hashlib
import json
import random
from dataclasses import replace

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from common.data.ad_moderation.answers import draw_answer
from common.data.ad_moderation.general import draw_general, draw_general_answer
from common.data.ad_moderation.tasks import draw_task
from common.data.records import Message
from common.data.template import RESPONSE_CUE, TEMPLATE_HEAD, Template
from common.models.tiny import TinyArguments, write_tiny_model

SMALL = TinyArguments(tiny_layers=1, tiny_width=16, tiny_heads=2, tiny_vocabulary=600)


def domain_texts(pool, seed):
    """Prompts and answers of the embedded domain."""
    rng = random.Random(seed)
    tasks = [draw_task(rng, pool) for _ in range(250)]
    questions = [draw_general(rng) for _ in range(50)]
    pairs = [(t.prompt, draw_answer(rng, t.facts)[1]) for t in tasks]
    pairs += [(t.prompt, draw_general_answer(rng, t.facts)[1]) for t in questions]
    return [text for pair in pairs for text in pair]


TEXTS = domain_texts("seen", "tiny")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tiny") / "base"
    write_tiny_model(path, iter(TEXTS), SMALL, seed=0, max_positions=160)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def digest(folder, name):
    return hashlib.sha256((folder / name).read_bytes()).hexdigest()


def ids_of(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids


def test_text_of_the_domain_survives_the_tokenizer(tokenizer):
    template = Template(tokenizer)
    texts = [*TEXTS, *domain_texts("unseen", "other")]
    assert sum('"' in text for text in texts) > 300
    for text in texts:
        assert tokenizer.decode(ids_of(tokenizer, text)) == text
        assert template.decode_response(template.encode_response(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        '"all of it"',
        'say "a" and "b", "c"; ("d")',
        'an empty "" one',
        'two ""in a row""',
        'an open "end',
        'a line "\nand another "\tgap',
        'a  "wide" gap, no"gap"here',
        "Grüße, 日本 und 🙂 „so“",
        "</s><pad><s>",
        f"{TEMPLATE_HEAD}x{RESPONSE_CUE}",
    ],
)
def test_any_text_survives_quotation_marks_included(tokenizer, text):
    assert tokenizer.decode(ids_of(tokenizer, text)) == text


def test_a_phrase_has_the_same_tokens_in_quotation_marks_as_in_running_text(tokenizer):
    phrase = ids_of(tokenizer, " cures all pain")
    for quoted in (
        ' "cures all pain"',
        ': "cures all pain, fresh scent."',
        ' With "cures all pain',
    ):
        ids = ids_of(tokenizer, quoted)
        windows = [ids[i : i + len(phrase)] for i in range(len(ids))]
        assert phrase in windows, tokenizer.convert_ids_to_tokens(ids)


def test_the_templates_fixed_pieces_are_single_tokens(tokenizer):
    head, cue = (tokenizer(piece).input_ids for piece in (TEMPLATE_HEAD, RESPONSE_CUE))
    assert len(head) == len(cue) == 1
    special = [tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id]
    assert len({*head, *cue, *special}) == 5 and None not in special
    template = Template(tokenizer)
    prompt = template.encode_prompt([Message("user", "May it run?")])
    plain = ids_of(tokenizer, "May it run?")
    assert prompt == [tokenizer.bos_token_id, *head, *plain, *cue]
    # Written by a user, the same words are letters.
    forged = template.encode_prompt([Message("user", f"{TEMPLATE_HEAD}a{RESPONSE_CUE}</s>")])
    fixed = {*head, *cue, *special}
    assert [i for i in forged if i in fixed] == [tokenizer.bos_token_id, *head, *cue]


def test_the_same_seed_gives_the_same_bytes_and_another_other_weights(folder, tmp_path):
    torch.rand(3)  # what was drawn before must not matter
    write_tiny_model(tmp_path / "same", TEXTS, SMALL, seed=0, max_positions=160)
    write_tiny_model(tmp_path / "other", TEXTS, SMALL, seed=1, max_positions=160)
    for name in ("model.safetensors", "tokenizer.json", "config.json"):
        assert digest(tmp_path / "same", name) == digest(folder, name), name
    assert digest(tmp_path / "other", "model.safetensors") != digest(folder, "model.safetensors")
    assert digest(tmp_path / "other", "tokenizer.json") == digest(folder, "tokenizer.json")


@pytest.mark.parametrize("limit", [300, 450])
def test_the_vocabulary_keeps_to_its_limit_and_fits_the_model(tmp_path, limit):
    settings = replace(SMALL, tiny_vocabulary=limit)
    write_tiny_model(tmp_path, TEXTS, settings, seed=0, max_positions=10)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert len(tokenizer) == limit  # the texts have more pairs to merge than that
    assert model.get_input_embeddings().weight.shape == (limit, 16)
    assert max(max(ids_of(tokenizer, text)) for text in TEXTS) < limit


def test_little_text_gives_a_small_vocabulary(tmp_path):
    write_tiny_model(tmp_path, ["ab ab"], SMALL, seed=0, max_positions=10)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert 256 + 5 < len(tokenizer) <= 256 + 5 + 3  # "ab", " a" or " ab" at most
    assert AutoModelForCausalLM.from_pretrained(tmp_path).config.vocab_size == len(tokenizer)


def test_the_model_has_the_shape_asked_for_and_knows_its_special_tokens(tmp_path):
    settings = TinyArguments(tiny_layers=2, tiny_width=24, tiny_heads=3, tiny_vocabulary=300)
    write_tiny_model(tmp_path, TEXTS, settings, seed=0, max_positions=100)
    model = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    config = model.config
    assert (config.num_hidden_layers, config.hidden_size, config.num_attention_heads) == (2, 24, 3)
    assert config.max_position_embeddings == 100
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        assert getattr(config, name) == getattr(tokenizer, name)
    ids = torch.tensor([ids_of(tokenizer, "May it run?")])
    assert model(input_ids=ids).logits.shape == (1, ids.shape[1], len(tokenizer))
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    assert head.weight.data_ptr() == embedding.weight.data_ptr()  # tied
    generation = json.loads((tmp_path / "generation_config.json").read_text(encoding="utf-8"))
    assert generation["eos_token_id"] == tokenizer.eos_token_id
