"""Each layout of conversations and prompts, and each mistake in one, by file, line and field."""

import json

import pytest

from common.data.layouts import read_conversations, read_prompts
from common.data.records import Message, prompt_key
from common.data.sources import DataSource
from common.errors import UserError

S, U, A = "system", "user", "assistant"


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def read(tmp_path):
    """Reads one row and gives back [(role, content), …]."""

    def read(reader, row, **options):
        file = write(tmp_path / "a.jsonl", row)
        (record,) = reader([DataSource(str(file), **options)])
        assert record.origin == f"{file}:1"
        return [(m.role, m.content) for m in record.messages]

    return read


def message(role, content):
    return {"role": role, "content": content}


def turn(speaker, value):
    return {"from": speaker, "value": value}


def node(role, text, replies=(), **more):
    return {"role": role, "text": text, "replies": list(replies), **more}


TREE = node(
    "prompter",
    "root",
    [
        node("assistant", "second best", rank=1),
        node(
            "assistant",
            "best",
            [
                node("prompter", "go on", [node("assistant", "the end")]),
                node("prompter", "also", []),
            ],
            rank=0,
        ),
        node("assistant", "not ranked", rank=None),
        node("assistant", "deleted", rank=-1, deleted=True),
    ],
)

CONVERSATIONS = {
    "messages": (
        {"messages": [message(S, "s"), message(U, "u"), message(A, "a")]},
        [(S, "s"), (U, "u"), (A, "a")],
    ),
    "several turns": (
        {"messages": [message(U, "1"), message(A, "2"), message(U, "3"), message(A, "4")]},
        [(U, "1"), (A, "2"), (U, "3"), (A, "4")],
    ),
    "prompt and completion": ({"prompt": "p", "completion": "c"}, [(U, "p"), (A, "c")]),
    "prompt and completion as messages": (
        {"prompt": [message(S, "s"), message(U, "p")], "completion": [message(A, "c")]},
        [(S, "s"), (U, "p"), (A, "c")],
    ),
    "Alpaca": ({"instruction": "do", "input": "", "output": "done"}, [(U, "do"), (A, "done")]),
    "Alpaca with all columns": (
        {
            "system": "s",
            "history": [["h1", "h2"], ["h3", "h4"]],
            "instruction": "do",
            "input": "it",
            "output": "done",
        },
        [(S, "s"), (U, "h1"), (A, "h2"), (U, "h3"), (A, "h4"), (U, "do\nit"), (A, "done")],
    ),
    "ShareGPT": (
        {"conversations": [turn("system", ""), turn("human", "u"), turn("gpt", "a")]},
        [(U, "u"), (A, "a")],
    ),
    "messages that Parquet padded": (
        {"messages": [{**message(U, "u"), "from": None}, {**message(A, "a"), "from": None}]},
        [(U, "u"), (A, "a")],
    ),
    "tree": ({"message_tree_id": "x", "prompt": TREE}, [(U, "root"), (A, "best"), (U, "go on")]),
    "tree without a wrapper": (TREE, [(U, "root"), (A, "best"), (U, "go on")]),
}
for _name in ("tree", "tree without a wrapper"):
    CONVERSATIONS[_name][1].append((A, "the end"))


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_conversations(read, name):
    row, expected = CONVERSATIONS[name]
    assert read(read_conversations, row) == expected


def test_a_tree_path_that_ends_with_the_user_ends_one_message_before(read):
    row = node("prompter", "q", [node("assistant", "a", [node("prompter", "thanks")])])
    assert read(read_conversations, row) == [(U, "q"), (A, "a")]


