"""Histories: what each model sees, files, and what is left out of a full context."""

import json

import pytest

from common.chat.conversation import Conversation, Turn, fit
from common.data.layouts import read_conversations
from common.data.records import Message
from common.data.sources import parse_sources
from common.data.template import Template
from common.errors import UserError
from tests.models import byte_tokenizer


def conversation(system=""):
    turns = [
        Turn("one?", ["a1", "b1"], [0.5, None]),
        Turn("two?", ["a2", "b2"], [-1.0, 2.0]),
    ]
    return Conversation(["a", "b"], system, turns)


def contents(messages):
    return [m.content for m in messages]


def test_each_model_sees_its_own_answers():
    talk = conversation()
    assert contents(talk.messages(0, "three?")) == ["one?", "a1", "two?", "a2", "three?"]
    assert contents(talk.messages(1, "three?")) == ["one?", "b1", "two?", "b2", "three?"]
    roles = [m.role for m in conversation("S").messages(1, "three?")]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user"]


@pytest.mark.parametrize("system", ["", "Be kind."])
def test_what_is_saved_is_loaded(tmp_path, system):
    file = tmp_path / "new folder/talk.jsonl"
    conversation(system).save(file)
    assert Conversation.load(file, ["a", "b"]) == conversation(system)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    assert [row["model"] for row in rows] == ["a", "b"]
    assert rows[1]["messages"][-1] == {"role": "assistant", "content": "b2"}


def test_a_saved_conversation_is_training_data(tmp_path):
    file = tmp_path / "talk.jsonl"
    conversation().save(file)
    read = read_conversations(parse_sources([str(file)]))
    assert [contents(c.messages) for c in read] == [
        ["one?", "a1", "two?", "a2"],
        ["one?", "b1", "two?", "b2"],
    ]


def test_one_row_becomes_the_history_of_all(tmp_path):
    file = tmp_path / "talk.jsonl"
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "r"}]
    file.write_text(json.dumps({"messages": messages}) + "\n")
    assert Conversation.load(file, ["a", "b"]).turns == [Turn("q", ["r", "r"], [None, None])]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([{"messages": []}] * 3, "holds 3 models' conversations, but 2 talk here"),
        ([{"messages": "x"}], "'messages' must be a list"),
        ([{"messages": [{"role": "assistant", "content": "x"}]}], "must take turns"),
        (
            [
                {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": ""}]}
                for q in "pq"
            ],
            "different questions",
        ),
    ],
)
def test_files_that_do_not_fit(tmp_path, rows, complaint):
    file = tmp_path / "talk.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(UserError, match=complaint):
        Conversation.load(file, ["a", "b"])


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        Conversation.load(tmp_path / "none", ["a"])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        conversation().save(tmp_path / "file" / "talk.jsonl")


SAID = conversation("S").messages(0, "three?")
TEMPLATE = Template(byte_tokenizer())
WHOLE = len(TEMPLATE.encode_prompt(SAID))


@pytest.mark.parametrize(
    ("context", "longest", "left_out", "room"),
    [
        (None, 99, 0, 99),
        (WHOLE + 20, 20, 0, 20),
        (WHOLE + 19, 20, 1, 20),  # a turn left out gives back more than its share
        (2 * WHOLE, 10_000, 0, WHOLE),  # half of the context is kept free, and no more
    ],
)
def test_the_oldest_turns_are_left_out(context, longest, left_out, room):
    fitted = fit(SAID, TEMPLATE, context, longest)
    assert fitted.left_out == left_out and fitted.room == room
    assert contents(fitted.messages) == ["S", *contents(SAID)[1 + 2 * left_out :]]
    assert fitted.ids == TEMPLATE.encode_prompt(fitted.messages)


def test_a_long_question_leaves_the_rest_to_the_answer():
    alone = [Message("user", "x" * 50)]
    size = len(TEMPLATE.encode_prompt(alone))
    fitted = fit([*SAID[1:-1], *alone], TEMPLATE, size + 3, 64)
    assert fitted.left_out == 2 and fitted.room == 3
    with pytest.raises(UserError, match=f"takes {size} tokens, but the model sees {size}"):
        fit(alone, TEMPLATE, size, 64)
