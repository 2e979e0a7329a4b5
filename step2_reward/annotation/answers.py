"""A labeler's answer as the page sends it, checked, and in the file's numbering."""

import math
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from common.evaluation.criteria import CRITERIA, MAX_POINTS

MOST_COMMENT = 4000
"""Characters of a comment."""


class BadAnswer(ValueError):
    """The answer cannot be what a page of ours sent; says why."""


def _speakable(text: str) -> str:
    """Refuses halves of surrogate pairs, which no file can hold; takes NULs out."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair") from None
    return text.replace("\x00", "")


class Answer(BaseModel):
    """What the page sends. Responses go by their places on the page, from 0."""

    model_config = ConfigDict(extra="forbid", strict=True)

    answer_id: str = Field(pattern=r"^[0-9A-Za-z-]{16,64}$")
    """Made by the page, once an answer: sent again, it changes nothing."""
    order: list[list[int]] = Field(max_length=26)
    """Best to worst; those of one inner list are tied."""
    cannot_judge: bool
    ratings: list[dict[str, int]] = Field(max_length=26)
    """For each place the criteria that were rated; empty when nothing was."""
    comment: Annotated[str, Field(max_length=MOST_COMMENT), AfterValidator(_speakable)]
    seconds: float = Field(ge=0, le=1e6, allow_inf_nan=False)
    """For which the labeler was at work on it."""


def content_of(answer: Answer, shown: Sequence[int]) -> dict[str, Any]:
    """The answer with the numbers that the responses have in the file.

    Args:
        shown: number of the response at each place of the page.

    Returns:
        `order` (groups of numbers, best first; empty when the labeler could not judge), `ratings`
        (`[responses]`, {criterion: points}; or empty), `cannot_judge`, `comment`, `seconds`,
        `shown`.

    Raises:
        BadAnswer: a response is missing, unknown or there twice; an unknown criterion or points
            other than 0, 1 and 2.
    """
    places = range(len(shown))
    named = [place for group in answer.order for place in group]
    if answer.cannot_judge:
        if named:
            raise BadAnswer("there is an order, though the labeler could not judge")
    elif sorted(named) != list(places) or not all(answer.order):
        raise BadAnswer("the order must hold every response once")
    if answer.ratings and len(answer.ratings) != len(shown):
        raise BadAnswer("there must be ratings for each response, or none at all")
    for rated in answer.ratings:
        for name, points in rated.items():
            if name not in CRITERIA or not 0 <= points <= MAX_POINTS:
                raise BadAnswer("a rating is of an unknown criterion, or not 0, 1 or 2")
    by_number = {shown[place]: rated for place, rated in zip(places, answer.ratings, strict=False)}
    rated = any(answer.ratings)
    return {
        "order": [sorted(shown[place] for place in group) for group in answer.order],
        "ratings": [by_number[i] for i in range(len(shown))] if rated else [],
        "cannot_judge": answer.cannot_judge,
        "comment": answer.comment.strip(),
        "seconds": math.floor(answer.seconds * 10) / 10,
        "shown": list(shown),
    }


def places_of(content: dict[str, Any]) -> dict[str, Any]:
    """The reverse of `content_of`: a saved answer for its page, to be corrected."""
    place = {number: i for i, number in enumerate(content["shown"])}
    return {
        "order": [sorted(place[number] for number in group) for group in content["order"]],
        "ratings": [content["ratings"][n] for n in content["shown"]] if content["ratings"] else [],
        "cannot_judge": content["cannot_judge"],
        "comment": content["comment"],
        "seconds": content["seconds"],
    }
