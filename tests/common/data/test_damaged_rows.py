"""Damaged files of data: each is read correctly, or refused by file and line, row or field.

The undamaged rows of a damaged file must come out as they do from a whole one, and no message may
blame them.
"""

import csv
import io
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.data.sources import COLUMNS
from common.errors import UserError
from common.files import read_json_lines
from tests.common.data.layout_rows import (
    KINDS,
    NAMES,
    PROMPTS,
    cells_of,
    check_record,
    check_source,
    read,
    records_of,
    without_origin,
    write_file,
)
from tests.damage import (
    ODD_TEXTS,
    ODD_VALUES,
    damaged,
    damaged_bytes,
    examples,
    place_in,
    with_odd_values,
)

IN_CSV = {
    "conversations": ("messages", "Alpaca", "ShareGPT", "prompt and completion"),
    "prompts": ("prompt", "messages", "instruction", "seed task", "question", "turns", "text"),
    "rankings": ("chosen and rejected", "dialogue text", "orders", "one order"),
    "probe": ("probe",),
}
"""Layouts without columns that hold text in one file and messages in another."""
EVERY_LAYOUT = [(kind, layout) for kind, layouts in KINDS.items() for layout in layouts]
WHOLE_FILE = "the data set is empty|not a valid Parquet file|there is not one (pair|row) in it"


def read_or_refuse(kind, path, **options):
    """The records, checked; or none, and a message that must name the file, and the line or row."""
    try:
        records = read(kind, path, **options)
    except UserError as error:
        message, file = str(error), re.escape(str(path))
        assert re.match(rf"{file}(:\d+|\[\d+\]): .|{file}: ({WHOLE_FILE})", message), message
        return [], message
    assert records
    for record in records:
        check_record(kind, record)
    return records, ""


def check_order(found, expected):
    """`expected` comes up in `found`, in this order, among others."""
    rest = iter(found)
    assert all(any(record == other for other in rest) for record in expected)


def check_undamaged(kind, path, whole):
    """Reads the file; rows at places in `whole`, {place: records}, must be read so, or not blamed.

    Gives back the records, none where the file was refused.
    """
    records, message = read_or_refuse(kind, path)
    if message:
        assert not [place for place in whole if f"{place}: " in message], message
    elif kind in ("pairs", "probe"):  # these name other origins, or none
        check_order(map(without_origin, records), [r for rs in whole.values() for r in rs])
    else:
        for place, expected in whole.items():
            assert [without_origin(r) for r in records if r.origin == place] == expected, place
    return records


def check_surrounded(kind, layout, path, middle):
    """Reads a file of these rows between two whole ones of the layout, and checks all of them."""
    rows = [KINDS[kind][layout](0), *middle, KINDS[kind][layout](1)]
    places = write_file(path, rows)
    first, last = (records_of(kind, layout, n, path.parent) for n in (0, 1))
    records = check_undamaged(kind, path, {places[0]: first, places[-1]: last})
    if kind not in ("pairs", "probe") and path.suffix != ".csv":  # where any value is a text
        for record in records:
            check_source(record, rows[places.index(record.origin)])


# JSON


@pytest.mark.parametrize("kind", KINDS)
@examples(30)
@given(data=st.data())
def test_any_value_at_any_place(kind, data, tmp_path):
    layout = data.draw(st.sampled_from([*KINDS[kind]]))
    row = KINDS[kind][layout](2)
    for worse in with_odd_values(row, data.draw(place_in(row))):
        check_surrounded(kind, layout, tmp_path / "damaged.jsonl", [worse])


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("kind", KINDS)
@examples(80)
@given(data=st.data())
def test_rows_and_fields_missing_renamed_and_copied(kind, ending, data, tmp_path):
    layout = data.draw(st.sampled_from([*KINDS[kind]]))
    worse = data.draw(damaged([KINDS[kind][layout](n) for n in (2, 3)], NAMES))
    if isinstance(worse, list):
        check_surrounded(kind, layout, tmp_path / f"damaged.{ending}", worse)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@examples(50)
