"""`data:` entries as users write them."""

import pytest

from common.data.sources import DataSource, parse_sources
from common.errors import UserError


def test_a_path_a_json_string_and_a_mapping_give_sources():
    assert parse_sources(
        [
            "data/a.jsonl",
            '{"path": "b.csv", "weight": 0.5, "columns": {"prompt": "q"}, "name": "exam"}',
            {"path": "owner/name", "split": "test", "limit": 7, "weight": 2},
        ]
    ) == [
        DataSource("data/a.jsonl", name="a"),
        DataSource("b.csv", weight=0.5, columns={"prompt": "q"}, name="exam"),
        DataSource("owner/name", weight=2, split="test", limit=7, name="name"),
    ]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"path": "a", "wieght": 2}, ["data[0]", "'wieght'", "did you mean 'weight'"]),
        ('{"path": "a", "colums": {}}', ["'colums'", "'columns'"]),
        ('{"path": ', ["data[0]", "JSON"]),
        ({"weight": 1}, ["`path`"]),
        ({"path": "a", "weight": -1}, ["`weight`", "-1"]),
        ({"path": "a", "weight": float("nan")}, ["`weight`"]),
        ({"path": "a", "weight": "2"}, ["`weight`", "'2'"]),
        ({"path": "a", "weight": 10**400}, ["`weight`"]),
        ('{"path": ' + "[" * 100_000, ["data[0]", "JSON"]),
        ({"path": "a", "limit": 0}, ["`limit`", "0"]),
        ({"path": "a", "limit": 1.5}, ["`limit`"]),
        ({"path": "a", "split": 3}, ["`split`"]),
        ({"path": "a", "name": 3}, ["`name`"]),
        ({"path": "a", "columns": ["prompt"]}, ["`columns`"]),
        ({"path": "a", "columns": {"promt": "q"}}, ["'promt'", "did you mean 'prompt'"]),
        ({"path": "a", "columns": {"q": "prompt"}}, ["'q'", "{prompt: q}"]),
        (["a"], ["data[0]"]),
    ],
)
def test_a_mistake_is_named(value, words):
    with pytest.raises(UserError) as caught:
        parse_sources([value])
    for word in words:
        assert word in str(caught.value)


def test_no_source_at_all_is_an_error():
    with pytest.raises(UserError, match="no data given"):
        parse_sources([])
