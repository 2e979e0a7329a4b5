"""What a language model is asked of the evaluation's answers, and what is read in its replies.

Single answers are rated by themselves, so that no place in a list sways the points. Two answers
are compared in both orders, for a judge prefers places (Zheng et al. 2023, "Judging
LLM-as-a-Judge", §3.3 and §3.4, https://arxiv.org/abs/2306.05685). Which model wrote what is never
said.
"""

from typing import Any

from common.endpoint.quoting import between, marker_for, no_instructions
from common.endpoint.reading import Unreadable, objects_in
from common.evaluation.criteria import CRITERIA, DEFINITIONS, MAX_POINTS
from common.evaluation.judges.judgements import Points
from common.evaluation.metrics.win_rate.equation import Verdict

Messages = list[dict[str, str]]

_CRITERIA = "\n".join(f"- {name}: {DEFINITIONS[name]}" for name in CRITERIA)

_RATE = """\
You rate an assistant's response to a prompt, as a careful and impartial labeler, on each of these \
criteria:
{criteria}
Give 0, 1 or 2 points on each: 0 where the response fails it, 1 where it meets it in part, 2 where \
it meets it in full. Rate each criterion by itself. Length is no merit.

{data}

Answer with one JSON object and nothing else, which has a number for each criterion: {form}"""

_COMPARE = """\
You compare two responses of assistants to the same prompt, as a careful and impartial labeler, by \
these criteria taken together:
{criteria}
Length and place are no merits. Say that they are equally good where neither is better.

{data}

Answer with one JSON object and nothing else: {{"better": 1}}, {{"better": 2}}, or \
{{"better": "tie"}} where they are equally good."""


def rating_messages(prompt: str, response: str, attempt: int = 0) -> Messages:
    """The chat messages that ask for the points of one response.

    The same arguments give the same messages, so that an answer can be found again.

    Args:
        attempt: of this question; further ones say that the answer before could not be read.
    """
    marker = marker_for([prompt, response])
    form = "{" + ", ".join(f'"{name}": …' for name in CRITERIA) + "}"
    data = no_instructions("The prompt and the response", marker)
    system = _RATE.format(criteria=_CRITERIA, data=data, form=form)
    parts = [between("PROMPT", prompt, marker), between("RESPONSE", response, marker)]
    parts.append("Rate the response, as the JSON object.")
    again = "the answer before was no such object, or had no number from 0 to 2 for each criterion"
    return _chat(system, parts, attempt, again)


def comparison_messages(prompt: str, first: str, second: str, attempt: int = 0) -> Messages:
    """The chat messages that ask which of two responses is better; as `rating_messages`."""
    marker = marker_for([prompt, first, second])
    data = no_instructions("The prompt and the responses", marker)
    system = _COMPARE.format(criteria=_CRITERIA, data=data)
    parts = [
        between("PROMPT", prompt, marker),
        between("RESPONSE 1", first, marker),
        between("RESPONSE 2", second, marker),
        "Say which response is better, as the JSON object.",
    ]
    return _chat(system, parts, attempt, 'the answer before was no such object with 1, 2 or "tie"')


def read_points(answer: str) -> Points:
    """The points in a judge's answer: the last JSON object in it that names a criterion.

    Raises:
        Unreadable: no such object, a criterion is missing, or its points are no number from 0 to 2.
    """
    found = [x for x in objects_in(answer) if any(name in x for name in CRITERIA)]
    if not found:
        raise Unreadable("no JSON object with criteria")
    return {name: _points(found[-1].get(name), name) for name in CRITERIA}


def read_better(answer: str) -> int:
    """1 or 2, the response that a judge's answer calls better, or 0 for a tie.

    Raises:
        Unreadable: the answer says none of these in a JSON object with `better`.
    """
    found = [x["better"] for x in objects_in(answer) if "better" in x]
    if not found:
        raise Unreadable('no JSON object with "better"')
    value = str(found[-1]).strip().casefold().removeprefix("response").strip()
    places = {"1": 1, "2": 2, "tie": 0}
    if value not in places:
        raise Unreadable(f'"better" is {str(found[-1])[:40]!r}, not 1, 2 or "tie"')
    return places[value]


def verdict_of(better: int, place: int) -> Verdict:
    """The verdict on the model whose answer was shown at `place`, 1 or 2."""
    return "tie" if better == 0 else "model" if better == place else "other"


def _points(value: Any, name: str) -> float:  # noqa: ANN401
    try:
        points = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError):
        points = -1.0
    if not 0 <= points <= MAX_POINTS:
        raise Unreadable(f"{name} is {str(value)[:40]!r}, which is no number from 0 to 2")
    return points


def _chat(system: str, parts: list[str], attempt: int, again: str) -> Messages:
    tried = [f"(Try {attempt + 1}: {again}.)"] * bool(attempt)
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": "\n\n".join([*parts, *tried])},
    ]
