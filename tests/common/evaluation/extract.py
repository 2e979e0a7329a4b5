"""What a diagnosis reads of a run, cut to some kilobytes: how `extracts/*.json` here were made.

bash launch/quickstart.sh                                        # runs/quickstart
for kind in labels sft ppo; do bash launch/broken.sh $kind runs/quickstart runs/$kind; done
folder=tests/common/evaluation/extracts
python -m tests.common.evaluation.extract runs/quickstart $folder/healthy.json
python -m tests.common.evaluation.extract runs/labels $folder/labels.json
…
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from common.evaluation.run_files import METRIC_STAGES, Metrics, Series, read_metrics
from common.evaluation.summary import build_summary

POINTS = 20
"""A curve, about; the first and the last one are among them. Evaluations are all kept."""
KEPT = ("sft", "sample", "reward", "rlhf")
SERIES = {
    "sft": ("train/loss", "eval/loss"),
    "reward": ("eval/accuracy",),
    "rlhf": (
        *("reward/score", "policy/clip_fraction", "policy/approx_kl", "policy/entropy"),
        *("value/explained_variance", "rollout/logprob_gap", "response/length"),
        *("response/eos_rate", "kl/sequence_k1", "eval/score", "eval/overall"),
    ),
}


def extract(run: Path) -> dict[str, Any]:
    """The run's summary and metrics as `restore` takes them."""
    summary = build_summary(run)
    metrics = {stage: read_metrics(run / stage / "metrics.jsonl") for stage in METRIC_STAGES}
    dropped = ("planned", "outputs", "versions", "curve", "curve_after", "rewrites", "by_gap")
    stages = {name: _without(summary["stages"][name], dropped) for name in KEPT}
    evaluation = {
        key: {name: _without(split, ("criteria",), keep="difference") for name, split in it.items()}
        if key == "greedy"
        else it
        if key == "decoding"
        else _without(it, ("criteria",), keep="difference")
        for key, it in summary["evaluation"].items()
    }
    curves = {
        stage: {
            "events": list(metrics[stage].events[:3]),
            "series": {
                name: _thinned(metrics[stage].series[name], every=name.startswith("eval/"))
                for name in names
                if name in metrics[stage].series
            },
        }
        for stage, names in SERIES.items()
    }
    return {
        "summary": {"seed": summary["seed"], "stages": stages, "evaluation": evaluation},
        "metrics": curves,
    }


def restore(path: Path) -> tuple[dict[str, Any], dict[str, Metrics]]:
    """(summary, metrics) as `diagnose` takes them."""
    found = json.loads(path.read_text(encoding="utf-8"))
    metrics = {
        stage: Metrics(
            {
                name: Series(np.array(steps), np.array(values, dtype=np.float64))
                for name, (steps, values) in part["series"].items()
            },
            [],
            tuple(part["events"]),
        )
        for stage, part in found["metrics"].items()
    }
    return found["summary"], metrics


def _thinned(series: Series, every: bool) -> list[list[float]]:
    number = len(series.steps)
    wanted = number if every else min(number, POINTS)
    places = np.unique(np.linspace(0, number - 1, wanted).round().astype(int))
    steps, values = series.steps[places].tolist(), series.values[places].tolist()
    return [steps, [float(f"{value:.4g}") for value in values]]


def _without(value: Any, dropped: tuple[str, ...], keep: str = "") -> Any:
    """The same without some keys, at any depth but under `keep`; numbers of four digits."""
    if isinstance(value, dict):
        return {
            key: _without(item, () if key == keep else dropped, keep)
            for key, item in value.items()
            if key not in dropped
        }
    if isinstance(value, list):
        return [_without(item, dropped, keep) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


if __name__ == "__main__":
    text = json.dumps(extract(Path(sys.argv[1])), ensure_ascii=False, separators=(",", ":"))
    Path(sys.argv[2]).write_text(text.replace('},"', '},\n"') + "\n", encoding="utf-8")
