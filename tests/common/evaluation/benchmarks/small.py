"""Two small tasks as the benchmarks' builder gives them."""

import datasets
from lm_eval.api.task import ConfigurableTask

from common.evaluation.benchmarks.tasks import BenchmarkTask, ParsedAnswer

WORDS = ["red", "blue", "green", "white", "black", "brown", "pink"]
QUESTIONS = [
    {
        "question": f"What is number {i} {'and so on ' * (i % 3)}?",
        "choices": [WORDS[(i + k) % 7] for k in range(2 + i % 3)],
        "gold": i % 2,
    }
    for i in range(7)
]
CHOICES = {
    "output_type": "multiple_choice",
    "doc_to_choice": "choices",
    "doc_to_target": "gold",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
TEXT = {
    "output_type": "generate_until",
    "doc_to_target": "{{choices[gold]}}",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


class SmallTask(ConfigurableTask):
    """Choices by log-likelihood, or an answer by generation."""

    def download(self, *args, **kwargs):
        self.dataset = datasets.DatasetDict({"test": datasets.Dataset.from_list(QUESTIONS)})

    def parsed(self, sample, metric):
        said = sample["resps"][0][0]
        if not isinstance(said, str):
            return ParsedAnswer(None, str(sample["target"]), sample[metric] == 1.0, False, 0)
        return ParsedAnswer(said or None, sample["target"], sample[metric] == 1.0, not said, 1)


def small_part(kind, benchmark="arc_e", **changes):
    """A part of kind "choices" or "text"; `changes` are of the task's config."""
    config = {
        "task": f"small_{kind}",
        "dataset_path": "none",
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        **(CHOICES if kind == "choices" else TEXT),
        **changes,
    }
    metric = "acc" if kind == "choices" else "exact_match"
    task = SmallTask(config=config)
    mode = "harness" if kind == "choices" else "fathom"
    return BenchmarkTask(benchmark, f"small_{kind}", mode, "ours", 2, "local files", metric, task)