@given(data=st.data())
def test_a_field_that_is_given_twice(ending, data, tmp_path):
    kind, layout = data.draw(st.sampled_from(EVERY_LAYOUT))
    rows = [KINDS[kind][layout](n) for n in range(3)]
    name = data.draw(st.sampled_from([*rows[1]]))
    path = tmp_path / f"damaged.{ending}"
    places = write_file(path, rows)
    again = f", {json.dumps(name)}: {json.dumps(data.draw(st.sampled_from(ODD_VALUES)))}}}"
    text = path.read_text()
    path.write_text(text.replace(line := json.dumps(rows[1]), line[:-1] + again))
    _, message = read_or_refuse(kind, path)
    assert message == f"{places[1]}: field '{name}' is given twice"


@pytest.mark.parametrize("ending", ["jsonl", "json"])
@pytest.mark.parametrize("kind", KINDS)
@examples(80)
@given(data=st.data())
def test_damaged_bytes_of_json(kind, ending, data, tmp_path):
    layouts = [*KINDS[kind]][-4:]
    path = tmp_path / f"damaged.{ending}"
    places = write_file(path, [KINDS[kind][layout](n) for n, layout in enumerate(layouts)])
    before = path.read_bytes().split(b"\n")
    numbers = {before[int(p.rsplit(":", 1)[1]) - 1].rstrip(b","): n for n, p in enumerate(places)}
    path.write_bytes(raw := data.draw(damaged_bytes(path.read_bytes())))
    whole = {}
    for at, line in enumerate(raw.split(b"\n"), 1):
        if (n := numbers.get(line.rstrip(b","))) is not None:
            whole[f"{path}:{at}"] = records_of(kind, layouts[n], n, tmp_path)
    if ending == "json" and read_or_refuse(kind, path)[1]:
        return  # where a broken array is found out depends on what follows
    check_undamaged(kind, path, whole)


@examples(100)
@given(data=st.data())
def test_columns_and_limit_over_damaged_rows(data, tmp_path):
    kind, layout = data.draw(st.sampled_from([x for x in EVERY_LAYOUT if x[0] in IN_CSV]))
    path = tmp_path / "damaged.jsonl"
    write_file(path, [data.draw(damaged(KINDS[kind][layout](n), NAMES)) for n in range(2)])
    names = st.sampled_from([*NAMES, *ODD_TEXTS])
    columns = data.draw(st.dictionaries(st.sampled_from(COLUMNS), names, max_size=2))
    read_or_refuse(kind, path, columns=columns, limit=data.draw(st.sampled_from((None, 1, 2**80))))


# CSV


@pytest.mark.parametrize("kind", IN_CSV)
@examples(15)
@given(data=st.data())
def test_any_value_in_any_cell_of_csv(kind, data, tmp_path):
    layout = data.draw(st.sampled_from(IN_CSV[kind]))
    row = KINDS[kind][layout](2)
    for worse in with_odd_values(row, data.draw(place_in(row))):
        if not re.search(r"\\ud[89a-f]", json.dumps(worse)):  # then no row is UTF-8
            check_surrounded(kind, layout, tmp_path / "damaged.csv", [worse])


@pytest.mark.parametrize("kind", IN_CSV)
@examples(60)
@given(data=st.data())
def test_damaged_bytes_of_csv(kind, data, tmp_path):
    layout = data.draw(st.sampled_from(IN_CSV[kind]))
    path = tmp_path / "damaged.csv"
    rows = [KINDS[kind][layout](n) for n in range(3)]
    write_file(path, rows)
    path.write_bytes(raw := data.draw(damaged_bytes(path.read_bytes())))
    records, message = read_or_refuse(kind, path)
    if message:
        return
    header, *lines = [r for r in csv.reader(io.StringIO(raw.decode(), newline="")) if r]
    if header == list(rows[0]):
        cells = [cells_of(row, header) for row in rows]
        whole = [records_of(kind, layout, cells.index(x), tmp_path) for x in lines if x in cells]
        check_order(map(without_origin, records), [r for rs in whole for r in rs])


