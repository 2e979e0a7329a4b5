"""Rankings out of Argilla: responses to a `RankingQuestion`, as its clients export them.

Argilla 2 (https://docs.argilla.io/latest/how_to_guides/import_export/): records as `to_list`,
`to_dict` and `to_json` give them, with `responses: {question: [{value, user_id}]}`, or flattened,
as `to_datasets` gives them, with the columns `question.responses`, `….users` and `….status`.
Argilla 1 (https://docs.v1.argilla.io/en/latest/practical_guides/collect_responses.html): records
with `responses: [{user_id, values: {question: {value}}, status}]`, or its data sets, with a column
per question that holds `[{user_id, value, status}]`.

An answer is a list of {value, rank} (equal ranks are ties, null is not ranked), or, from Argilla 2,
which drops the ranks, a list of values, the best first. Argilla's page has stored such lists in
the order of the question's values whatever the labeler did
(https://github.com/argilla-io/argilla/issues/5712): those are counted and told.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from common.data.fields import UnknownLayout, text_of
from common.data.labeled import NOT_RANKED, Hints, Labeled, Order, named_in, prompt_column
from common.data.prompt_layouts import prompt_of
from common.data.readers import Row, kind_of
from common.data.records import Message
from common.errors import UserError

STATUSES = {"draft": "drafts", "discarded": "discarded responses"}
"""Those that do not count, and what they are called in the account."""
NO_RANKS = "lists without ranks, read as best first"
NO_STATUS = "responses without a status, taken as submitted"
_FLAT = ".responses"


@dataclass(frozen=True)
class _Answer:
    user: str
    value: Any
    status: str | None


def is_argilla(row: Row) -> bool:
    """Whether a row is a record of Argilla's."""
    if isinstance(row.get("fields"), dict):
        return True
    return any(name.endswith(_FLAT) for name in row) or any(map(_is_answers, row.values()))


def argilla_orders(
    record: Row,
    columns: dict[str, str],
    origin: str,
    hints: Hints,
    left_out: Counter[str],
    remarks: Counter[str],
) -> list[Labeled]:
    """The orders of one record, one per response that was submitted.

    Args:
        columns: our name -> the field's, of `prompt`.
        left_out: takes counts of drafts, discarded responses, and those that rank too little.
        remarks: takes counts of what was read but is worth a doubt.

    Raises:
        UserError: a field is missing or of the wrong type, no question or more than one that
            ranks, a value that names no field.
    """
    fields = _fields_of(record)
    answers = _answers_of(record, origin)
    if answers and hints.question and hints.question not in answers:
        names = ", ".join(answers) or "none"
        raise UserError(f"{origin}: no question '{hints.question}'; answered here: {names}")
    submitted = {
        name: _submitted(given, name, origin, Counter()) for name, given in answers.items()
    }
    question = ""
    if answers:
        question = hints.question or _ranking_question(submitted, fields, hints, origin)
    left_out.update(_without_answer(record, question))
    if not question:
        left_out["records without a submitted ranking"] += 1
        for name, given in answers.items():
            _submitted(given, name, origin, left_out)
        return []
    ranked = [
        (answer, _ranked(answer.value, question, origin, remarks))
        for answer in _submitted(answers[question], question, origin, left_out, remarks)
    ]
    values = list(dict.fromkeys(v for _, groups in ranked for g in groups.values() for v in g))
    places = _places(values, fields, hints.response_fields)
    lost = [v for v in values if v not in places]
    if lost:
        raise UserError(
            f"{origin}: question '{question}' has the value '{lost[0]}', which names none of the "
            f"fields {', '.join(fields)}; say which hold the responses with --response_fields"
        )
    named = {*places.values(), *hints.response_fields}
    series = {_series(f) for f in named} - {""}
    response_fields = [f for f in fields if f in named or _series(f) in series]
    responses = tuple(text_of(fields[f], f, origin, empty=True) for f in response_fields)
    messages = _prompt(
        {n: v for n, v in fields.items() if n not in response_fields}, columns, origin
    )
    numbers = {value: response_fields.index(field) for value, field in places.items()}
    row = {"prompt": prompt_column(messages), "responses": list(responses)}
    found = []
    for answer, groups in ranked:
        order: Order = []
        for rank in sorted(groups):
            tied = sorted(numbers[v] for v in groups[rank])
            order.append(tied if len(tied) > 1 else tied[0])
        if len(named_in(order)) < 2:
            left_out[NOT_RANKED] += 1
            continue
        at = f"{origin}: response of {answer.user}"
        labeler = f"argilla:{answer.user}"
        found.append(Labeled(tuple(messages), responses, labeler, order, at, {}, row))
    return found


