"""Rankings out of Label Studio: its JSON export of projects with a `Ranker` tag.

Tasks and annotations: https://labelstud.io/guide/task_format. Results of the tag, as a list or in
buckets: https://labelstud.io/tags/ranker.html; older ones have the list without the tag's name:
https://github.com/HumanSignal/label-studio/pull/4281.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from common.data.fields import facts_of, list_of, text_of
from common.data.labeled import NOT_RANKED, Hints, Labeled, Order, named_in, prompt_column
from common.data.prompt_layouts import prompt_of
from common.data.readers import Row, kind_of
from common.errors import UserError

UNSORTED = "_"
"""The "bucket" of items that were moved into none."""
TEXTS = ("body", "text", "html", "title")
"""Where an item of the `List` tag may have a response's text; the first that is there counts."""


@dataclass
class Tags:
    """What an export's rankings name: the hints are held against it."""

    questions: set[str] = field(default_factory=set)
    buckets: set[str] = field(default_factory=set)

    def check_question(self, path: str, question: str) -> None:
        """Raises:
        UserError: the file has rankings, but none under this name.
        """
        if question and self.questions and question not in self.questions:
            raise UserError(
                f"{path}: no annotation has a ranking '{question}' (--question); there are: "
                f"{', '.join(sorted(self.questions))}"
            )

    def check_buckets(self, named: tuple[str, ...]) -> None:
        """Raises:
        UserError: a bucket was named that none of the files has.
        """
        unused = [repr(name) for name in named if name not in self.buckets]
        if unused:
            raise UserError(
                f"--buckets names {', '.join(unused)}, which is in no row; the buckets there are: "
                f"{', '.join(sorted(self.buckets)) or 'none'}"
            )


def is_label_studio(row: Row) -> bool:
    """Whether a row is a task of Label Studio's JSON export."""
    return isinstance(row.get("data"), dict) and "annotations" in row


def label_studio_orders(
    task: Row,
    columns: dict[str, str],
    origin: str,
    hints: Hints,
    left_out: Counter[str],
    tags: Tags,
) -> list[Labeled]:
    """The orders of one task, one per annotation that has one.

    Args:
        columns: our name -> the name in the task's data, of `prompt` and `responses`.
        left_out: takes counts of annotations that were skipped or hold no ranking.
        tags: takes the names of rankings and of buckets.

    Raises:
        UserError: a field is missing or of the wrong type, buckets whose order is not known, an
            item that is not in the task's data.
    """
    data = {**task["data"]}
    data |= {ours: data.pop(theirs) for ours, theirs in columns.items() if theirs in data}
    annotations = task["annotations"] or []
    if not isinstance(annotations, list):
        raise UserError(f"{origin}: field 'annotations' must be a list, not {kind_of(annotations)}")
    found = []
    for i, annotation in enumerate(annotations):
        field = f"annotations[{i}]"
        if not isinstance(annotation, dict):
            raise UserError(f"{origin}: field '{field}' must be an object")
        if annotation.get("was_cancelled"):
            left_out["skipped annotations"] += 1
            continue
        result = _ranker_of(annotation, field, origin, hints.question, tags)
        if result is None:
            left_out["annotations without a ranking"] += 1
            continue
        groups = _groups_of(result, field, origin, hints.buckets, tags)
        items = _items_of(data, groups, field, origin)
        numbers = {name: number for number, name in enumerate(items)}
        order: Order = [
            sorted(numbers[x] for x in group) if len(group) > 1 else numbers[group[0]]
            for group in groups
        ]
        if len(named_in(order)) < 2:
            left_out[NOT_RANKED] += 1
            continue
        messages = tuple(prompt_of(data, f"{origin}: data"))
        responses = tuple(items.values())
        row = {"prompt": prompt_column(messages), "responses": list(responses)}
        facts = facts_of(data, origin)
        notes = {
            "saved": annotation.get("updated_at") or annotation.get("created_at"),
            "seconds": annotation.get("lead_time"),
        }
        found.append(
            Labeled(
                messages,
                responses,
                _labeler(annotation.get("completed_by")),
                order,
                f"{origin}: {field}",
                {name: value for name, value in notes.items() if value is not None},
                row if facts is None else {**row, "facts": facts},
            )
        )
    return found


