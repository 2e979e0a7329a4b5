"""From records to token ids within the length limits, counting what does not fit."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from common.config.arguments import TextArguments
from common.data.records import Conversation, Pair, Prompt
from common.data.template import Template, shorten_prompt
from common.errors import UserError


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids, beside the record it came from."""

    ids: list[int]
    record: Prompt


@dataclass(frozen=True)
class EncodedExample:
    """A training example of stage 1."""

    input_ids: list[int]
    loss_mask: list[bool]
    origin: str


@dataclass
class Comparison:
    """A prompt's responses as token ids, each once, and the pairs among them."""

    rows: list[list[int]]
    """Prompt + response + end token, one a response."""
    pairs: list[tuple[int, int]]
    """(preferred, other), indices into `rows`."""
    records: list[Pair]
    """The pairs as they were read, in the same order."""
    prompt_tokens: int
    """How many tokens of each row are the prompt's."""


def encode_prompts(
    prompts: Sequence[Prompt], template: Template, settings: TextArguments
) -> tuple[list[EncodedPrompt], Counter]:
    """Tokenizes prompts; too long ones are skipped, cut at the front, or an error, by choice.

    Returns:
        the prompts that stay, and counts of "long prompts skipped" / "long prompts truncated".

    Raises:
        UserError: a prompt is too long and `long_prompts` is "error"; none is left.
    """
    counts: Counter = Counter()
    bos_id = template.tokenizer.bos_token_id
    kept = []
    for prompt in prompts:
        ids = fit_prompt(
            template.encode_prompt(prompt.messages), settings, bos_id, prompt.origin, counts
        )
        if ids is not None:
            kept.append(EncodedPrompt(ids, prompt))
    refuse_empty(len(kept), "prompt", settings, counts)
    return kept, counts


def encode_conversations(
    conversations: Sequence[Conversation],
    template: Template,
    settings: TextArguments,
    what: str = "example",
) -> tuple[list[EncodedExample], Counter]:
    """Tokenizes conversations for SFT; what is too long is skipped (or its prompt truncated).

    A response over `max_response_tokens` loses its end and its end token, so that the model
    never learns to stop in the middle. `what` names one of them where none is left.

    Raises:
        UserError: a prompt is too long and `long_prompts` is "error"; nothing is left.
    """
    counts: Counter = Counter()
    bos_id = template.tokenizer.bos_token_id
    kept = []
    for item in conversations:
        encoded = template.encode_conversation(item.messages)
        size = len(template.encode_prompt(item.messages[:-1]))
        prompt = fit_prompt(encoded.input_ids[:size], settings, bos_id, item.origin, counts)
        if prompt is None:
            continue
        response = encoded.input_ids[size:]
        if len(response) > settings.max_response_tokens:
            counts["long responses truncated"] += 1
            response = response[: settings.max_response_tokens]
        mask = encoded.loss_mask[size - len(prompt) : size]
        mask[:1] = [False] * len(mask[:1])  # nothing stands before the first token to predict it
        kept.append(
            EncodedExample(prompt + response, [*mask, *[True] * len(response)], item.origin)
        )
    refuse_empty(len(kept), what, settings, counts)
    return kept, counts


def encode_pairs(
    pairs: Sequence[Pair],
    template: Template,
    settings: TextArguments,
    what: str = "pair",
    *,
    always_ends: bool,
) -> tuple[list[Comparison], Counter]:
    """Tokenizes pairs, put together by prompt; what is over the limits is counted.

    Args:
        what: names one of the pairs where none is left.
        always_ends: a response over `max_response_tokens` is cut before its end token, which stays
            last: a reward model's score is read there. Otherwise it loses its end token with its
            end, so that a policy does not learn to stop in the middle.

    Raises:
        UserError: a prompt is too long and `long_prompts` is "error"; nothing is left.
    """
    counts: Counter = Counter()
    bos_id = template.tokenizer.bos_token_id
    groups: dict[tuple, list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(tuple(pair.messages), []).append(pair)
    kept = []
    for messages, members in groups.items():
        ids = template.encode_prompt(messages)
        prompt = fit_prompt(ids, settings, bos_id, members[0].origin, counts)
        if prompt is None:
            continue
        texts = list(dict.fromkeys(t for p in members for t in (p.chosen, p.rejected)))
        rows = {}
        for text in texts:
            response = fit_response(text, template, settings, counts, always_ends=always_ends)
            rows[text] = prompt + response
        distinct = [p for p in members if rows[p.chosen] != rows[p.rejected]]
        counts["pairs equal after truncation"] += len(members) - len(distinct)
        if distinct:
            order = {text: i for i, text in enumerate(texts)}
            kept.append(
                Comparison(
                    [rows[t] for t in texts],
                    [(order[p.chosen], order[p.rejected]) for p in distinct],
                    distinct,
                    len(prompt),
                )
            )
    refuse_empty(len(kept), what, settings, counts)
    return kept, +counts


def fit_prompt(
    ids: list[int], settings: TextArguments, bos_id: int | None, origin: str, counts: Counter
) -> list[int] | None:
    """The prompt within `max_prompt_tokens`, or None where it is to be skipped; counts either."""
    if len(ids) <= settings.max_prompt_tokens:
        return ids
    if settings.long_prompts == "error":
        raise UserError(
            f"{origin}: the prompt has {len(ids)} tokens, over max_prompt_tokens "
            f"({settings.max_prompt_tokens}); raise it or set long_prompts to skip or truncate"
        )
    if settings.long_prompts == "truncate":
        counts["long prompts truncated"] += 1
        return shorten_prompt(ids, settings.max_prompt_tokens, bos_id)
    counts["long prompts skipped"] += 1
    return None


def fit_response(
    text: str, template: Template, settings: TextArguments, counts: Counter, *, always_ends: bool
) -> list[int]:
    """A response's ids within `max_response_tokens`, see `encode_pairs`; counts what is cut."""
    ids = template.encode_response(text)
    if len(ids) <= settings.max_response_tokens:
        return ids
    counts["long responses truncated"] += 1
    end = ids[-1:] if always_ends else []
    return ids[: settings.max_response_tokens - len(end)] + end


def refuse_empty(kept: int, what: str, settings: TextArguments, counts: Counter) -> None:
    """Raises UserError when nothing is left after filtering."""
    if kept == 0:
        reasons = ", ".join(f"{n} {name}" for name, n in counts.items()) or "the input is empty"
        raise UserError(
            f"no {what} is left ({reasons}); max_prompt_tokens is {settings.max_prompt_tokens}"
        )


def describe(counts: Counter) -> str:
    """Counts as text: "3 long prompts skipped, 1 …"; empty when there is nothing to report."""
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items()) if n)
