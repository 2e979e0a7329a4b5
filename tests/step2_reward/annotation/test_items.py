"""What can be labeled, and which answers a page of ours can send."""

import json

import pytest

from common.errors import UserError
from common.files import write_json_lines
from step2_reward.annotation.answers import Answer, BadAnswer, content_of, places_of
from step2_reward.annotation.items import read_items
from tests.step2_reward.annotation.projects import write
from tests.step2_reward.annotation.serving import answer as body

SHOWN = [3, 0, 2, 1]


def test_places_become_numbers_and_back():
    ratings = [{"clarity": 2}, {}, {"safety": 0}, {}]
    sent = Answer(**body([[1], [3, 0], [2]], ratings=ratings))
    content = content_of(sent, SHOWN)
    assert content["order"] == [[0], [1, 3], [2]]
    assert content["ratings"] == [{}, {}, {"safety": 0}, {"clarity": 2}]
    assert places_of(content)["order"] == [[1], [0, 3], [2]]
    assert places_of(content)["ratings"] == ratings


@pytest.mark.parametrize(
    "wrong",
    [
        {"order": [[0], [1], [2]]},
        {"order": [[0], [1], [2], [2]]},
        {"order": [[0], [1], [2], [4]]},
        {"order": [[0], [1], [2], [-1]]},
        {"order": [[0], [], [1], [2, 3]]},
        {"order": []},
        {"cannot_judge": True},
        {"ratings": [{}]},
        {"ratings": [{"beauty": 1}, {}, {}, {}]},
        {"ratings": [{"clarity": 3}, {}, {}, {}]},
    ],
)
def test_answers_that_no_page_sends(wrong):
    sent = Answer(**body([[0], [1], [2], [3]]) | wrong)
    with pytest.raises(BadAnswer):
        content_of(sent, SHOWN)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"prompt": "p", "responses": ["only one"]}, "'responses' holds 1"),
        ({"prompt": "p", "responses": ["a"] * 27}, "'responses' holds 27"),
        ({"prompt": "p", "responses": ["a", " "]}, r"responses\[1\]' is empty"),
        ({"prompt": "p"}, "'responses' is missing"),
        ({"responses": ["a", "b"]}, "columns"),
        ({"prompt": "p", "responses": ["a", "\ud800"]}, "surrogate"),
    ],
)
def test_samples_that_cannot_be_labeled(tmp_path, row, says):
    file = tmp_path / "samples.jsonl"
    file.write_text(json.dumps(row) + "\n")
    with pytest.raises(UserError, match=says) as raised:
        read_items(file)
    assert f"{file}:1" in str(raised.value)


def test_gold_questions_need_an_order(tmp_path):
    with pytest.raises(UserError, match="'orders' is missing"):
        read_items(write(tmp_path / "gold.jsonl"), gold=True)
    with pytest.raises(UserError, match="ties all responses"):
        read_items(write(tmp_path / "gold.jsonl", orders=[[[4, 3, 2, 1, 0]]]), gold=True)


def test_the_same_row_twice_is_two_prompts(tmp_path):
    file = tmp_path / "samples.jsonl"
    write_json_lines(file, [{"prompt": "p", "responses": ["a", "b"]}] * 2)
    assert len({item.key for item in read_items(file)}) == 2
