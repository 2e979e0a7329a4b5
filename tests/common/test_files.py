"""Files that one stage writes and another reads."""

import pytest

from common.errors import UserError
from common.files import read_json_lines, write_json_lines


def test_written_rows_are_read_back(tmp_path):
    rows = [{"text": "a\u2028\r\n"}, {}]
    write_json_lines(tmp_path / "a.jsonl", rows)
    assert read_json_lines(tmp_path / "a.jsonl") == rows


@pytest.mark.parametrize(
    "line", [b"{", b"[1]", b'"x"', b'{"a": "\xff"}', b'{"a": ' + b"[" * 100_000]
)
def test_a_line_that_is_no_object_is_named(tmp_path, line):
    file = tmp_path / "a.jsonl"
    file.write_bytes(b"{}\r\n\n" + line + b"\n{}\n")
    with pytest.raises(UserError) as caught:
        read_json_lines(file)
    assert str(caught.value) == f"{file}:3: this line is not a JSON object"
