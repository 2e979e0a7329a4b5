"""Argilla's ranking records, in the four ways in which its clients export them."""

from collections import Counter

import pytest

from common.data.argilla import NO_RANKS, NO_STATUS, argilla_orders, is_argilla
from common.data.labeled import NOT_RANKED, Hints
from common.data.records import Message
from common.errors import UserError
from tests.common.data.foreign_rows import (
    FIELDS,
    TEXTS,
    data_set_row_1,
    flat_record_2,
    ranks,
    record_1,
    record_2,
)


def read(row, hints=Hints(), columns=None, left_out=None, remarks=None):  # noqa: B008
    left_out = Counter() if left_out is None else left_out
    remarks = Counter() if remarks is None else remarks
    return argilla_orders(row, columns or {}, "f:1", hints, left_out, remarks)


TIED = ranks(reply_1=2, reply_2=1, reply_3=2)
STRICT = ranks(reply_3=1, reply_1=2, reply_2=3)


@pytest.mark.parametrize("form", [record_1, data_set_row_1, flat_record_2])
def test_several_users_ties_and_status(form):
    left_out, remarks = Counter(), Counter()
    row = form(
        ("u1", TIED, "submitted"),
        ("u2", STRICT, "submitted"),
        ("u3", STRICT, "discarded"),
        ("u4", TIED, "draft"),
    )
    assert is_argilla(row)
    found = read(row, left_out=left_out, remarks=remarks)
    assert [(x.labeler, x.order) for x in found] == [
        ("argilla:u1", [1, [0, 2]]),
        ("argilla:u2", [2, 0, 1]),
    ]
    assert all(list(x.responses) == TEXTS for x in found)
    assert all(x.messages == (Message("user", "What is a function?"),) for x in found)
    assert left_out == {"discarded responses": 1, "drafts": 1} and not remarks


def test_argilla_2_has_lists_without_ranks_or_status_and_that_is_told():
    remarks = Counter()
    row = record_2(
        ("u1", ["reply-2", "reply-3", "reply-1"], ""), ("u2", ["reply-1", "reply-3"], "")
    )
    found = read(row, remarks=remarks)
    assert [x.order for x in found] == [[1, 2, 0], [0, 2]]
    assert remarks == {NO_RANKS: 2, NO_STATUS: 2}


def test_a_list_of_structs_as_datasets_keeps_it():
    value = {"rank": [2, 1, None], "value": ["reply-1", "reply-2", "reply-3"]}
    (found,) = read(data_set_row_1(("u1", value, "submitted")))
    assert found.order == [1, 0]  # without a rank: not ranked


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (["response_1", "response_2"], ["response_1", "response_2"]),
        (["Response 1", "Response 2"], ["response-1", "response-2"]),
        (["Response 1", "Response 2"], ["1", "2"]),
        (["response-01", "response-02"], ["1", "2"]),
        (["left", "right"], ["Left", "RIGHT"]),
    ],
)
def test_values_name_fields(names, values):
    fields = {"prompt": "q", names[0]: "one", names[1]: "two"}
    value = [{"value": values[1], "rank": 1}, {"value": values[0], "rank": 2}]
    (found,) = read(record_1(("u", value, "submitted"), fields=fields))
    assert [found.responses[i] for i in found.order] == ["two", "one"]


def test_fields_that_hold_the_responses_can_be_named():
    fields = {"prompt": "q", "golden 1": "g", "reply 1": "one", "reply 2": "two"}
    row = record_1(("u", [{"value": "1", "rank": 2}, {"value": "2", "rank": 1}], "submitted"))
    row["fields"] = fields
    with pytest.raises(UserError, match="name none of the fields .* --response_fields"):
        read(row)
    fields_named = Hints(response_fields=("reply 1", "reply 2"))
    row["fields"] = {"golden 1": "g", "reply 1": "one", "reply 2": "two", "prompt": "q"}
    (found,) = read(row, fields_named)
    assert found.order == [1, 0] and found.responses == ("one", "two")


def test_a_response_that_nobody_ranked_stays_a_response():
    (found,) = read(record_1(("u", ranks(reply_1=2, reply_3=1), "submitted")))
    assert list(found.responses) == TEXTS and found.order == [2, 0]


def test_the_prompt_is_the_field_that_is_left_or_is_named():
    replies = {k: v for k, v in FIELDS.items() if k != "prompt"}
    (found,) = read(record_1(("u", STRICT, "submitted"), fields={"ask": "q", **replies}))
    assert found.messages == (Message("user", "q"),)
    fields = {"ask": "q", "context": "c", **replies}
    row = record_1(("u", STRICT, "submitted"), fields=fields)
    with pytest.raises(UserError, match=r"which field is the prompt \(ask, context\)"):
        read(row)
    (found,) = read(row, columns={"prompt": "ask"})
    assert found.messages == (Message("user", "q"),)


def test_a_chat_is_a_prompt():
    chat = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    fields = {"chat": chat, **{k: v for k, v in FIELDS.items() if k != "prompt"}}
    (found,) = read(record_1(("u", STRICT, "submitted"), fields=fields))
    assert found.messages == (Message("system", "s"), Message("user", "q"))


