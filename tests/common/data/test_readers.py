"""Rows and the places they stand at, in every type of file, written here byte by byte."""

import json

import datasets
import pytest

from common.data.readers import read_rows
from common.data.sources import DataSource
from common.errors import UserError


def rows_of(path, **options):
    return list(read_rows(DataSource(str(path), **options)))


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines_of(path, **options):
    return [int(origin.rsplit(":", 1)[1]) for origin, _ in rows_of(path, **options)]


def test_json_lines_name_their_line_past_empty_ones(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"prompt": "one"}\n\n  \n{"prompt": "tw\u2028o"}\r\n')
    assert rows_of(file) == [
        (f"{file}:1", {"prompt": "one"}),
        (f"{file}:4", {"prompt": "tw\u2028o"}),
    ]


def test_bare_strings_are_texts(tmp_path):
    file = write(tmp_path / "a.jsonl", '"first"\n"second"\n')
    assert [row for _, row in rows_of(file)] == [{"text": "first"}, {"text": "second"}]


def test_an_array_names_the_line_at_which_each_object_begins(tmp_path):
    text = '\n[\n  {"a": "x\\ny"},\n\n  {\n    "a": [1,\n 2]\n  }, {"a": 3}\n]\n'
    file = write(tmp_path / "a.json", text)
    assert lines_of(file) == [3, 5, 8]
    assert [row for _, row in rows_of(file)] == json.loads(text)


@pytest.mark.parametrize("rows", [[], [{"a": 1}], [{"a": "]"}, {"a": ","}, {"b": {"c": [[]]}}]])
@pytest.mark.parametrize("indent", [None, 3])
def test_an_array_holds_what_json_says_it_holds(tmp_path, rows, indent):
    file = write(tmp_path / "a.json", json.dumps(rows, indent=indent))
    assert [row for _, row in rows_of(file)] == rows


def test_the_content_tells_an_array_from_lines_not_the_name(tmp_path):
    assert lines_of(write(tmp_path / "array.jsonl", '[{"a": 1},\n{"a": 2}]')) == [1, 2]
    assert lines_of(write(tmp_path / "lines.json", '{"a": 1}\n{"a": 2}')) == [1, 2]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path, name):
    content = {"a.jsonl": '{"prompt": "x"}', "a.json": '[{"prompt": "x"}]', "a.csv": "prompt\nx\n"}
    file = write(tmp_path / name, b"\xef\xbb\xbf" + content[name].encode())
    assert [row for _, row in rows_of(file)] == [{"prompt": "x"}]


def test_csv_names_the_line_of_a_row_behind_cells_of_several_lines(tmp_path):
    text = 'prompt,completion\n"a\nb","say ""hi"", then"\nc,d\n\n"e\n\nf",g\nh,\n'
    file = write(tmp_path / "a.csv", text)
    assert rows_of(file) == [
        (f"{file}:2", {"prompt": "a\nb", "completion": 'say "hi", then'}),
        (f"{file}:4", {"prompt": "c", "completion": "d"}),
        (f"{file}:6", {"prompt": "e\n\nf", "completion": "g"}),
        (f"{file}:9", {"prompt": "h", "completion": ""}),
    ]


def test_csv_takes_a_cell_longer_than_the_csv_modules_default(tmp_path):
    long = "x" * 200_000
    assert rows_of(write(tmp_path / "a.csv", f"prompt\n{long}\n"))[0][1] == {"prompt": long}


def test_csv_cells_of_structured_columns_hold_json(tmp_path):
    file = write(
        tmp_path / "a.csv", 'prompt,responses,facts\n[x],"[""a"", ""b""]",\n{y},[],"{""k"": 1}"\n'
    )
    assert [row for _, row in rows_of(file)] == [
        {"prompt": "[x]", "responses": ["a", "b"]},
        {"prompt": "{y}", "responses": [], "facts": {"k": 1}},
    ]


def test_csv_cells_of_numbers_and_labelers_hold_json_or_text(tmp_path):
    """Pairs with their numbers can be kept as CSV; what is no JSON is told by who needs it."""
    file = write(
        tmp_path / "a.csv",
        'prompt,labelers,gap,margin\n1,"[""ann""]",1.5,\n2,simulated,wide,0\n',
    )
    assert [row for _, row in rows_of(file)] == [
        {"prompt": "1", "labelers": ["ann"], "gap": 1.5},
        {"prompt": "2", "labelers": "simulated", "gap": "wide", "margin": 0},
    ]


def test_parquet_numbers_its_rows_and_leaves_no_cache(tmp_path, monkeypatch):
    rows = [
        {"prompt": "p", "responses": ["a", "b"], "orders": [[1, 0]]},
        {"prompt": "q", "responses": ["c"], "orders": [[0]]},
    ]
    file = tmp_path / "a.parquet"
    datasets.Dataset.from_list(rows).to_parquet(file)
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(cache))
    assert rows_of(file) == [(f"{file}[0]", rows[0]), (f"{file}[1]", rows[1])]
    assert list(cache.iterdir()) == []


def test_parquets_padding_is_no_column_of_a_row(tmp_path):
    rows = [{"prompt": "p", "completion": "c"}, {"instruction": "i", "output": "o"}]
    padded = [dict.fromkeys(rows[0] | rows[1]) | row for row in rows]
    datasets.Dataset.from_list(padded).to_parquet(tmp_path / "a.parquet")
    assert [row for _, row in rows_of(tmp_path / "a.parquet")] == rows


@pytest.mark.parametrize("error", [NotImplementedError("no\nsuch type"), KeyError("no"), OSError()])
def test_whatever_arrow_raises_is_told_with_the_file(tmp_path, monkeypatch, error):
    def load_dataset(*args, **kwargs):
        raise error

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    file = write(tmp_path / "a.parquet", "")
    with pytest.raises(UserError, match=r"a\.parquet: not a valid Parquet file: \S+"):
        rows_of(file)


