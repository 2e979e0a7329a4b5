"""Label Studio's ranker results, after its documentation: lists, buckets, skipped annotations."""

from collections import Counter

import pytest

from common.data.label_studio import Tags, is_label_studio, label_studio_orders
from common.data.labeled import NOT_RANKED, Hints
from common.data.records import Message
from common.errors import UserError
from tests.common.data.foreign_rows import ITEMS, TEXTS, annotation, ranker, task

BUCKETS = {"_": ["wiki"], "best": ["mdn"], "ads": ["blog"]}


def read(row, hints=Hints(), columns=None, left_out=None):  # noqa: B008
    left_out = Counter() if left_out is None else left_out
    return label_studio_orders(row, columns or {}, "f:1", hints, left_out, Tags())


def by_text(found):
    """Groups of texts, best first."""
    return [
        [found.responses[i] for i in (group if isinstance(group, list) else [group])]
        for group in found.order
    ]


def test_the_documented_list():
    (found,) = read(task(annotation(ranker({"rank": ["mdn", "wiki", "blog"]}))))
    assert found.messages == (Message("user", "What is a function?"),)
    assert list(found.responses) == TEXTS and found.order == [1, 2, 0]
    assert found.labeler == "label_studio:1"
    assert found.notes == {"saved": "2024-03-09T22:20:08.728378Z", "seconds": 4.288}
    assert found.row == {"prompt": "What is a function?", "responses": TEXTS}


def test_the_list_of_earlier_versions():
    (found,) = read(task(annotation(ranker(["mdn", "wiki", "blog"]))))
    assert found.order == [1, 2, 0]


@pytest.mark.parametrize(
    ("buckets", "groups"),
    [
        (("best", "ads"), [["a manual"], ["a tale"]]),
        (("ads", "best"), [["a tale"], ["a manual"]]),
        (("best", "ads", "_"), [["a manual"], ["a tale"], ["a survey"]]),
    ],
)
def test_the_documented_buckets_in_the_order_that_the_user_names(buckets, groups):
    (found,) = read(task(annotation(ranker(BUCKETS))), Hints(buckets=buckets))
    assert by_text(found) == groups


def test_what_shares_a_bucket_is_tied_and_the_default_bucket_is_one_like_others():
    value = {"best": ["mdn", "blog"], "ads": ["wiki"]}
    (found,) = read(task(annotation(ranker(value))), Hints(buckets=("best", "ads")))
    assert found.order == [[0, 1], 2]


def test_buckets_whose_order_nobody_named_are_refused():
    with pytest.raises(UserError, match=r"buckets best, ads: which is better .* --buckets"):
        read(task(annotation(ranker(BUCKETS))))


@pytest.mark.parametrize("buckets", [("best",), ("best", "adds")])
def test_a_bucket_that_is_not_named_is_not_left_behind(buckets):
    with pytest.raises(UserError, match="has the bucket 'ads', which --buckets does not name"):
        read(task(annotation(ranker(BUCKETS))), Hints(buckets=buckets))


def test_several_annotations_and_those_that_were_skipped():
    left_out = Counter()
    found = read(
        task(
            annotation(ranker({"rank": ["mdn", "wiki", "blog"]}), by=1),
            annotation(ranker({"rank": ["blog", "mdn", "wiki"]}), by={"id": 7, "email": "a@b.c"}),
            annotation(ranker({"rank": ["wiki", "mdn", "blog"]}), by=3, was_cancelled=True),
            annotation(by=4),
            annotation({"type": "choices", "value": {"choices": ["x"]}}, by=5),
            annotation(ranker({"rank": ["mdn"]}), by=6),
        ),
        left_out=left_out,
    )
    assert [(x.labeler, x.order) for x in found] == [
        ("label_studio:1", [1, 2, 0]),
        ("label_studio:a@b.c", [0, 1, 2]),
    ]
    assert left_out == {"skipped annotations": 1, "annotations without a ranking": 2, NOT_RANKED: 1}


def test_one_of_several_rankers_is_chosen_by_its_name():
    results = ranker({"rank": ["mdn", "wiki", "blog"]}), ranker({"fun": ["blog", "mdn"]}, "fun")
    with pytest.raises(UserError, match=r"several rankings \(rank, fun\); .* --question"):
        read(task(annotation(*results)))
    (found,) = read(task(annotation(*results)), Hints(question="fun"))
    assert found.order == [0, 1]


def test_items_by_number_and_prompts_under_other_names():
    row = task(annotation(ranker({"rank": [3, 1]})))
    row["data"] = {"ask": "q", "answers": [{"id": i, "title": f"t{i}"} for i in (1, 2, 3)]}
    (found,) = read(row, columns={"prompt": "ask"})
    assert found.order == [2, 0] and found.responses == ("t1", "t2", "t3")
    row["data"]["other"] = [{"id": 1, "text": "x"}, {"id": 3, "text": "y"}]
    with pytest.raises(UserError, match="no single list has all items"):
        read(row, columns={"prompt": "ask"})
    (found,) = read(row, columns={"prompt": "ask", "responses": "other"})
    assert found.order == [1, 0] and found.responses == ("x", "y")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (task(annotation(ranker({"rank": ["mdn", "gone"]}))), "item 'gone' is in no list"),
        (task(annotation(ranker({"rank": ["mdn", "mdn"]}))), "repeats item 'mdn'"),
        (task(annotation(ranker({"rank": ["mdn", None]}))), "must hold ids of items, not null"),
        (task(annotation(ranker("mdn"))), "must be a list or buckets, not a string"),
        (task(annotation({"type": "ranker"})), "must be a list or buckets, not null"),
        (task(annotation(ranker({"rank": ["mdn", "blog"]})), prompt=""), "'prompt' is empty"),
        (task(annotation(ranker({"rank": ["mdn", "blog"]})), prompt=None), "prompt"),
        (task("x"), "field 'annotations[0]' must be an object"),
        ({**task(), "annotations": "x"}, "field 'annotations' must be a list"),
        (task({"result": "x"}), "field 'annotations[0].result' must be a list of objects"),
        (
            task(
                annotation(ranker({"rank": ["mdn", "blog"]})),
                items=[{k: v for k, v in ITEMS[1].items() if k == "id"}, *ITEMS[:1]],
            ),
            "field 'data.items[0]' has no text (body, text, html, title)",
        ),
    ],
)
def test_a_bad_task_is_named_with_its_field(row, said):
    with pytest.raises(UserError) as caught:
        read(row)
    assert str(caught.value).startswith("f:1: ") and said in str(caught.value)


def test_tasks_are_told_from_other_rows():
    assert is_label_studio(task())
    assert not is_label_studio({"data": "x", "annotations": []})
    assert not is_label_studio({"prompt": "q", "responses": ["a"], "orders": [[0]]})
