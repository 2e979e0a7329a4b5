"""The length limits: what is kept, cut, skipped or refused, to the token."""

from collections import Counter

import pytest

from common.config.arguments import TextArguments
from common.data.encoding import (
    describe,
    encode_conversations,
    encode_pairs,
    encode_prompts,
    fit_prompt,
)
from common.data.records import Conversation, Message, Pair, Prompt
from common.data.template import Template
from common.errors import UserError
from tests.models import byte_tokenizer

HEAD = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request. ### USER: "
)
CUE = " ASSISTANT:"
FRAME = 1 + len(HEAD) + len(CUE)
"""Tokens of an empty prompt: the beginning token, and a token a letter."""
BOS, EOS = 1, 2


@pytest.fixture
def template():
    return Template(byte_tokenizer())


def limits(prompt=FRAME + 10, response=8, long="skip"):
    return TextArguments(max_prompt_tokens=prompt, max_response_tokens=response, long_prompts=long)


def prompt(length, origin="f.jsonl:1"):
    return Prompt((Message("user", "x" * length),), origin)


def conversation(*contents, origin="f.jsonl:1"):
    turns = [Message(("user", "assistant")[i % 2], text) for i, text in enumerate(contents)]
    return Conversation(tuple(turns), origin)


def text_of(template, ids):
    return template.tokenizer.decode(ids)


def test_prompts_up_to_the_limit_are_kept_and_longer_ones_skipped_and_counted(template):
    prompts = [prompt(n, f"f.jsonl:{n}") for n in (10, 11, 0, 12)]
    kept, counts = encode_prompts(prompts, template, limits())
    assert [item.record for item in kept] == [prompts[0], prompts[2]]
    assert [len(item.ids) for item in kept] == [FRAME + 10, FRAME]
    assert text_of(template, kept[0].ids) == f"<s>{HEAD}{'x' * 10}{CUE}"
    assert counts == {"long prompts skipped": 2}


def test_a_truncated_prompt_keeps_the_beginning_token_and_its_end(template):
    long = Prompt((Message("user", "a long question, asked at length"),), "f.jsonl:2")
    kept, counts = encode_prompts([prompt(3), long], template, limits(FRAME + 5, long="truncate"))
    assert len(kept[0].ids) == FRAME + 3
    assert len(kept[1].ids) == FRAME + 5 and kept[1].ids[0] == BOS
    whole = f"{HEAD}a long question, asked at length{CUE}"
    assert text_of(template, kept[1].ids) == "<s>" + whole[-(FRAME + 4) :]
    assert kept[1].record is long
    assert counts == {"long prompts truncated": 1}


def test_a_long_prompt_can_be_an_error_that_says_where_and_what_to_do(template):
    prompts = [prompt(10), prompt(13, "dir/f.jsonl:7")]
    with pytest.raises(UserError) as error:
        encode_prompts(prompts, template, limits(long="error"))
    for part in ("dir/f.jsonl:7", f"{FRAME + 13} tokens", f"({FRAME + 10})", "skip or truncate"):
        assert part in str(error.value)
    kept, counts = encode_prompts(prompts[:1], template, limits(long="error"))
    assert len(kept) == 1 and not counts


@pytest.mark.parametrize(("choice", "count"), [("skip", "skipped"), ("truncate", "truncated")])
def test_fitting_one_prompt_counts_what_it_does(choice, count):
    counts = Counter()
    found = fit_prompt([BOS, 5, 6, 7], limits(3, long=choice), BOS, "f:1", counts)
    assert found == (None if choice == "skip" else [BOS, 6, 7])
    assert counts == {f"long prompts {count}": 1}
    assert fit_prompt([BOS, 5, 6], limits(3, long=choice), BOS, "f:1", counts) == [BOS, 5, 6]
    assert sum(counts.values()) == 1


def test_a_conversation_within_the_limits_is_kept_whole(template):
    kept, counts = encode_conversations(
        [conversation("q", "r", origin="f.jsonl:4")], template, limits()
    )
    assert text_of(template, kept[0].input_ids) == f"<s>{HEAD}q{CUE} r</s>"
    assert kept[0].loss_mask == [False] * (FRAME + 1) + [True] * 3
    assert kept[0].origin == "f.jsonl:4"
    assert not counts


