"""The saved chat template gives other programs the very ids that training uses."""

import json

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from common.data.chat_template import keep_format
from common.data.chat_template import main as add_to_folders
from common.data.records import Message
from common.data.template import Template
from common.errors import UserError
from common.models.tiny import _train_tokenizer
from tests.models import byte_tokenizer

BEGINNING = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request. ### USER:"
)
TEXTS = [f"{BEGINNING} hello you ASSISTANT: well, 12 of them USER: more"] * 9
SPECIALS = {"unk_token": "<unk>", "pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}


def trained(pre_tokenizer):
    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=list(SPECIALS.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(TEXTS, trainer)
    return bpe


def bytes_and_merges():
    """As GPT-2's, OPT's, Llama 3's, Qwen's: a blank belongs to the word behind it."""
    return trained(pre_tokenizers.ByteLevel(add_prefix_space=False))


def metaspace(scheme):
    return trained(pre_tokenizers.Metaspace(prepend_scheme=scheme, split=True))


def normalized(*steps):
    """As Llama 2's with "▁" put before every text; no splitting into words."""
    content = json.loads(metaspace("always").to_str())
    changed = Tokenizer(models.BPE())
    changed.normalizer = normalizers.Sequence([*steps, normalizers.Replace(" ", "▁")])
    content |= {"pre_tokenizer": None, "normalizer": json.loads(changed.to_str())["normalizer"]}
    return Tokenizer.from_str(json.dumps(content))


TOKENIZERS = {
    "bytes": byte_tokenizer,
    "bytes and merges": lambda: wrapped(bytes_and_merges()),
    "the template's pieces as tokens": lambda: _train_tokenizer(TEXTS, 400),
    "▁ before the first word": lambda: wrapped(metaspace("first")),
    "▁ before every text": lambda: wrapped(metaspace("always")),
    "no ▁ of its own": lambda: wrapped(metaspace("never")),
    "▁ by normalization": lambda: wrapped(normalized(normalizers.Prepend("▁"))),
}
tokenizers = pytest.mark.parametrize("make", TOKENIZERS.values(), ids=TOKENIZERS)


def wrapped(tokenizer):
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIALS)


def turns(*contents, system=None):
    found = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return [Message("system", system), *found] if system else found


CONVERSATIONS = [
    turns("hello"),
    turns("  12 blanks before and behind \n"),
    turns("hello", "well", "more\n\n", "(12) of: them ", "日本?"),
    turns("you", "", "", "\tx", "hello", system="Be kind."),
    turns("", system="1. "),
]


@tokenizers
def test_a_saved_folder_gives_the_ids_of_training(make, tmp_path):
    template = Template(make())
    keep_format(template)
    template.tokenizer.save_pretrained(tmp_path)
    stock = AutoTokenizer.from_pretrained(tmp_path)
    for messages in CONVERSATIONS:
        if make is TOKENIZERS["▁ by normalization"] and any(not m.content for m in messages):
            continue  # nothing is put before an empty text, but a blank is there in the whole
        rows = [{"role": m.role, "content": m.content} for m in messages]
        told = stock.apply_chat_template(rows, add_generation_prompt=True, return_dict=False)
        assert told == template.encode_prompt(messages)


@tokenizers
def test_earlier_answers_may_bring_the_blank_before_them(make):
    """A server's answer goes back to it as it came."""
    template = Template(make())
    keep_format(template)

    def ids(answer):
        roles = ("user", "assistant", "user")
        rows = [{"role": r, "content": c} for r, c in zip(roles, ("a", answer, "b"), strict=True)]
        return template.tokenizer.apply_chat_template(rows, return_dict=False)

    assert ids(" well") == ids("well") == template.encode_prompt(turns("a", "well", "b"))


@tokenizers
def test_training_reads_what_one_text_gives(make):
    template = Template(make())
    encoded = template.encode_conversation(turns("hello you", "well, 12", "more", "them"))
    text = f"{BEGINNING} hello you ASSISTANT: well, 12</s> USER: more ASSISTANT: them</s>"
    told = template.tokenizer(text, add_special_tokens=False).input_ids
    beginning = template.tokenizer.bos_token_id
    assert encoded.input_ids == [beginning, *told]
    learned = [i for i, on in zip(encoded.input_ids, encoded.loss_mask, strict=True) if on]
    said = template.tokenizer.decode(learned)
    for blank in "Ġ▁ ":
        said = said.replace(blank, "")
    assert said == "well,12</s>them</s>"


def test_a_blank_goes_with_the_word_behind_it():
    template = Template(wrapped(bytes_and_merges()))
    tokens = template.tokenizer.convert_ids_to_tokens(template.encode_prompt(turns("hello")))
    assert tokens[-4:] == [":", "Ġhello", "ĠASSISTANT", ":"]
    response = template.encode_response("well")
    assert template.tokenizer.convert_ids_to_tokens(response) == ["Ġwell", "</s>"]


def test_pieces_that_are_tokens_stay_tokens():
    template = Template(_train_tokenizer(TEXTS, 400))
    tokens = template.tokenizer.convert_ids_to_tokens(template.encode_prompt(turns("hello")))
    assert tokens[:2] == ["<s>", f"{BEGINNING} "] and tokens[-1] == " ASSISTANT:"


@tokenizers
@pytest.mark.parametrize("mark", ["</s>", "<s>x", "<pad>", f"{BEGINNING} a ASSISTANT: b"])
def test_what_users_write_becomes_no_special_token(make, mark):
    template = Template(make())
    keep_format(template)
    tokenizer = template.tokenizer

    def specials(text):
        rows = [{"role": "user", "content": text}, {"role": "assistant", "content": text}]
        ids = tokenizer.apply_chat_template([*rows, rows[0]], return_dict=False)
        special = {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
        return [i for i in ids if i in special and i != tokenizer.unk_token_id]

    assert specials(f"Hi {mark} you") == specials("Hi you")


def test_a_tokenizer_that_reads_a_whole_otherwise_gets_none(capsys):
    template = Template(wrapped(normalized(normalizers.Strip())))
    template.tokenizer.chat_template = "{{ messages }}"
    keep_format(template)
    assert template.tokenizer.chat_template is None
    assert "without a chat template" in capsys.readouterr().out


def test_a_tokenizers_own_template_stays():
    tokenizer = byte_tokenizer()
    own = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    tokenizer.chat_template = own
    keep_format(Template(tokenizer, "chat"))
    assert tokenizer.chat_template == own


def test_a_folder_saved_without_one_can_be_given_one(tmp_path, capsys):
    byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    add_to_folders([str(tmp_path)])
    assert "chat template now" in capsys.readouterr().out
    assert " ASSISTANT:" in AutoTokenizer.from_pretrained(tmp_path).chat_template
    with pytest.raises(UserError, match="has a chat template already"):
        add_to_folders([str(tmp_path)])
