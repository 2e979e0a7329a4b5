"""Files made elsewhere: every form of one export gives the same orders, bad rows are named."""

import json

import pytest

from common.data.imports import read_labeled
from common.data.labeled import Hints
from common.data.sources import parse_sources
from common.errors import UserError
from tests.common.data.foreign_rows import (
    TEXTS,
    annotation,
    data_set_row_1,
    flat_record_2,
    ranker,
    ranks,
    record_1,
    record_2,
    task,
)

STRICT = ranks(reply_3=1, reply_1=2, reply_2=3)
ANSWERS = ("u1", STRICT, "submitted"), ("u2", ["reply-2", "reply-1"], "submitted")
RECORDS = [record_2(*ANSWERS), record_2(*ANSWERS[:1])]
FLAT = [flat_record_2(*ANSWERS), flat_record_2(*ANSWERS[:1])]


def columns_of(records):
    """Argilla's `to_dict(orient="names")`: a list per column."""
    return {name: [r[name] for r in records] for name in records[0]}


def write(tmp_path, content, name):
    file = tmp_path / name
    file.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return str(file)


def read(*files, hints=None):
    return read_labeled(parse_sources(list(files)), hints)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (RECORDS, "list.json"),
        (columns_of(RECORDS), "names.json"),
        ({"a": RECORDS[0], "b": RECORDS[1]}, "index.json"),
        ("".join(json.dumps(r) + "\n" for r in RECORDS), "lines.jsonl"),
        ("".join(json.dumps(r) + "\n" for r in RECORDS), "lines.json"),
        (FLAT, "flat_list.json"),
        (columns_of(FLAT), "flat_names.json"),
        ([record_1(*ANSWERS), record_1(*ANSWERS[:1])], "list_1.json"),
        ([data_set_row_1(*ANSWERS), data_set_row_1(*ANSWERS[:1])], "data_set_1.json"),
    ],
)
def test_every_form_of_argillas_export_gives_the_same(tmp_path, content, name):
    found = read(write(tmp_path, content, name)).items
    assert [(x.labeler, x.order, list(x.responses)) for x in found] == [
        ("argilla:u1", [2, 0, 1], TEXTS),
        ("argilla:u2", [1, 0], TEXTS),
        ("argilla:u1", [2, 0, 1], TEXTS),
    ]


def test_argillas_data_sets_as_parquet(tmp_path):
    """`to_datasets().to_parquet()` pads and turns lists of structs around."""
    import datasets

    rows = [
        flat_record_2(("u1", ["reply-3", "reply-1"], "submitted"), ("u2", ["reply-1"], "draft")),
        flat_record_2(),
    ]
    file = str(tmp_path / "records.parquet")
    datasets.Dataset.from_dict(columns_of(rows)).to_parquet(file)
    found = read(file)
    assert [(x.labeler, x.order) for x in found.items] == [("argilla:u1", [2, 0])]
    assert found.left_out == {"drafts": 1, "records without a submitted ranking": 1}


def test_buckets_and_questions_that_do_not_occur_are_refused(tmp_path):
    rows = [task(annotation(ranker({"good": ["mdn"], "bad": ["blog"]})))]
    file, lists = write(tmp_path, rows, "a.json"), write(tmp_path, [ranked_task()], "b.json")
    named = Hints(buckets=("good", "fair", "bad"))
    with pytest.raises(UserError, match="names 'fair', which is in no row; .*: bad, good$"):
        read(file, lists, hints=named)
    rows.append(task(annotation(ranker({"good": ["mdn"], "fair": ["blog"]}))))
    assert len(read(write(tmp_path, rows, "c.json"), hints=named).items) == 2
    with pytest.raises(UserError, match=r"b\.json: no annotation has a ranking 'nope'.*: rank$"):
        read(file, lists, hints=Hints(buckets=("good", "bad"), question="nope"))
    found = read(file, lists, hints=Hints(buckets=("good", "bad"), question="rank"))
    assert [x.order for x in found.items] == [[1, 0], [1, 0]]