def test_a_name_that_is_no_file_is_looked_for_on_the_hub(monkeypatch):
    asked = []

    def load_dataset(name, split):
        asked.append((name, split))
        return datasets.Dataset.from_dict({"question": ["a", "b", "c"]})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = rows_of("owner/name", split="test", limit=2, columns={"prompt": "question"})
    assert rows == [("owner/name[0]", {"prompt": "a"}), ("owner/name[1]", {"prompt": "b"})]
    assert asked == [("owner/name", "test")]


def test_the_progress_bars_of_datasets_are_as_before(tmp_path):
    file = tmp_path / "a.parquet"
    datasets.Dataset.from_dict({"prompt": ["x"]}).to_parquet(file)
    datasets.enable_progress_bars()
    rows_of(file)
    assert datasets.is_progress_bar_enabled()


def test_columns_rename_and_replace_ours(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"question": "q", "prompt": "old", "id": 3}\n')
    assert rows_of(file, columns={"prompt": "question", "input": "context"}) == [
        (f"{file}:1", {"id": 3, "prompt": "q"})
    ]


def test_columns_can_swap_two_names(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"chosen": "bad", "rejected": "good"}\n')
    swap = {"chosen": "rejected", "rejected": "chosen"}
    assert rows_of(file, columns=swap)[0][1] == {"chosen": "good", "rejected": "bad"}


def test_limit_stops_before_later_rows_are_looked_at(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"a": 1}\n{"a": 2}\n{broken\n')
    assert lines_of(file, limit=2) == [1, 2]


def test_limit_may_be_any_number(tmp_path):
    assert lines_of(write(tmp_path / "a.jsonl", '{"a": 1}\n'), limit=2**80) == [1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": }\n', [":2:", "column 7", "broken JSON"]),
        ("a.jsonl", '{\n  "a": 1\n}\n', [":1:", "on one line"]),
        ("a.jsonl", '{"a": 1}\n[1]\n', [":2:", "must be an object, not a list"]),
        ("a.jsonl", '{"a": 1}\nnull\n', [":2:", "not null"]),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "[" * 100_000, [":2:"]),
        ("a.jsonl", '{"a": 1}\n{"a": ' + "9" * 5000 + "}", [":2:", "too many digits"]),
        ("a.jsonl", '{"a": 1}\n{"b": 1, "a": 2, "a": 3}', [":2:", "field 'a' is given twice"]),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xe9"}\n', [":2:", "not UTF-8", "0xe9"]),
        ("a.json", '[\n{"a": 1},\n{"a" 2}\n]', [":3:", "column 6", "broken JSON"]),
        ("a.json", '[\n{"a": 1}\n{"a": 2}\n]', [":3:", "column 1", "expected ','"]),
        ("a.json", '[\n{"a": 1},\n]', [":3:", "broken JSON"]),
        ("a.json", '[\n{"a": 1}', [":2:", "column 9"]),
        ("a.json", '[{"a": 1}]\n x', [":2:", "column 2", "after the end"]),
        ("a.json", '[\n{"a": 1},\n{"a": ' + "9" * 5000 + "}]", [":3:", "too many digits"]),
        ("a.json", '[\n{"a": {"b": 1, "b": 1}}]', [":2:", "field 'b' is given twice"]),
        ("a.json", '[{"a": 1},\n 5]', [":2:", "not a number"]),
        ("a.json", b'[\n{"a": 1},\n{"a": "\xff"}]', [":3:", "not UTF-8"]),
        ("a.csv", "a,b\n1,2\n1,2,3\n", [":3:", "3 cells", "header has 2"]),
        ("a.csv", 'a,b\n1,"2\n', [":2:", "broken CSV"]),
        ("a.csv", "a,a\n1,2\n", [":1:", "header"]),
        ("a.csv", b"a\nx\n\xe9\n", [":3:", "not UTF-8"]),
        ("a.csv", "prompt,orders\nx,1>2\n", [":2:", "'orders'", "JSON"]),
        ("a.parquet", "not parquet", ["a.parquet", "Parquet"]),
        ("a.txt", "x", ["a.txt", "unknown type", ".jsonl"]),
    ],
)
def test_what_is_broken_is_named_with_its_place(tmp_path, name, content, words):
    file = write(tmp_path / name, content)
    with pytest.raises(UserError) as caught:
        rows_of(file)
    for word in [str(file), *words]:
        assert word in str(caught.value)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"nothing\.jsonl: no such file"):
        rows_of("nothing.jsonl")
    with pytest.raises(UserError, match=r"~nobody/a\.csv: no such file"):
        rows_of("~nobody/a.csv")
    with pytest.raises(UserError, match="is a folder"):
        rows_of(tmp_path)


def test_a_name_that_the_hub_does_not_know_is_an_error(monkeypatch):
    def load_dataset(name, split):
        raise ConnectionError(f"no {name}\nand more")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError, match="owner/name: no such file.*split 'train'.*no owner/name$"):
        rows_of("owner/name")


def test_a_mapped_column_that_is_missing_is_named(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"q": "x", "other": 1}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:1: field 'query'.*'prompt'.*q, other"):
        rows_of(file, columns={"prompt": "query"})


def test_reading_goes_on_behind_a_row_that_is_reported(tmp_path):
    file = write(tmp_path / "a.jsonl", '{"a": 1}\n{bad\n7\n{"a": 2}\n')
    errors = []
    rows = list(read_rows(DataSource(str(file)), errors.append))
    assert [row["a"] for _, row in rows] == [1, 2]
    assert [str(e).removeprefix(str(file))[:3] for e in errors] == [":2:", ":3:"]
