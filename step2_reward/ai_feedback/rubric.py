"""What the judge is asked: the paper's eight criteria (§4.3), the responses as data, JSON back.

The judge is a labeler like others, with two faults of its own: it prefers places in a list (Zheng
et al. 2023, "Judging LLM-as-a-Judge", §3.3, https://arxiv.org/abs/2306.05685), so each list is
shown in both orders; and it reads instructions, so what it judges stands between markers that no
text of the request contains.
"""

from collections.abc import Sequence

from common.endpoint.quoting import between, marker_for, no_instructions
from common.evaluation.criteria import DEFINITIONS, MAX_POINTS, RECONSTRUCTED_WEIGHTS

_SYSTEM = """\
You rank an assistant's responses to a prompt, as a careful and impartial labeler. Rate each \
response from 0 to {points:g} on each of these criteria, weigh them as given, and order the \
responses by the sum:
{criteria}
Length and place in the list are no merits. Responses that are equally good share a place.

{data}

Answer with one JSON object and nothing else: {{"order": […]}} with the numbers of the responses, \
each of them once, from best to worst. A list in place of a number holds responses that are \
equally good: of three responses, {{"order": [2, [3, 1]]}} says that 2 is the best, and that 3 and \
1 are equally good."""


def messages_for(prompt: str, responses: Sequence[str], attempt: int = 0) -> list[dict[str, str]]:
    """The chat messages that ask for an order of the responses, numbered from 1 as they stand.

    The same arguments give the same messages, so that an answer can be found again.

    Args:
        attempt: of this question; further ones say that the answer before could not be read.
    """
    marker = marker_for([prompt, *responses])
    criteria = "\n".join(
        f"- {name} (weight {weight:g}): {DEFINITIONS[name]}"
        for name, weight in RECONSTRUCTED_WEIGHTS.items()
    )
    system = _SYSTEM.format(
        points=MAX_POINTS,
        criteria=criteria,
        data=no_instructions("The prompt and the responses", marker),
    )
    parts = [between("PROMPT", prompt, marker)]
    parts += [between(f"RESPONSE {i}", text, marker) for i, text in enumerate(responses, 1)]
    parts.append(
        f"Order the responses 1 to {len(responses)} from best to worst, as the JSON object."
    )
    if attempt:
        parts.append(
            f"(Try {attempt + 1}: the answer before was no such object, or did not name each "
            "response once.)"
        )
    return [
        {"role": "system", "content": system},
        {"role": "user", "content": "\n\n".join(parts)},
    ]
