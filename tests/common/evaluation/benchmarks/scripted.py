"""Models for lm_eval that say what a test tells them to; and how a test runs them."""

import hashlib

from lm_eval.api.model import LM


class ByFacts(LM):
    """Answers the question that stands last in a prompt: rightly, wrongly or unreadably."""

    def __init__(self, facts, manner, mode):
        super().__init__()
        self.facts, self.manner, self.mode = facts, manner, mode

    def _asked(self, prompt):
        last = max(self.facts, key=lambda fact: (prompt.rfind(fact.marker), len(fact.marker)))
        assert last.marker in prompt, prompt[-300:]
        return last

    def generate_until(self, requests, disable_tqdm=False):
        outputs = []
        for request in requests:
            fact = self._asked(request.args[0])
            right = fact.says
            if self.mode == "harness":
                right = getattr(fact, "harness_says", None) or right
            outputs.append({"right": right, "wrong": fact.wrong, "noise": " …?! "}[self.manner])
        return outputs

    def loglikelihood(self, requests, disable_tqdm=False):
        outputs = []
        for request in requests:
            context, continuation = request.args
            fact = self._asked(context)
            good = continuation.strip() in fact.continuations
            good = good and context.rfind(fact.likely_after) >= context.rfind(fact.marker)
            good = good == (self.manner == "right")
            outputs.append((0.0 if good else -100.0, good))
        return outputs

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise AssertionError("nothing asks for this")


class Hashed(LM):
    """Log-likelihoods and texts that depend on nothing but the request's own text."""

    def _number(self, *texts):
        return int(hashlib.sha256("\0".join(texts).encode()).hexdigest()[:8], 16)

    def generate_until(self, requests, disable_tqdm=False):
        numbers = [self._number(request.args[0]) for request in requests]
        return [f"Hm. So the answer is ({'ABC'[n % 3]}). The answer is {n % 20}." for n in numbers]

    def loglikelihood(self, requests, disable_tqdm=False):
        numbers = [self._number(*request.args) for request in requests]
        return [(-(n % 1000) / 10, n % 3 == 0) for n in numbers]

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        raise AssertionError("nothing asks for this")


def evaluate(model, tasks, limit=None):
    """lm_eval's results of some of its tasks."""
    from unittest.mock import patch

    import lm_eval
    from lm_eval.tasks import TaskManager

    # It lists the packages that are installed, which takes longer than all else here.
    with patch("lm_eval.evaluator.add_env_info"):
        return lm_eval.simple_evaluate(
            model=model,
            tasks=tasks,
            limit=limit,
            bootstrap_iters=0,
            log_samples=True,
            task_manager=TaskManager(include_defaults=False),
        )


def parsed(results, task):
    """Every answer of one of our tasks."""
    return [task.parsed(sample) for sample in results["samples"][task.task.task_name]]
