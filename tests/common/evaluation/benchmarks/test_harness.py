"""Mode "harness" against lm-evaluation-harness called by hand, as its documentation tells."""

import json
from pathlib import Path

import pytest

from common.evaluation.benchmarks.tasks import build_tasks

# Stock definition's file, rows asked and shown: by hand, under the hub's columns.
BY_HAND = {
    "mmlu": ("mmlu/default/mmlu_anatomy.yaml", "mmlu", "test-anatomy", "dev-anatomy", 5),
    "arc_e": ("arc/arc_easy.yaml", "ai2_arc/ARC-Easy", "test-0", "train-0", 1),
    "arc_c": ("arc/arc_challenge.yaml", "ai2_arc/ARC-Challenge", "test-0", "train-0", 1),
    "hellaswag": ("hellaswag/hellaswag.yaml", "hellaswag", "val/0000", "train/0000", 1),
    "winogrande": ("winogrande/default.yaml", "winogrande", "dev/rows", "train_xl/rows", 1),
    "bbh": ("bbh/cot_fewshot/date_understanding.yaml", "bbh/date_understanding", "test-0", "", 3),
    "gsm8k": ("gsm8k/gsm8k-cot.yaml", "gsm8k/main", "test-0", "train-0", 8),
    "nq": ("nq_open/nq_open.yaml", "nq_open/nq_open", "validation", "train", 1),
    "race_h": ("race/race.yaml", "hand", "race-test", "race-dev", 1),
    "lambada": ("lambada/lambada_openai.yaml", "hand", "lambada-rest", "lambada-first", 1),
}

SHOWN_APART = ("mmlu", "race_h", "lambada")
"""Those whose definition has no training split that examples would come from."""


def _write_by_hand(folder):
    """RACE as the stock task reads it, a row a passage; LAMBADA's first row and the others."""
    hand = folder / "hand"
    hand.mkdir()
    for part in ("dev", "test"):
        rows = []
        for path in sorted((folder / "race" / "all").glob(f"{part}-high-*.jsonl")):
            questions = [json.loads(line) for line in path.read_text().splitlines()]
            names = ("question", "options", "answer")
            problems = [{name: q[name] for name in names} for q in questions]
            rows.append({"article": questions[0]["article"], "problems": str(problems)})
        (hand / f"race-{part}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    first, *rest = (folder / "lambada" / "test.jsonl").read_text().splitlines()
    (hand / "lambada-first.jsonl").write_text(first)
    (hand / "lambada-rest.jsonl").write_text("\n".join(rest))


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory, hub_data):
    """lm_eval's logged samples of all the tasks above, from YAML files that include the stock's."""
    import datasets
    import lm_eval.tasks

    stock = Path(lm_eval.tasks.__file__).parent
    folder = tmp_path_factory.mktemp("yaml")
    datasets.config.HF_DATASETS_CACHE = str(folder / "cache")
    for name, (yaml, place, asked, shown, shots) in BY_HAND.items():
        files = {
            split: str(next((hub_data / place).glob(f"{stem}*.jsonl")))
            for split, stem in (("asked", asked), ("shown", shown))
            if stem
        }
        asks = "validation_split" if name in ("hellaswag", "winogrande", "nq") else "test_split"
        shows = "fewshot_split" if name in SHOWN_APART else "training_split"
        lines = [
            f"include: {stock / yaml}",
            f"task: hand_{name}",
            "dataset_path: json",
            "dataset_name: null",
            f"dataset_kwargs: {{data_files: {files!r}}}",
            "metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]"
            if name == "lambada"  # its perplexity overflows for a model that knows nothing
            else "repeats: 1",
            *("training_split: null", "validation_split: null"),
            *(f"{asks}: asked", f"num_fewshot: {shots}"),
            *([f"{shows}: shown"] if shown else []),
        ]
        lines = list({line.split(":")[0]: line for line in lines}.values())
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def hub_data(tmp_path_factory, makers):
    folder = tmp_path_factory.mktemp("hub")
    for make in makers.values():
        make(folder, False)
    _write_by_hand(folder)
    return folder


def test_same_prompts_and_scores_as_by_hand(by_hand, hub_data, scripted):
    from unittest.mock import patch

    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(by_hand), include_defaults=False)
    with patch("lm_eval.evaluator.add_env_info"):
        theirs = lm_eval.simple_evaluate(
            model=scripted.Hashed(),
            tasks=[f"hand_{name}" for name in BY_HAND],
            task_manager=manager,
            bootstrap_iters=0,
        )
    tasks, _ = build_tasks(list(BY_HAND), "harness", hub_data, fits=lambda prompt, new: True)
    chosen = {
        task.benchmark: task
        for task in tasks
        if task.subtask in (task.benchmark, "anatomy", "date_understanding")
    }
    ours = scripted.evaluate(scripted.Hashed(), [task.task for task in chosen.values()])
    assert set(chosen) == set(BY_HAND)
    for name, task in chosen.items():
        assert task.origin == "stock, local files"
        mine = ours["samples"][task.task.task_name]
        hand = theirs["samples"][f"hand_{name}"]
        hand = [sample for sample in hand if sample["filter"] == mine[0]["filter"]]
        assert len(mine) == len(hand) >= 2, name
        for a, b in zip(mine, hand, strict=True):
            assert a["arguments"] == b["arguments"], name
            assert a[task.metric] == b[task.metric], name
        filtered = f"{task.metric},{mine[0]['filter']}"
        assert (
            ours["results"][task.task.task_name][filtered]
            == theirs["results"][f"hand_{name}"][filtered]
        )
