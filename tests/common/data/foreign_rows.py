"""Rows as Label Studio and Argilla export them, after their documentation."""

ITEMS = [
    {"id": "blog", "title": "first", "body": "a tale"},
    {"id": "mdn", "title": "second", "body": "a manual"},
    {"id": "wiki", "title": "third", "body": "a survey"},
]
TEXTS = ["a tale", "a manual", "a survey"]


def ranker(value, name="rank", **more):
    """A result of a Ranker tag: https://labelstud.io/tags/ranker.html."""
    return {
        "value": {"ranker": value},
        "id": "PpwBv_NMxd",
        "from_name": name,
        "to_name": "results",
        "type": "ranker",
        "origin": "manual",
        **more,
    }


def annotation(*results, by=1, **more):
    """As in https://labelstud.io/guide/task_format."""
    return {
        "id": 1001,
        "completed_by": by,
        "result": list(results),
        "was_cancelled": False,
        "ground_truth": False,
        "created_at": "2024-03-09T22:16:08.728353Z",
        "updated_at": "2024-03-09T22:20:08.728378Z",
        "lead_time": 4.288,
        **more,
    }


def task(*annotations, **data):
    return {
        "id": 1,
        "data": {"prompt": "What is a function?", "items": ITEMS, **data},
        "annotations": list(annotations),
        "predictions": [{"result": [ranker({"rank": ["wiki", "mdn", "blog"]})]}],
    }


FIELDS = {"prompt": "What is a function?", "reply_1": "a tale", "reply_2": "a manual"} | {
    "reply_3": "a survey"
}


def ranks(**by_value):
    """An answer with ranks; `reply_2=1` ranks the value "reply-2"."""
    return [{"value": v.replace("_", "-"), "rank": r} for v, r in by_value.items()]


def record_1(*responses, fields=FIELDS):
    """A record of Argilla 1: responses are (user, value of the question "order", status)."""
    return {
        "fields": fields,
        "metadata": {},
        "responses": [
            {
                "user_id": user,
                "status": status,
                "values": {"order": {"value": value}, "why": {"value": "so"}},
            }
            for user, value, status in responses
        ],
        "suggestions": [],
        "external_id": None,
    }


def data_set_row_1(*responses, fields=FIELDS):
    """The same as a row of Argilla 1's data sets."""
    return {
        **fields,
        "order": [{"user_id": u, "value": v, "status": s} for u, v, s in responses],
        "order-suggestion": None,
        "order-suggestion-metadata": {"type": None, "score": None, "agent": None},
        "external_id": None,
        "metadata": "{}",
    }


def record_2(*responses, fields=FIELDS):
    """A record of Argilla 2's `to_list`, which drops ranks and status."""
    return {
        "id": "0f8a",
        "fields": fields,
        "metadata": {"split": "a"},
        "suggestions": {},
        "responses": {
            "order": [{"value": v, "user_id": u} for u, v, _ in responses],
            "why": [{"value": "so", "user_id": u} for u, _, _ in responses],
            "topics": [{"value": ["code", "prose"], "user_id": u} for u, _, _ in responses],
        },
        "vectors": {},
        "status": "completed",
        "_server_id": "77",
    }


def flat_record_2(*responses, fields=FIELDS):
    """The same as `to_list(flatten=True)` and `to_datasets` have it."""
    return {
        "id": "0f8a",
        "status": "completed",
        "_server_id": "77",
        **fields,
        "split": "a",
        "order.responses": [v for _, v, _ in responses],
        "order.responses.users": [u for u, _, _ in responses],
        "order.responses.status": [s for _, _, s in responses],
        "order.suggestion": None,
        "order.suggestion.score": None,
        "order.suggestion.agent": None,
    }