# Parquet

NOT_IN_PARQUET = (pa.ArrowException, AttributeError, TypeError, ValueError, OverflowError)
"""What Arrow raises of rows that it cannot write."""
OTHER_TYPES = (
    *(pa.int8(), pa.uint64(), pa.float16(), pa.float64(), pa.bool_(), pa.null(), pa.date32()),
    *(pa.timestamp("ns", "UTC"), pa.time64("us"), pa.duration("s"), pa.decimal128(9, 2)),
    *(pa.binary(), pa.binary(3), pa.large_binary(), pa.list_(pa.string()), pa.list_(pa.int64(), 2)),
    *(pa.struct([("role", pa.string()), ("replies", pa.list_(pa.string()))]), pa.struct([])),
    *(pa.map_(pa.string(), pa.int32()), pa.list_(pa.struct([("from", pa.string())]))),
)
FILLINGS = (None, 0, 1, 1.5, True, "x", b"xyz", [], {}, ["x", None], [1, 2], {"role": "user"})
"""What may stand in a column of one of these types, where it can."""


def arrays_of(kind, length):
    """Columns of an Arrow type, one of each filling that it takes."""
    for filling in FILLINGS:
        try:
            yield pa.array([filling] * length, kind)
        except NOT_IN_PARQUET:
            continue


@examples(40)
@given(data=st.data())
def test_columns_of_other_types_in_parquet(data, tmp_path):
    kind, layout = data.draw(st.sampled_from(EVERY_LAYOUT))
    rows = [KINDS[kind][layout](n) for n in range(2)]
    table = {name: pa.array([row[name] for row in rows]) for name in rows[0]}
    arrays = [*arrays_of(data.draw(st.sampled_from(OTHER_TYPES)), len(rows))]
    table[data.draw(st.sampled_from([*table]))] = data.draw(st.sampled_from(arrays))
    path = tmp_path / "damaged.parquet"
    try:
        pq.write_table(pa.table(table), path)
    except NOT_IN_PARQUET:
        return
    read_or_refuse(kind, path)


@examples(60)
@given(data=st.data())
def test_rows_and_fields_of_parquet(data, tmp_path):
    """What Arrow pads with null where only the damaged row has it is no fault of the others."""
    kind, layout = data.draw(st.sampled_from(EVERY_LAYOUT))
    worse = data.draw(damaged(KINDS[kind][layout](2), NAMES))
    path = tmp_path / "damaged.parquet"
    try:
        write_file(path, [KINDS[kind][layout](0), worse])
    except NOT_IN_PARQUET:
        return
    check_surrounded(kind, layout, path, [worse])


@examples(30)
@given(data=st.data())
def test_damaged_bytes_of_parquet(data, tmp_path):
    kind, layout = data.draw(st.sampled_from(EVERY_LAYOUT))
    path = tmp_path / "damaged.parquet"
    write_file(path, [KINDS[kind][layout](n) for n in range(3)])
    path.write_bytes(data.draw(damaged_bytes(path.read_bytes())))
    read_or_refuse(kind, path)


# What stages hand on to each other


@examples(100)
@given(data=st.data())
def test_damaged_lines_of_a_stages_file(data, tmp_path):
    path = tmp_path / "samples.jsonl"
    write_file(path, [PROMPTS["question"](n) for n in range(3)])
    whole = path.read_bytes().split(b"\n")
    path.write_bytes(raw := data.draw(damaged_bytes(path.read_bytes())))
    lines = raw.split(b"\n")
    try:
        found = [json.dumps(row) for row in read_json_lines(path)]
    except UserError as error:
        place, message = str(error).removeprefix(f"{path}:").split(": ", 1)
        assert message == "this line is not a JSON object" and lines[int(place) - 1] not in whole
        return
    assert found == [json.dumps(json.loads(line)) for line in lines if line.strip()]