def _fields_of(record: Row) -> Row:
    """The record's fields by name; of flattened records all that could be one."""
    if isinstance(record.get("fields"), dict):
        return record["fields"]
    known = ("id", "status", "_server_id", "external_id", "metadata", "score")
    return {
        name: value
        for name, value in record.items()
        if name not in known
        and "." not in name
        and not name.endswith(("-suggestion", "-suggestion-metadata"))
        and not _is_answers(value)
        and value is not None
    }


def _is_answers(value: Any) -> bool:  # noqa: ANN401
    """Whether a column holds what Argilla 1 has for a question."""
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(x, dict) and {"user_id", "value", "status"} <= set(x) for x in value)
    )


def _answers_of(record: Row, origin: str) -> dict[str, list[_Answer]]:
    """All answers by question, whichever way the record has them."""
    found: dict[str, list[_Answer]] = {}
    for question, user, value, status in _raw_answers(record, origin):
        user = "unknown" if user in (None, "None") else str(user)
        found.setdefault(question, []).append(_Answer(user, value, status))
    return found


def _raw_answers(record: Row, origin: str) -> Iterator[tuple[str, Any, Any, Any]]:
    responses = record.get("responses")
    if isinstance(responses, dict):  # Argilla 2
        for question, given in responses.items():
            for i, answer in enumerate(_list(given, f"responses.{question}", origin)):
                at = f"responses.{question}[{i}]"
                answer = _object(answer, at, origin)
                yield question, answer.get("user_id"), answer.get("value"), answer.get("status")
        return
    if isinstance(record.get("fields"), dict):  # Argilla 1
        for i, response in enumerate(_list(responses, "responses", origin)):
            response = _object(response, f"responses[{i}]", origin)
            values = _object(response.get("values") or {}, f"responses[{i}].values", origin)
            for question, value in values.items():
                value = value.get("value") if isinstance(value, dict) else value
                yield question, response.get("user_id"), value, response.get("status")
        return
    for name, value in record.items():
        if name.endswith(_FLAT) and value is not None:  # Argilla 2, flattened
            values = _list(value, name, origin)
            users, statuses = (
                _list(record.get(f"{name}.{more}"), f"{name}.{more}", origin)
                or [None] * len(values)
                for more in ("users", "status")
            )
            if not len(values) == len(users) == len(statuses):
                raise UserError(
                    f"{origin}: fields '{name}', '{name}.users' and '{name}.status' must be of "
                    "the same length"
                )
            for value, user, status in zip(values, users, statuses, strict=True):
                yield name.removesuffix(_FLAT), user, value, status
        elif _is_answers(value):  # Argilla 1, as a data set
            for answer in value:
                yield name, answer["user_id"], answer["value"], answer["status"]


def _without_answer(record: Row, question: str) -> Counter[str]:
    """Drafts and discarded responses of Argilla 1 that say nothing of the question, often nothing
    at all: `_raw_answers` passes them over."""
    responses = record.get("responses") if isinstance(record.get("fields"), dict) else None
    return Counter(
        STATUSES[str(response.get("status"))]
        for response in (responses if isinstance(responses, list) else [])
        if str(response.get("status")) in STATUSES
        and (not response.get("values") or (question and question not in response["values"]))
    )


def _submitted(
    answers: list[_Answer],
    question: str,
    origin: str,
    left_out: Counter[str],
    remarks: Counter[str] | None = None,
) -> list[_Answer]:
    """Without drafts, discarded ones, and those that leave the question open; all are counted."""
    kept = []
    for answer in answers:
        if answer.status is None:
            if remarks is not None:
                remarks[NO_STATUS] += 1
        elif answer.status in STATUSES:
            left_out[STATUSES[answer.status]] += 1
            continue
        elif answer.status != "submitted":
            raise UserError(
                f"{origin}: question '{question}' has the unknown status '{answer.status}'; "
                f"known: submitted, {', '.join(STATUSES)}"
            )
        if answer.value is None:
            left_out[NOT_RANKED] += 1
            continue
        kept.append(answer)
    return kept