def _ranker_of(annotation: Row, field: str, origin: str, question: str, tags: Tags) -> Row | None:
    """The one result of a Ranker tag."""
    results = annotation.get("result") or []
    if not isinstance(results, list) or not all(isinstance(r, dict) for r in results):
        raise UserError(f"{origin}: field '{field}.result' must be a list of objects")
    rankers = [r for r in results if r.get("type") == "ranker"]
    tags.questions.update(str(r.get("from_name")) for r in rankers)
    found = [r for r in rankers if question in ("", str(r.get("from_name")))]
    if len(found) > 1:
        names = ", ".join(str(r.get("from_name")) for r in found)
        raise UserError(
            f"{origin}: field '{field}.result' has several rankings ({names}); name the one to "
            "import with --question"
        )
    return found[0] if found else None


def _groups_of(
    result: Row, field: str, origin: str, buckets: tuple[str, ...], tags: Tags
) -> list[list[str]]:
    """Groups of items' ids, best first: one item each of a list, a bucket's items together."""
    value = result.get("value")
    ranker = value.get("ranker") if isinstance(value, dict) else None
    at = f"{field}.result.value.ranker"
    if isinstance(ranker, dict) and set(ranker) == {result.get("from_name")}:
        ranker = ranker[result["from_name"]]
    if isinstance(ranker, list):
        return _distinct([[_id(x, at, origin)] for x in ranker], at, origin)
    if not isinstance(ranker, dict):
        raise UserError(f"{origin}: field '{at}' must be a list or buckets, not {kind_of(ranker)}")
    tags.buckets.update(ranker)
    unknown = [name for name in ranker if name != UNSORTED and name not in buckets]
    if unknown and not buckets:
        raise UserError(
            f"{origin}: field '{at}' has the buckets {', '.join(unknown)}: which is better is not "
            f"in the export; name them with --buckets, the best first"
        )
    if unknown:
        raise UserError(
            f"{origin}: the export has the bucket '{unknown[0]}', which --buckets does not name; "
            f"name all of {', '.join(n for n in ranker if n != UNSORTED)}, the best first"
        )
    return _distinct(
        [
            [_id(x, f"{at}.{name}", origin) for x in list_of(ranker[name], name, origin)]
            for name in buckets
            if ranker.get(name)
        ],
        at,
        origin,
    )


def _items_of(data: Row, groups: list[list[str]], field: str, origin: str) -> dict[str, str]:
    """The list that was ranked: id -> text, in the order of the task's data."""
    wanted = {x for group in groups for x in group}
    lists = {}
    for name, value in data.items():
        if isinstance(value, list) and value and all(isinstance(x, dict) for x in value):
            ids = [str(x["id"]) for x in value if x.get("id") is not None]
            if len(ids) == len(value) and len(set(ids)) == len(ids):
                lists[name] = dict(zip(ids, value, strict=True))
    if "responses" in lists:
        lists = {"responses": lists["responses"]}
    fitting = [name for name, items in lists.items() if wanted <= set(items)]
    if len(fitting) != 1:
        missing = sorted(wanted - {x for items in lists.values() for x in items})
        what = f"item '{missing[0]}' is in no list" if missing else "no single list has all items"
        raise UserError(
            f"{origin}: field '{field}.result': {what} of the task's data; where the responses "
            "stand under another name, say so: columns: {responses: items}"
        )
    return {
        name: _text_of(item, f"data.{fitting[0]}[{i}]", origin)
        for i, (name, item) in enumerate(lists[fitting[0]].items())
    }


def _text_of(item: Row, field: str, origin: str) -> str:
    name = next((n for n in TEXTS if item.get(n) is not None), None)
    if name is None:
        raise UserError(f"{origin}: field '{field}' has no text ({', '.join(TEXTS)})")
    return text_of(item[name], f"{field}.{name}", origin, empty=True)


def _distinct(groups: list[list[str]], at: str, origin: str) -> list[list[str]]:
    names = Counter(x for group in groups for x in group)
    for name, times in names.items():
        if times > 1:
            raise UserError(f"{origin}: field '{at}' repeats item '{name}'")
    return groups


def _id(value: Any, at: str, origin: str) -> str:  # noqa: ANN401
    if isinstance(value, str) or type(value) is int:
        return str(value)
    raise UserError(f"{origin}: field '{at}' must hold ids of items, not {kind_of(value)}")


def _labeler(value: Any) -> str:  # noqa: ANN401
    """Whoever annotated: exports name a number, or an object with number and e-mail address."""
    if isinstance(value, dict):
        value = value.get("email") or value.get("id")
    return f"label_studio:{'unknown' if value is None else value}"
