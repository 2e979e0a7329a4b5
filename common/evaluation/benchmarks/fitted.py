"""lm-evaluation-harness's task, on rows that are at hand, with prompts that fit the model.

This module imports lm_eval, which takes seconds: import it inside functions.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Any

import datasets
import numpy as np
from lm_eval.api.metrics import mean
from lm_eval.api.samplers import ContextSampler
from lm_eval.api.task import ConfigurableTask

from common.evaluation.benchmarks.files import Row
from common.evaluation.benchmarks.parsing import phrase_f1
from common.evaluation.benchmarks.prompts import Prompt
from common.evaluation.benchmarks.tasks import Fits, ParsedAnswer
from common.training.watchdog import WATCHDOG

_DEFAULT_NEW_TOKENS = 256
"""What lm_eval's models generate at most where a task doesn't say."""


class _LastDraw(ContextSampler):
    """A task's own sampler of examples, whose last draw can be used again, without its first ones.

    Dropping a shot must not draw anew: the other examples stay, and so do the next questions'.
    """

    def __init__(self, sampler: ContextSampler) -> None:
        self._sampler = sampler
        self._drawn: Sequence[Row] = ()
        self.again = False

    def sample(self, n: int, *args: Any, **kwargs: Any) -> Sequence[Row]:  # noqa: ANN401
        if not self.again:
            self._drawn = self._sampler.sample(n, *args, **kwargs)
        return self._drawn[len(self._drawn) - n :]

    def set_rnd(self, rnd: int | None) -> "_LastDraw":
        self._sampler.set_rnd(rnd)
        return self


class FittedTask(ConfigurableTask):
    """A task that drops whole shots from the front of a prompt until it fits, and counts them.

    Each logged row has the number as "shots_dropped", beside the task's own metrics.
    """

    def __init__(self, config: dict[str, Any], parts: dict[str, list[Row]], fits: Fits | None):
        """
        Args:
            config: as in lm_eval's YAML files.
            parts: split named in `config` -> its rows.
            fits: whether a prompt and so many new tokens fit; None for always.
        """
        self._parts = parts
        self._fits = fits
        self._dropped: dict[str, int] = {}
        self._asked: datasets.Dataset | None = None
        super().__init__(config=config)
        self._aggregation_list["shots_dropped"] = mean
        self._higher_is_better["shots_dropped"] = False
        if hasattr(self, "sampler"):
            self.sampler = _LastDraw(self.sampler)

    def download(self, dataset_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Takes the rows at hand in place of a download."""
        self.dataset = datasets.DatasetDict(
            {name: datasets.Dataset.from_list(rows) for name, rows in self._parts.items()}
        )

    @property
    def eval_docs(self) -> datasets.Dataset:
        """The questions; a definition that changes its rows first (HellaSwag) does so once."""
        if self._asked is None:
            self._asked = super().eval_docs
        return self._asked

    def fewshot_context(self, doc: Row, num_fewshot: int, **kwargs: Any) -> str | list[str]:  # noqa: ANN401
        """The prompt (several, where the choices are in it), with as many shots as fit."""
        context = super().fewshot_context(doc, num_fewshot=num_fewshot, **kwargs)
        shots = num_fewshot
        if self._fits is not None and num_fewshot:
            self.sampler.again = True
            try:
                while shots and not self._fit(doc, context):
                    shots -= 1
                    context = super().fewshot_context(doc, num_fewshot=shots, **kwargs)
            finally:
                self.sampler.again = False
        self._dropped[_key(doc)] = num_fewshot - shots
        return context

    def _fit(self, doc: Row, context: str | list[str]) -> bool:
        """Whether the prompt fits with what is generated, or with its longest continuation."""
        if self.OUTPUT_TYPE == "generate_until":
            limit = (self.config.generation_kwargs or {}).get("max_gen_toks", _DEFAULT_NEW_TOKENS)
            return self._fits(context, limit)
        if isinstance(context, list):
            return self._fits(max(context, key=len) + f" {self.doc_to_target(doc)}", 0)
        if self.config.doc_to_choice is None:
            continuations = [self.doc_to_target(doc)]
        else:
            continuations = self.doc_to_choice(doc)
        return self._fits(f"{context} {max(continuations, key=len)}", 0)

    def process_results(self, doc: Row, results: Any) -> dict[str, Any]:  # noqa: ANN401
        """The metrics of one question, and the shots that its prompt lacked."""
        WATCHDOG.alive()  # all of a part's questions are scored in one go, a formula for 20 s
        dropped = float(self._dropped.get(_key(doc), 0))
        return self.scores(doc, results) | {"shots_dropped": dropped}

    def scores(self, doc: Row, results: Any) -> dict[str, Any]:  # noqa: ANN401
        """The task's own metrics of one question."""
        return super().process_results(doc, results)

    def parsed(self, sample: dict[str, Any], metric: str) -> ParsedAnswer:
        """What a logged row says, by the task's own definition."""
        answer, target = self._answer_and_target(sample, metric)
        return ParsedAnswer(
            answer=answer,
            target=target,
            correct=float(sample[metric]) > 0.5,
            unparsed=answer is None,
            shots_dropped=int(sample["shots_dropped"]),
        )

    def _answer_and_target(self, sample: dict[str, Any], metric: str) -> tuple[str | None, str]:
        doc, results = sample["doc"], sample["filtered_resps"]
        if self.OUTPUT_TYPE == "generate_until":
            target = sample["target"]
            target = " | ".join(map(str, target)) if isinstance(target, list) else str(target)
            text = str(results[0])
            return None if text == "[invalid]" or not text.strip() else text, target
        if self.OUTPUT_TYPE == "loglikelihood":
            target = self.doc_to_target(doc).strip()
            return target if results[0][1] else "(another text)", target
        choices = self.doc_to_choice(doc)
        gold = self.doc_to_text(doc) if self.multiple_input else self.doc_to_target(doc)
        accepted = [choices[i] for i in (gold if isinstance(gold, list) else [gold])]
        target = " | ".join(accepted)
        if metric == "exact_match":  # whether one of the accepted answers is the likeliest text
            greedy = [choices[i] for i, result in enumerate(results) if result[1]]
            return greedy[0] if greedy else "(another text)", target
        scores = np.array([result[0] for result in results], dtype=np.float64)
        if metric == "acc_norm":
            scores = scores / np.array([float(len(choice)) for choice in choices])
        return choices[int(np.argmax(scores))], target