def test_a_response_over_the_limit_loses_its_end_token(template):
    """A blank, seven letters and the end token are nine tokens, over eight by one."""
    kept, counts = encode_conversations(
        [conversation("q", "sixsix"), conversation("q", "sevenxx"), conversation("q", "y" * 30)],
        template,
        limits(response=8),
    )
    responses = [item.input_ids[FRAME + 1 :] for item in kept]
    assert [text_of(template, ids) for ids in responses] == [" sixsix</s>", " sevenxx", " yyyyyyy"]
    assert [EOS in ids for ids in responses] == [True, False, False]
    assert all(item.loss_mask == [False] * (FRAME + 1) + [True] * 8 for item in kept)
    assert counts == {"long responses truncated": 2}


@pytest.mark.parametrize(
    ("always_ends", "cut"), [(True, " yyyyyy</s>"), (False, " yyyyyyy")], ids=["reward", "dpo"]
)
def test_responses_to_a_prompt_are_encoded_once_and_cut_with_or_without_their_end(
    template, always_ends, cut
):
    def pair(prompt, chosen, rejected):
        return Pair((Message("user", prompt),), chosen, rejected, 1.0, "f.jsonl:1")

    pairs = [pair("q", "good", "y" * 30), pair("qq", "good", "z"), pair("q", "good", "bad")]
    found, counts = encode_pairs(pairs, template, limits(response=8), always_ends=always_ends)
    assert [c.prompt_tokens for c in found] == [FRAME + 1, FRAME + 2]
    texts = [[text_of(template, row[c.prompt_tokens :]) for row in c.rows] for c in found]
    assert texts == [[" good</s>", cut, " bad</s>"], [" good</s>", " z</s>"]]
    prompts = {text_of(template, row[: FRAME + 1]) for row in found[0].rows}
    assert prompts == {f"<s>{HEAD}q{CUE}"}
    assert [c.pairs for c in found] == [[(0, 1), (0, 2)], [(0, 1)]]
    assert [c.records for c in found] == [[pairs[0], pairs[2]], [pairs[1]]]
    assert counts == {"long responses truncated": 1}


def test_conversations_with_long_prompts_are_skipped_or_refused(template):
    items = [conversation("x" * 11, "r", origin="f.jsonl:8"), conversation("q", "r", origin="f:9")]
    kept, counts = encode_conversations(items, template, limits())
    assert [item.origin for item in kept] == ["f:9"]
    assert counts == {"long prompts skipped": 1}
    with pytest.raises(UserError, match=rf"f\.jsonl:8.*{FRAME + 11} tokens.*{FRAME + 10}"):
        encode_conversations(items, template, limits(long="error"))


def test_a_truncated_conversation_keeps_its_response_and_its_mask(template):
    """The prompt is cut in the first user's turn; all of both responses is learned."""
    item = conversation("first question", "one", "q", "two")
    tail = f"tion{CUE} one</s> USER: q{CUE}"
    tokens = len(tail) - len("</s>") + 1
    kept, counts = encode_conversations([item], template, limits(1 + tokens, long="truncate"))
    assert text_of(template, kept[0].input_ids) == f"<s>{tail} two</s>"
    learned = [i for i, m in zip(kept[0].input_ids, kept[0].loss_mask, strict=True) if m]
    assert text_of(template, learned) == " one</s> two</s>"
    assert counts == {"long prompts truncated": 1}


def test_a_prompt_cut_within_an_earlier_response_does_not_mark_the_beginning_token(template):
    tail = f"ne</s> USER: q{CUE}"
    tokens = len(tail) - len("</s>") + 1
    kept, _ = encode_conversations(
        [conversation("first question", "one", "q", "two")],
        template,
        limits(1 + tokens, long="truncate"),
    )
    assert text_of(template, kept[0].input_ids) == f"<s>{tail} two</s>"
    learned = [i for i, m in zip(kept[0].input_ids, kept[0].loss_mask, strict=True) if m]
    assert text_of(template, learned) == "ne</s> two</s>"


def test_nothing_left_is_an_error_with_the_reasons(template):
    with pytest.raises(UserError, match=r"no prompt is left \(2 long prompts skipped\)"):
        encode_prompts([prompt(11), prompt(12)], template, limits())
    with pytest.raises(UserError, match=r"no prompt is left \(the input is empty\)"):
        encode_prompts([], template, limits())
    with pytest.raises(UserError, match=rf"no example is left .* max_prompt_tokens is {FRAME}"):
        encode_conversations([conversation("q", "r")], template, limits(FRAME))
    with pytest.raises(UserError, match="no example is left"):
        encode_conversations([], template, limits())


def test_counts_as_text():
    assert describe(Counter()) == ""
    counts = Counter({"long prompts skipped": 3, "long responses truncated": 1, "other": 0})
    assert describe(counts) == "3 long prompts skipped, 1 long responses truncated"
