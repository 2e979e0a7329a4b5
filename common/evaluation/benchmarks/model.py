"""A policy of this project as lm-evaluation-harness's language model.

Every rank is given all requests and looks to the harness like the only one. Requests are dealt out
over ranks in here, and their results are put together on every rank: what a task makes of them does
not depend on the number of ranks.
"""

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    normalize_gen_kwargs,
    postprocess_generated_text,
)

from common.config.arguments import SamplingArguments
from common.errors import NotFinite, UserError
from common.evaluation.benchmarks.context import Context
from common.evaluation.benchmarks.scoring import Likelihood, Pair, score_continuations
from common.hybrid_engine.engine import HybridRollout
from common.hybrid_engine.generation import CHECK_EVERY
from common.training.distributed import fail_together, gather_objects, rank, world_size
from common.training.watchdog import WATCHDOG

Item = TypeVar("Item")
Key = TypeVar("Key", bound=Hashable)
Answer = TypeVar("Answer")

DEFAULT_TOKENS = 256
"""Tokens of an answer where a task names no limit, as the harness has it."""


class PolicyLM(TemplateLM):
    """Generates by the project's own rollouts, greedily; scores by the policy's own forward."""

    def __init__(self, rollouts: HybridRollout, tokenizer: Any, batch_size: int) -> None:
        """Args:
        rollouts: of the policy, which may be in training and spread over ranks.
        batch_size: sequences at a time on each rank.
        """
        super().__init__()
        self.rollouts = rollouts
        self.tokenizer = tokenizer
        self.batch_size = batch_size
        self.context = Context.of(rollouts.model.config, tokenizer)
        self.checked = False
        self.cut: set[str] = set()
        """Prompts that lost their beginning because they were too long."""
        self.sampling = SamplingArguments(generation_batch_size=batch_size)

    @property
    def eot_token_id(self) -> int:
        """The end token's id."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """What a text without a context is scored behind: the beginning token, or the end token."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else first

    def tok_encode(
        self,
        string: str,
        add_special_tokens: bool | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[int]:
        """See `Context.encode`."""
        return self.context.encode(string, add_special_tokens)

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:  # noqa: ANN401
        """Greedy answers, each cut before its first stop sequence. A collective."""
        found: list[str] = [""] * len(requests)
        kinds: dict[tuple[int, tuple[str, ...]], list[int]] = {}
        for i, request in enumerate(requests):
            settings = normalize_gen_kwargs(request.args[1], DEFAULT_TOKENS)
            if settings.get("do_sample"):
                raise UserError(
                    f"{request.task_name}: the task asks for sampling, but benchmarks are answered "
                    "greedily"
                )
            until = handle_stop_sequences(settings.get("until"), eos=None)
            kinds.setdefault((settings["max_gen_toks"], tuple(until)), []).append(i)
        for (limit, until), places in kinds.items():
            contexts = [requests[i].args[0] for i in places]
            for i, text in zip(places, self._generate(contexts, limit, until), strict=True):
                found[i] = text
        return found

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:  # noqa: ANN401
        """As the harness has it; without a progress bar of its own. A collective."""
        return super().loglikelihood(requests, disable_tqdm=True)

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:  # noqa: ANN401
        """None of the benchmarks measures the perplexity of whole texts."""
        raise UserError("benchmarks of whole texts' perplexity are not supported")

    def _generate(self, contexts: Sequence[str], limit: int, until: tuple[str, ...]) -> list[str]:
        """Answers to prompts that have the same settings."""
        room = self.context.room(limit)
        most = max(1, self.context.length - room)
        whole = [tuple(self.tok_encode(c)) or (self.prefix_token_id,) for c in contexts]
        self.cut |= {c for c, ids in zip(contexts, whole, strict=True) if len(ids) > most}
        prompts = [ids[-most:] for ids in whole]
        stop = stops_at(self.tokenizer, until)
        if not self.checked:  # the same few rows on every rank: whatever is wrong is so on all
            self.checked = True
            self.rollouts.respond(
                prompts[:4],
                seed=0,
                greedy=True,
                sampling=self.sampling,
                max_new_tokens=min(room, CHECK_EVERY),
                check=True,
            )

        def answer(mine: Sequence[tuple[int, ...]]) -> list[str]:
            rollout = self.rollouts.respond(
                mine,
                seed=0,
                greedy=True,
                sampling=self.sampling,
                max_new_tokens=room,
                stop=stop if until else None,
            )
            return [self._text(ids, until) for ids in rollout.response_ids()]

        return shared_out(prompts, lambda ids: (len(ids), ids), answer)

    def _text(self, ids: Sequence[int], until: tuple[str, ...]) -> str:
        text = self.tokenizer.decode(ids, skip_special_tokens=True)
        return postprocess_generated_text(text, stop=list(until), think_end_token=None)

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[Any, list[int], list[int]]],
        disable_tqdm: bool = True,
        **kwargs: Any,  # noqa: ANN401
    ) -> list[tuple[float, bool]]:
        """Likelihoods of encoded continuations. A collective."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for i, (texts, context, continuation) in enumerate(requests):
            groups.setdefault(tuple(context), []).append(i)
            if texts and len(context) + len(continuation) > self.context.length + 1:
                self.cut.add(texts[0])
        pairs = [
            [(context, tuple(requests[i][2])) for i in places] for context, places in groups.items()
        ]

        def length(group: Sequence[Pair]) -> tuple[int, Any]:
            return len(group[0][0]) + sum(len(rest) for _, rest in group), group

        scored = shared_out(pairs, length, self._score)
        found: dict[int, Likelihood] = {}
        for places, likelihoods in zip(groups.values(), scored, strict=True):
            found |= dict(zip(places, likelihoods, strict=True))
        return [tuple(found[i]) for i in range(len(requests))]

    def _score(self, groups: Sequence[Sequence[Pair]]) -> list[list[Likelihood]]:
        """This rank's groups of pairs, some at a time.

        Raises:
            NotFinite: a log-likelihood is NaN, after all forwards, which may be collectives. (The
                harness would take it for the greatest, and give a score.)
        """
        batches: list[list[Sequence[Pair]]] = [[]]
        for group in groups:
            if batches[-1] and sum(map(len, batches[-1])) + len(group) > self.batch_size:
                batches.append([])
            batches[-1].append(group)
        found: list[list[Likelihood]] = []
        most = len(batches)
        if self.rollouts.together:  # then all ranks run equally many forwards
            most = max(gather_objects(len(batches)))  # type: ignore[type-var]
        with self.rollouts.phase() as model:
            for number in range(most):
                WATCHDOG.alive()
                batch = batches[min(number, len(batches) - 1)]
                scored = score_continuations(model, batch, self.context.length)
                found += scored if number < len(batches) else []
        if any(math.isnan(one.logprob) for group in found for one in group):
            raise NotFinite(
                "the model's log-probabilities are NaN; its weights are broken, or dtype does not "
                "suit it: try --dtype fp32"
            )
        return found


def shared_out(
    items: Sequence[Item],
    key: Callable[[Item], Any],
    work: Callable[[Sequence[Item]], Sequence[Answer]],
) -> list[Answer]:
    """`work` on all items by all ranks, the results on every rank. A collective.

    Items are dealt out in the order of `key`, the lightest first, so that ranks get equal work. A
    rank that would get none works on the last one, too: `work` may be a collective.

    Args:
        items: the same on every rank, at least one.
        work: results for some items, in their order.

    Raises:
        NotFinite: some rank's `work` raised it.
    """
    order = sorted(range(len(items)), key=lambda i: key(items[i]))
    mine = order[rank() :: world_size()] or order[-1:]
    results: dict[int, Answer] = {}
    fault = ""
    try:
        results = dict(zip(mine, work([items[i] for i in mine]), strict=True))
    except NotFinite as error:  # of this rank's items; the others must not wait for it
        fault = str(error)
    fail_together(fault, NotFinite)
    everything: dict[int, Answer] = {}
    for part in gather_objects(results):
        everything |= part  # type: ignore[operator]
    return [everything[i] for i in range(len(items))]


def stops_at(tokenizer: Any, until: Sequence[str]) -> Callable[[Sequence[int]], bool]:
    """Whether a response has come to one of its stop sequences, seen from its last tokens alone.

    It is asked every `CHECK_EVERY` tokens, so that no more need be decoded each time. The text is
    cut where the first one begins later on; what is overlooked here costs time only.
    """
    reach = CHECK_EVERY + 4 * max((len(s) for s in until), default=0)  # a token may be one byte

    def stop(ids: Sequence[int]) -> bool:
        text = tokenizer.decode(ids[-reach:], skip_special_tokens=True)
        return any(s in text for s in until if s)

    return stop