class FathomTask(FittedTask):
    """Greedy generation, then parsing of the text, then exact match.

    A logged row has "exact_match" and "unparsed" (0 or 1), and "f1" where phrases are asked.
    """

    def __init__(
        self,
        name: str,
        prompt: Prompt,
        asked: list[Row],
        shown: list[Row],
        max_new_tokens: int,
        fits: Fits | None,
    ) -> None:
        """
        Args:
            name: the task's name in lm_eval's results.
            prompt: how questions are put and answers are read.
            asked: rows of the questions.
            shown: rows of the worked examples, the same before every question.
            max_new_tokens: limit of an answer.
            fits: as in `FittedTask`.
        """
        self._prompt = prompt
        metrics = ["exact_match", "unparsed", *(["f1"] if prompt.score_f1 else [])]
        config = {
            "task": name,
            "output_type": "generate_until",
            "test_split": "test",
            "description": f"{prompt.description}\n\n" if prompt.description else "",
            "doc_to_text": prompt.question,
            "doc_to_target": _target(prompt.targets),
            "target_delimiter": "",
            "fewshot_delimiter": "\n\n",
            "num_fewshot": len(shown),
            "process_results": _overridden,
            "generation_kwargs": {
                "until": list(prompt.stops),
                "max_gen_toks": max_new_tokens,
                "do_sample": False,
                "temperature": 0.0,
            },
            "metric_list": [
                {"metric": m, "aggregation": "mean", "higher_is_better": m != "unparsed"}
                for m in metrics
            ],
        }
        if shown:
            config["fewshot_config"] = {
                "sampler": "first_n",
                "samples": shown,
                "doc_to_target": prompt.shown,
            }
        super().__init__(config, {"test": asked}, fits)

    def scores(self, doc: Row, results: Sequence[str]) -> dict[str, Any]:
        """Of one output."""
        answer, targets = self._prompt.answer_in(results[0], doc), self._prompt.targets(doc)
        correct = answer is not None and self._prompt.same(answer, targets)
        scores = {"exact_match": float(correct), "unparsed": float(answer is None)}
        if self._prompt.score_f1:
            scores["f1"] = phrase_f1(answer or "", targets)
        return scores

    def _answer_and_target(self, sample: dict[str, Any], metric: str) -> tuple[str | None, str]:
        doc = sample["doc"]
        answer = self._prompt.answer_in(sample["resps"][0][0], doc)
        return answer, " | ".join(self._prompt.targets(doc))


def _overridden(doc: Row, results: Sequence[str]) -> dict[str, float]:
    """Tells lm_eval not to look for metrics of these names; the method is what scores.

    The method itself must not stand in the config, which lm_eval copies with all it holds.
    """
    raise AssertionError("FathomTask.scores does it")


def _target(targets: Callable[[Row], list[str]]) -> Callable[[Row], str | list[str]]:
    """The right answer as lm_eval logs it: a list only where several are accepted."""

    def one_or_many(row: Row) -> str | list[str]:
        accepted = targets(row)
        return accepted[0] if len(accepted) == 1 else accepted

    return one_or_many


def _key(doc: Row) -> str:
    """A question's identity on every pass over the rows."""
    text = json.dumps(doc, sort_keys=True, default=str, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