def _ranking_question(
    submitted: dict[str, list[_Answer]], fields: Row, hints: Hints, origin: str
) -> str:
    """The question whose answers are rankings of fields; "" where none was answered.

    Raises:
        UserError: several are, or something like a ranking was answered that is malformed or names
            no fields.
    """
    like, fitting, malformed = [], [], []
    for name, answers in submitted.items():
        groups = []
        for answer in answers:
            try:
                groups.append(_ranked(answer.value, name, origin, Counter()))
            except UserError as error:
                malformed += [error] * _has_ranks(answer.value)
        values = list(dict.fromkeys(v for g in groups for tied in g.values() for v in tied))
        if not values:
            continue
        like.append(name)
        if set(_places(values, fields, hints.response_fields)) == set(values):
            fitting.append(name)
    if len(fitting) > 1:
        raise UserError(
            f"{origin}: several questions rank the fields ({', '.join(fitting)}); name the one to "
            "import with --question"
        )
    if like and not fitting:
        raise UserError(
            f"{origin}: the answers to {', '.join(like)} name none of the fields "
            f"{', '.join(fields)}; say which hold the responses with --response_fields, and which "
            "question ranks them with --question"
        )
    if malformed and not fitting:
        raise malformed[0]
    return fitting[0] if fitting else ""


def _has_ranks(value: Any) -> bool:  # noqa: ANN401
    """Whether an answer is something with ranks, which only rankings have."""
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, dict) and "rank" in item for item in items)


def _ranked(
    value: Any,  # noqa: ANN401
    question: str,
    origin: str,
    remarks: Counter[str],
) -> dict[int, list[str]]:
    """The values of an answer by rank; those without a rank are left out."""
    if isinstance(value, dict) and {"rank", "value"} <= set(value):  # as `datasets` keeps a list
        value = [
            {"rank": r, "value": v} for r, v in zip(value["rank"], value["value"], strict=True)
        ]
    groups: dict[int, list[str]] = {}
    if not isinstance(value, list) or not value:
        raise UserError(
            f"{origin}: question '{question}': an answer must be a list, not {kind_of(value)}"
        )
    if all(isinstance(v, str) for v in value):
        remarks[NO_RANKS] += 1
        value = [{"value": v, "rank": i} for i, v in enumerate(value, start=1)]
    for item in value:
        if not isinstance(item, dict) or not isinstance(item.get("value"), str):
            raise UserError(
                f"{origin}: question '{question}': an answer must hold {{value, rank}}, not "
                f"{kind_of(item)}"
            )
        rank = item.get("rank")
        if rank is None or rank != rank:  # tables that have no null for numbers have NaN
            continue
        if isinstance(rank, float) and rank.is_integer():  # and no whole numbers beside it
            rank = int(rank)
        if type(rank) is not int:
            raise UserError(
                f"{origin}: question '{question}': a rank must be a whole number, not "
                f"{kind_of(rank)}"
            )
        if any(item["value"] in tied for tied in groups.values()):
            raise UserError(
                f"{origin}: question '{question}': an answer ranks '{item['value']}' twice"
            )
        groups.setdefault(rank, []).append(item["value"])
    return groups


def _places(values: list[str], fields: Row, wanted: tuple[str, ...]) -> dict[str, str]:
    """Which field each value names: by its name, by its name but for signs and case ("reply-1",
    `reply_1`), or as the only one with its number at the end ("1", `Response 1`)."""
    names = [n for n, v in fields.items() if isinstance(v, str) and (not wanted or n in wanted)]
    found: dict[str, str] = {}
    for same in (lambda x: x, _plain, _last_number):
        for value in values:
            hits = [n for n in names if same(value) and same(n) == same(value)]
            if value not in found and len(hits) == 1 and hits[0] not in found.values():
                found[value] = hits[0]
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _last_number(name: str) -> str:
    match = re.search(r"(\d+)\s*$", name)
    return match[1].lstrip("0") or "0" if match else ""


def _series(name: str) -> str:
    """What `reply_1` and `reply_2` share; a field that nobody ranked belongs to its likes."""
    match = re.fullmatch(r"(.*?)[\W_]*\d+\s*", name)
    return match[1] if match else ""


def _prompt(rest: Row, columns: dict[str, str], origin: str) -> list[Message]:
    """The prompt among the fields that are no responses."""
    rest = {**rest}
    rest |= {ours: rest.pop(theirs) for ours, theirs in columns.items() if theirs in rest}
    try:
        return prompt_of(rest, origin)
    except UnknownLayout:
        if len(rest) == 1:
            return prompt_of({"prompt": next(iter(rest.values()))}, origin)
        raise UserError(
            f"{origin}: which field is the prompt ({', '.join(rest) or 'none is left'})? Say so: "
            "columns: {prompt: input}"
        ) from None


def _list(value: Any, at: str, origin: str) -> list[Any]:  # noqa: ANN401
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{origin}: field '{at}' must be a list, not {kind_of(value)}")
    return value


def _object(value: Any, at: str, origin: str) -> Row:  # noqa: ANN401
    if not isinstance(value, dict):
        raise UserError(f"{origin}: field '{at}' must be an object, not {kind_of(value)}")
    return value
