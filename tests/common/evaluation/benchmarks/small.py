"""Two small tasks as the benchmarks' builder gives them, from a file that the test writes."""

import json

from lm_eval.api.task import ConfigurableTask

from common.evaluation.benchmarks.tasks import BenchmarkTask, ParsedAnswer

WORDS = ["red", "blue", "green", "white", "black", "brown", "pink"]


class SmallTask(ConfigurableTask):
    """Choices by log-likelihood, or an answer by generation."""

    def parsed(self, sample, metric):
        said = sample["resps"][0][0]
        if not isinstance(said, str):
            return ParsedAnswer(None, str(sample["target"]), sample[metric] == 1.0, False, 0)
        return ParsedAnswer(said or None, sample["target"], sample[metric] == 1.0, not said, 1)


def write_questions(folder, count=7):
    rows = [
        {
            "question": f"What is number {i} {'and so on ' * (i % 3)}?",
            "choices": [WORDS[(i + k) % 7] for k in range(2 + i % 3)],
            "gold": i % 2,
        }
        for i in range(count)
    ]
    (folder / "test.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows


def small_part(folder, kind, **changes):
    """A part of kind "choices" or "text"; `changes` are of the task's config."""
    config = {
        "task": f"small_{kind}",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "test.json")}},
        "test_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "metadata": {"version": 1},
    }
    if kind == "choices":
        config |= {
            "output_type": "multiple_choice",
            "doc_to_choice": "choices",
            "doc_to_target": "gold",
            "metric_list": [
                {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
                {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
            ],
        }
    else:
        config |= {
            "output_type": "generate_until",
            "doc_to_target": "{{choices[gold]}}",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 12},
            "metric_list": [
                {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
            ],
        }
    metric = "acc" if kind == "choices" else "exact_match"
    mode = "harness" if kind == "choices" else "fathom"
    task = SmallTask(config=config | changes)
    return BenchmarkTask("mmlu", f"small_{kind}", mode, "ours", 2, "local files", metric, task)