def test_the_same_error_in_every_row_is_told_once_with_a_count(tmp_path):
    rows = [task(annotation(ranker({"good": ["mdn"]})))] * 30  # on one line
    with pytest.raises(UserError) as caught:
        read(write(tmp_path, json.dumps(rows), "a.json"))
    (line,) = str(caught.value).splitlines()
    assert "has the buckets good" in line and line.endswith("the best first (30 times)")
    plain = {"prompt": "q", "responses": ["a", "b"], "orders": [[0, 5]]}
    with pytest.raises(UserError) as caught:
        read(write(tmp_path, [plain] * 30, "b.jsonl"))
    *places, last = str(caught.value).splitlines()
    assert len(places) == 5 and last == "(30 problems in all, the first 5 are shown)"


def ranked_task():
    return task(annotation(ranker({"rank": ["mdn", "blog"]})))


def test_a_single_task_and_a_single_record(tmp_path):
    one = task(annotation(ranker({"rank": ["mdn", "blog"]})))
    assert [x.order for x in read(write(tmp_path, one, "task.json")).items] == [[1, 0]]
    record = record_1(*ANSWERS[:1])
    assert [x.order for x in read(write(tmp_path, record, "one.json")).items] == [[2, 0, 1]]


def test_several_files_in_several_layouts(tmp_path):
    plain = {"prompt": "q", "responses": ["a", "b"], "orders": [[1, 0]]}
    mapped = {"question": "q", "answers": ["a", "b"], "orders": [[0, 1]], "responses": None}
    files = [
        write(tmp_path, [task(annotation(ranker({"rank": ["mdn", "blog"]})))], "studio.json"),
        write(tmp_path, RECORDS[:1], "argilla.json"),
        write(tmp_path, json.dumps(plain) + "\n", "plain.jsonl"),
    ]
    found = read(*files, hints=Hints(labeler=""))
    names = ["label_studio:1", "argilla:u1", "argilla:u2", "plain:1"]
    assert [x.labeler for x in found.items] == names
    assert read(files[2], hints=Hints(labeler="me")).items[0].labeler == "me:1"
    del mapped["responses"]
    source = {
        "path": write(tmp_path, json.dumps(mapped) + "\n", "mapped.jsonl"),
        "columns": {"prompt": "question", "responses": "answers"},
    }
    (item,) = read(source).items
    assert item.order == [0, 1] and item.messages[0].content == "q"
    asked = {"ask": "q", "responses": ["a", "b"], "orders": [[1, 0]]}  # the prompt's name alone
    source = {"path": write(tmp_path, [asked], "asked.json"), "columns": {"prompt": "ask"}}
    (item,) = read(source).items
    assert item.order == [1, 0] and item.messages[0].content == "q"


def test_bad_rows_are_told_together_with_file_row_and_field(tmp_path):
    good = task(annotation(ranker({"rank": ["mdn", "blog"]})))
    bad = task(annotation(ranker({"rank": ["mdn", "gone"]})))
    studio = tmp_path / "studio.json"
    studio.write_text("[\n" + ",\n".join(map(json.dumps, [good, bad, bad])) + "\n]")
    plain = tmp_path / "plain.jsonl"
    plain.write_text('{"prompt": "q", "responses": ["a", "b"], "orders": [[0, 2]]}\n{"x": \n')
    with pytest.raises(UserError) as caught:
        read(str(studio), str(plain))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(f"{studio}:3: field 'annotations[0].result': item 'gone'")
    assert lines[1].startswith(f"{studio}:4: ")
    assert lines[2].startswith(f"{plain}:1: field 'orders[0]' has the index 2")
    assert lines[3].startswith(f"{plain}:2: broken JSON")


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        ("", "empty.jsonl", "the file is empty"),
        ("[]", "none.json", "the file is empty"),
        ('[{"question": "q", "answer": "a"}]', "other.json", "no known layout of labelers'"),
        ('{"a": 1}', "object.json", "no known layout of labelers'"),
        ("[1, 2]", "numbers.json", "a row must be an object, not a number"),
        ("{", "broken.json", "broken JSON"),
    ],
)
def test_files_that_hold_no_rankings(tmp_path, content, name, said):
    file = write(tmp_path, content, name)
    with pytest.raises(UserError) as caught:
        read(file)
    assert str(caught.value).startswith(file) and said in str(caught.value)
    with pytest.raises(UserError, match="no such file"):
        read(str(tmp_path / "gone.jsonl"))