def test_one_of_several_ranking_questions():
    row = record_2(("u", ["reply-2", "reply-1"], ""))
    row["responses"]["style"] = [{"value": ["reply-1", "reply-2"], "user_id": "u"}]
    with pytest.raises(UserError, match=r"several questions rank the fields \(order, style\)"):
        read(row)
    (found,) = read(row, Hints(question="style"))
    assert found.order == [0, 1]
    with pytest.raises(UserError, match="no question 'taste'; answered here: order, why"):
        read(row, Hints(question="taste"))


@pytest.mark.parametrize("form", [record_1, record_2, flat_record_2])
def test_records_that_nobody_ranked_are_counted(form):
    left_out = Counter()
    assert read(form(), left_out=left_out) == []
    assert left_out == {"records without a submitted ranking": 1}


@pytest.mark.parametrize("question", ["", "order"])
def test_discarded_responses_without_values_are_counted(question):
    empty = [{"user_id": "u", "status": s, "values": {}} for s in ("discarded", "draft")]
    other = {"user_id": "w", "status": "discarded", "values": {"why": {"value": "so"}}}
    row, left_out = record_1(("v", STRICT, "submitted"), ("x", STRICT, "discarded")), Counter()
    row["responses"] += [*empty, other]
    assert len(read(row, Hints(question=question), left_out=left_out)) == 1
    assert left_out == {"discarded responses": 3, "drafts": 1}
    row, left_out = record_1(), Counter()
    row["responses"] = [*empty]
    assert read(row, Hints(question=question), left_out=left_out) == []
    assert left_out == {
        "discarded responses": 1,
        "drafts": 1,
        "records without a submitted ranking": 1,
    }


def test_rankings_that_say_nothing_are_counted():
    left_out = Counter()
    one = ranks(reply_1=1, reply_2=None)
    assert read(record_1(("u", one, "submitted")), left_out=left_out) == []
    assert left_out == {NOT_RANKED: 1}


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (ranks(reply_1=1, gone=2), "the value 'gone', which names none of the fields"),
        (ranks(reply_1=1.5, reply_2=2), "a rank must be a whole number"),
        (ranks(reply_1=True, reply_2=2), "a rank must be a whole number"),
        ([*ranks(reply_1=1), *ranks(reply_1=2)], "an answer ranks 'reply-1' twice"),
        ("reply-1", "an answer must be a list, not a string"),
        ([], "an answer must be a list"),
        ([{"rank": 1}, {"rank": 2}], "an answer must hold {value, rank}"),
    ],
)
def test_a_bad_answer_is_named(value, said):
    with pytest.raises(UserError) as caught:
        read(record_1(("u", value, "submitted")), Hints(question="order"))
    assert str(caught.value).startswith("f:1: question 'order'") and said in str(caught.value)


def test_a_malformed_ranking_is_told_without_naming_its_question():
    """And not taken for some other question's answer, which would lose it without a word."""
    twice = [*ranks(reply_1=1), *ranks(reply_1=2)]
    with pytest.raises(UserError, match="an answer ranks 'reply-1' twice"):
        read(record_1(("u", twice, "submitted")))
    good = ranks(reply_1=1, reply_2=2, reply_3=3)
    for bad in (twice, []):
        with pytest.raises(UserError, match="question 'order': an answer"):
            read(record_1(("u", bad, "submitted"), ("v", good, "submitted")))


@pytest.mark.parametrize("form", [record_1, data_set_row_1, flat_record_2])
def test_who_left_the_question_open_hides_nobodys_ranking(form):
    left_out = Counter()
    good = ranks(reply_1=1, reply_2=2, reply_3=2)
    (found,) = read(form(("u", None, "submitted"), ("v", good, "submitted")), left_out=left_out)
    assert (found.labeler, found.order) == ("argilla:v", [0, [1, 2]])
    assert left_out == {NOT_RANKED: 1}


def test_ranks_out_of_a_table_are_numbers_with_a_point():
    value = ranks(reply_1=2.0, reply_2=1.0, reply_3=float("nan"))
    (found,) = read(record_1(("u", value, "submitted")))
    assert found.order == [1, 0]


def test_a_bad_record_is_named():
    with pytest.raises(UserError, match="f:1: question 'order' has the unknown status 'done'"):
        read(record_1(("u", STRICT, "done")))
    row = flat_record_2(("u", STRICT, "submitted")) | {"order.responses.users": ["u", "v"]}
    with pytest.raises(UserError, match="f:1: fields 'order.responses', .* of the same length"):
        read(row)
    row = record_1(("u", STRICT, "submitted"), fields={**FIELDS, "reply_2": 3})
    with pytest.raises(UserError, match="the value 'reply-2'"):
        read(row, Hints(question="order"))


def test_records_are_told_from_other_rows():
    assert is_argilla(flat_record_2()) and is_argilla(record_1())
    assert not is_argilla({"prompt": "q", "responses": ["a", "b"], "orders": [[0, 1]]})
    assert not is_argilla({"data": {}, "annotations": []})