PROMPTS = {
    "prompt": ({"prompt": "p", "completion": "c"}, [(U, "p")]),
    "prompt as messages": ({"prompt": [message(U, "p")]}, [(U, "p")]),
    "system column": ({"system": "s", "prompt": "p"}, [(S, "s"), (U, "p")]),
    "messages without the last answer": (
        {"messages": [message(U, "1"), message(A, "2"), message(U, "3"), message(A, "4")]},
        [(U, "1"), (A, "2"), (U, "3")],
    ),
    "ShareGPT": (
        {"conversations": [turn("human", "1"), turn("gpt", "2"), turn("human", "3")]},
        [(U, "1"), (A, "2"), (U, "3")],
    ),
    "instruction and input": ({"instruction": "do", "input": "it"}, [(U, "do\nit")]),
    "seed task": (
        {"instruction": "do", "instances": [{"input": "it", "output": "done"}, {"input": "no"}]},
        [(U, "do\nit")],
    ),
    "question": ({"question": "q", "answer": "a"}, [(U, "q")]),
    "text": ({"text": "t", "category": "c"}, [(U, "t")]),
    "turns": ({"turns": ["one", "two"], "reference": ["x"]}, [(U, "one")]),
    "bare string": ("hello", [(U, "hello")]),
    "tree": ({"prompt": TREE}, [(U, "root")]),
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts(read, name):
    row, expected = PROMPTS[name]
    assert read(read_prompts, row) == expected


def test_columns_give_other_names_to_a_layout(read):
    columns = {"prompt": "query", "completion": "reply"}
    row = {"query": "q", "reply": "r", "messages_count": 2}
    assert read(read_conversations, row, columns=columns) == [(U, "q"), (A, "r")]


def test_facts_are_passed_through(tmp_path):
    facts = {"label": "fraud", "parts": [1, None]}
    file = write(tmp_path / "a.jsonl", {"prompt": "p", "completion": "c", "facts": facts})
    assert read_conversations([DataSource(str(file))])[0].facts == facts
    assert read_prompts([DataSource(str(file))])[0].facts == facts


def test_sources_and_rows_keep_their_order(tmp_path):
    first = write(tmp_path / "1.jsonl", {"prompt": "a"}, {"prompt": "b"})
    second = write(tmp_path / "2.jsonl", {"text": "c"})
    prompts = read_prompts([DataSource(str(second)), DataSource(str(first))])
    assert [p.messages[0].content for p in prompts] == ["c", "a", "b"]


SFT_ERRORS = {
    "missing": ({"prompt": "p"}, "field 'completion' is missing"),
    "missing output": ({"instruction": "p"}, "field 'output' is missing"),
    "null": ({"prompt": None, "completion": "c"}, "field 'prompt' is missing"),
    "empty": ({"prompt": "p", "completion": " \n"}, "field 'completion' is empty"),
    "empty instruction": ({"instruction": "", "output": "x"}, "field 'instruction' is empty"),
    "number": ({"prompt": "p", "completion": 3}, "'completion' must be a string, not a number"),
    "list of outputs": (
        {"instruction": "p", "output": ["a", "b"]},
        "'output' must be a string, not a list",
    ),
    "no messages": ({"messages": []}, "field 'messages' is empty"),
    "messages no list": ({"messages": {}}, "field 'messages' must be a"),
    "message no object": ({"messages": ["hi"]}, "'messages[0]' must be an object, not a string"),
    "unknown role": (
        {"messages": [message("tool", "x")]},
        "'messages[0].role' is the unknown role 'tool'",
    ),
    "empty content": (
        {"messages": [message(U, "x"), message(A, "")]},
        "field 'messages[1].content' is empty",
    ),
    "no value": (
        {"conversations": [turn("human", "x"), {"from": "gpt"}]},
        "field 'conversations[1].value' is missing",
    ),
    "two of one kind": (
        {"messages": [message(U, "1"), message(U, "2"), message(A, "3")]},
        "'messages': message 2 is the user's where the assistant's turn is",
    ),
    "assistant first": (
        {"conversations": [turn("gpt", "1"), turn("human", "2"), turn("gpt", "3")]},
        "'conversations': message 1 is the assistant's where the user's turn is",
    ),
    "late system": (
        {"messages": [message(U, "1"), message(S, "2"), message(A, "3")]},
        "message 2 is the system's",
    ),
    "user last": ({"messages": [message(U, "1")]}, "'messages' must end with a message of the ass"),
    "only system": ({"messages": [message(S, "1")]}, "must end with a message of the assistant"),
    "history": (
        {"history": [["a"]], "instruction": "x", "output": "y"},
        "'history[0]' must be [instruction, response]",
    ),
    "history no list": (
        {"history": True, "instruction": "x", "output": "y"},
        "'history' must be a list, not a boolean",
    ),
    "only an empty system message": (
        {"messages": [message(S, "")], "system": "s"},
        "must end with a message of the assistant",
    ),
    "half a surrogate": ({"prompt": "\ud800", "completion": "c"}, "'prompt' holds half of a surr"),
    "facts": ({"prompt": "p", "completion": "c", "facts": 1}, "'facts' must be an object, not a"),
    "facts with half a surrogate": (
        {"prompt": "p", "completion": "c", "facts": {"a": ["\ud800"]}},
        "field 'facts' cannot be written as JSON",
    ),
    "tree role": (node("robot", "x"), "'role' is the unknown role 'robot'"),
    "tree text": (node("prompter", "x", [node("assistant", None)]), "'replies[0].text' is missing"),
    "tree out of turn": (node("prompter", "x", [node("prompter", "y")]), "'replies[0]': the user"),
    "tree with the system": (
        node("prompter", "x", [node("system", "y", [node("prompter", "z")])]),
        "'replies[0].role': a tree has no messages of the system",
    ),
    "tree rank NaN": (
        node("prompter", "x", [node("assistant", "y", rank=float("nan"))]),
        "'replies[0].rank' must be a number, not NaN",
    ),
    "tree rank": (
        node("prompter", "x", [node("assistant", "y", rank="best")]),
        "'replies[0].rank'",
    ),
    "tree replies": ({"prompt": {"role": "prompter", "text": "x", "replies": 1}}, "prompt.replies"),
}


@pytest.mark.parametrize("name", SFT_ERRORS)
def test_a_mistake_in_a_conversation_is_named(tmp_path, name):
    row, words = SFT_ERRORS[name]
    file = write(tmp_path / "a.jsonl", {"prompt": "fine", "completion": "fine"}, row)
    with pytest.raises(UserError) as caught:
        read_conversations([DataSource(str(file))])
    assert str(caught.value).startswith(f"{file}:2: ")
    assert words in str(caught.value)


PROMPT_ERRORS = {
    "empty": ({"prompt": ""}, "field 'prompt' is empty"),
    "null": ({"prompt": None}, "field 'prompt' is missing"),
    "empty string row": ("  ", "field 'text' is empty"),
    "no turn": ({"turns": []}, "field 'turns' is empty"),
    "empty turn": ({"turns": [""]}, "field 'turns[0]' is empty"),
    "assistant last": (
        {"prompt": [message(U, "1"), message(A, "2")]},
        "'prompt' must end with a message of the user",
    ),
    "input": ({"instruction": "x", "input": 5}, "'input' must be a string, not a number"),
    "only an empty system message": (
        {"messages": [message(S, "")]},
        "'messages' must end with a message of the user",
    ),
    "the same with a column": (
        {"prompt": [message(S, "")], "system": "s"},
        "'prompt' must end with a message of the user",
    ),
}


@pytest.mark.parametrize("name", PROMPT_ERRORS)
def test_a_mistake_in_a_prompt_is_named(tmp_path, name):
    row, words = PROMPT_ERRORS[name]
    file = write(tmp_path / "a.jsonl", {"prompt": "fine"}, row)
    with pytest.raises(UserError) as caught:
        read_prompts([DataSource(str(file))])
    assert str(caught.value).startswith(f"{file}:2: ")
    assert words in str(caught.value)


def test_an_unknown_layout_tells_the_columns_and_the_mapping_once(tmp_path):
    rows = [{"query": "q", "reply": "r"}] * 50
    file = write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(UserError) as caught:
        read_conversations([DataSource(str(file))])
    text = str(caught.value)
    assert f"{file}:1:" in text and "query, reply" in text
    assert "prompt + completion" in text and "columns:" in text
    assert text.count("query, reply") == 1


def test_text_alone_is_no_example_for_sft(tmp_path):
    file = write(tmp_path / "a.jsonl", {"text": "once upon a time"})
    with pytest.raises(UserError, match="no known layout of conversations"):
        read_conversations([DataSource(str(file))])


def test_five_problems_are_told_at_once_with_the_number_of_all(tmp_path):
    file = tmp_path / "a.jsonl"
    lines = ['{"prompt": ""}', "{broken", '{"prompt": "fine"}', *['{"prompt": 1}'] * 7]
    file.write_text("\n".join(lines))
    with pytest.raises(UserError) as caught:
        read_prompts([DataSource(str(file))])
    told = str(caught.value).splitlines()
    places = [line.removeprefix(f"{file}:").split(":")[0] for line in told[:-1]]
    assert places == ["1", "2", "4", "5", "6"]
    assert "9 problems in all" in told[-1]


def test_problems_of_several_files_are_told_together(tmp_path):
    first = write(tmp_path / "1.jsonl", {"prompt": ""})
    second = write(tmp_path / "2.jsonl", {"prompt": 1})
    with pytest.raises(UserError) as caught:
        read_prompts([DataSource(str(first)), DataSource(str(second))])
    assert f"{first}:1" in str(caught.value) and f"{second}:1" in str(caught.value)


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", ""), ("a.json", "[]"), ("a.csv", "q\n")])
def test_an_empty_data_set_is_an_error_also_beside_a_full_one(tmp_path, name, content):
    empty = tmp_path / name
    empty.write_text(content)
    full = write(tmp_path / "full.jsonl", {"prompt": "p"})
    with pytest.raises(UserError, match="the data set is empty"):
        read_prompts([DataSource(str(full)), DataSource(str(empty))])


def test_the_prompt_key_is_the_same_for_a_retyped_prompt():
    key = prompt_key([Message(U, "What is  Ａ fjord?\n")])
    assert key == prompt_key([Message(U, " what is A fjord?"), Message(A, "an answer")])
    assert key != prompt_key([Message(U, "what is a fjord")])
    assert key != prompt_key([Message(S, "be brief"), Message(U, "what is a fjord?")])
    # A later turn makes another prompt, and who says something matters.
    assert key != prompt_key(
        [Message(U, "what is a fjord?"), Message(A, "x"), Message(U, "what is a fjord?")]
    )
    one = prompt_key([Message(S, "a"), Message(U, "b")])
    assert one != prompt_key([Message(U, "a"), Message(A, "x"), Message(U, "b")])
