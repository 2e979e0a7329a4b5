"""The curves of training, each titled with what a good one looks like, with the alarms on them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from common.evaluation.checks.reward import CHANCE, MIN_WAY_TO_CEILING
from common.evaluation.contenders import best_of_curve, in_order, kl_bound, title
from common.evaluation.health import MAX_KL_PER_SEQUENCE, MIN_EOS_RATE
from common.evaluation.page.costs import aligned
from common.evaluation.page.facts import RunFacts
from common.evaluation.run_files import MODELS, Response, Series
from common.evaluation.summary import compared, splits_of
from common.pages.charts import Axes, Level, Line, histogram, line_chart
from common.pages.html import Markup, element, joined, notes

STEPS = {
    "sft": "optimizer step",
    "reward": "optimizer step",
    "rlhf": "PPO step",
    "dpo": "optimizer step",
}


@dataclass(frozen=True)
class Panel:
    """One chart of a stage's metrics: metric name -> its label."""

    stage: str
    title: str
    unit: str
    lines: dict[str, str]
    levels: tuple[Level, ...] = ()
    bounds: tuple[float, float] | None = None
    band: tuple[str, str] | None = None
    """(metric, its deviation): shaded between metric ± deviation."""


SHARE = (-0.03, 1.03)
REWARD = (
    Panel(
        "rlhf",
        "Reward of the rollouts: good rises, then levels off",
        "normalized score, deviations; band: ± 1 deviation of the rollout",
        {
            "reward/score": "score",
            "reward/total": "score − KL penalty",
            "eval/score": "score, held-out prompts",
        },
        band=("reward/score", "reward/score_std"),
    ),
    Panel(
        "rlhf",
        "Judge on held-out prompts: good rises with the reward; apart from it is hacking",
        "overall, points of 100",
        {"eval/overall": "overall, held-out prompts"},
    ),
    Panel(
        "rlhf",
        "KL to the SFT model: good starts at 0, rises slowly and levels off",
        "nats a response",
        {"kl/sequence_k1": "k1", "kl/sequence_k3": "k3"},
        levels=(Level(MAX_KL_PER_SEQUENCE, f"limit, {MAX_KL_PER_SEQUENCE:g}"),),
    ),
    Panel("rlhf", "KL coefficient β", "deviations a nat", {"kl/coefficient": "β"}),
)
LENGTH = (
    Panel(
        "rlhf",
        "Response length: good settles well below the limit on new tokens",
        "tokens",
        {"response/length": "rollouts", "eval/response_length": "held-out prompts"},
    ),
    Panel(
        "rlhf",
        "Responses that end by themselves: good stays near 1",
        "share of responses",
        {"response/eos_rate": "rollouts", "eval/eos_rate": "held-out prompts"},
        levels=(Level(MIN_EOS_RATE, f"limit, {MIN_EOS_RATE:g}"),),
        bounds=SHARE,
    ),
    Panel(
        "rlhf",
        "Entropy of the policy: good falls gently; a drop to 0 is collapse",
        "nats a token",
        {"policy/entropy": "entropy"},
    ),
)
UPDATES = (
    Panel(
        "rlhf",
        "Value loss: good falls, then stays low",
        "squared deviations",
        {"value/loss": "value loss"},
    ),
    Panel(
        "rlhf",
        "Explained variance of the returns: good nears 1; below 0 is worse than a constant",
        "share of the variance",
        {"value/explained_variance": "explained variance"},
        levels=(Level(0.0, "no better than a constant"),),
    ),
    Panel(
        "rlhf",
        "Clipped shares: good is small and not 0",
        "share of tokens",
        {"policy/clip_fraction": "policy", "value/clip_fraction": "value"},
    ),
    Panel(
        "rlhf",
        "Approximate KL of one update: good stays low, without spikes",
        "nats a token",
        {"policy/approx_kl": "old policy to new"},
    ),
)
BEFORE = (
    Panel(
        "sft",
        "SFT loss: good falls; held-out rising again is overfitting",
        "nats a token",
        {"train/loss": "training", "eval/loss": "held out"},
    ),
    Panel(
        "reward",
        "Reward model, pairs in the labelers' order: good is well above chance",
        "share of pairs",
        {"train/accuracy": "training", "eval/accuracy": "held out"},
        levels=(Level(CHANCE, "chance"),),
        bounds=SHARE,
    ),
    Panel(
        "reward",
        "Ranking loss: good falls; held-out rising again is overfitting",
        "loss a pair",
        {"train/loss": "training", "eval/loss": "held out"},
    ),
    Panel(
        "dpo",
        "DPO loss: good falls from ln 2; held-out rising again is overfitting",
        "nats a pair",
        {"train/loss": "training", "eval/loss": "held out"},
        levels=(Level(math.log(2.0), "ln 2: the reference"),),
    ),
    Panel(
        "dpo",
        "Implicit rewards: good parts chosen from rejected; both far below 0 is drift",
        "nats",
        {"train/chosen_reward": "chosen", "train/rejected_reward": "rejected"},
    ),
    Panel(
        "dpo",
        "Pairs in the right order by implicit reward: good is well above chance",
        "share of pairs",
        {"train/accuracy": "training", "eval/accuracy": "held out"},
        levels=(Level(0.5, "chance"),),
        bounds=SHARE,
    ),
)
LIVE = "benchmark/"


def curves(run: RunFacts, panels: Sequence[Panel]) -> Markup:
    """Charts of those panels that there is something to draw for."""
    charts = []
    for panel in panels:
        if panel.stage in run.metrics:
            charts.append(_chart(panel, run))
    return grid(charts)


def grid(charts: Sequence[str]) -> Markup:
    """Charts beside one another as far as there is room."""
    inside = joined(charts)
    return element("div", inside, class_="charts") if inside else Markup()


def live_benchmarks(run: RunFacts) -> Markup:
    """Benchmarks that the actor was asked while it was trained, five curves a chart."""
    series = run.metrics["rlhf"].series if "rlhf" in run.metrics else {}
    names = sorted(n for n in series if n.startswith(LIVE) and drawable(series, n))
    panels = [
        Panel(
            "rlhf",
            "Benchmarks of the actor during PPO: good does not fall",
            "percent, of few questions",
            {name: name.removeprefix(LIVE) for name in names[i : i + 5]},
        )
        for i in range(0, len(names), 5)
    ]
    return curves(run, panels)


def _chart(panel: Panel, run: RunFacts) -> Markup:
    series = run.metrics[panel.stage].series
    lines = []
    for place, (name, label) in enumerate(panel.lines.items()):
        if drawable(series, name):
            spread = None
            if panel.band and panel.band[0] == name and drawable(series, panel.band[1]):
                spread = _spread(series, *panel.band)
            s = series[name]
            lines.append(Line(label, s.steps.astype(float), s.values, spread, colour=place))
    axes = Axes(
        panel.title,
        STEPS[panel.stage],
        panel.unit,
        levels=(*panel.levels, *_ceiling(run, panel)),
        alarms=tuple(run.alarms.get(panel.stage, ())),
        bounds=panel.bounds,
        include_x=_steps(series),
    )
    return line_chart(axes, lines)


def _ceiling(run: RunFacts, panel: Panel) -> tuple[Level, ...]:
    """The limit that the diagnosis holds a reward model's held-out accuracy to, if there is one."""
    if panel.stage != "reward" or "eval/accuracy" not in panel.lines:
        return ()
    found = (run.stages.get("reward", {}).get("diagnostics") or {}).get("ceiling") or {}
    if found.get("value") is None or found["value"] <= CHANCE:
        return ()
    limit = CHANCE + MIN_WAY_TO_CEILING * (found["value"] - CHANCE)
    words = f"limit, held out: {limit:.3g}, of the labelers' {found['value']:.3g}"
    return (Level(limit, words),)


def _steps(series: Mapping[str, Series]) -> tuple[float, ...]:
    """A stage's first and last step: all its charts show the same ones, alarms included."""
    steps = [float(s.steps[end]) for s in series.values() if s.steps.size for end in (0, -1)]
    return (min(steps), max(steps)) if steps else ()


def _spread(series: Mapping[str, Series], name: str, deviation: str) -> np.ndarray:
    """The deviation at each step of the metric, `[points]`; NaN where it is not known."""
    known = dict(zip(series[deviation].steps.tolist(), series[deviation].values, strict=True))
    return np.array([known.get(step, math.nan) for step in series[name].steps.tolist()])


def drawable(series: Mapping[str, Series], name: str) -> bool:
    """Whether a metric has a value anywhere."""
    return name in series and bool(np.isfinite(series[name].values).any())


def histograms(run: RunFacts) -> Markup:
    """Rewards of held-out answers before and after PPO, a chart a split; best-of-n beside them."""
    charts = []
    decoding, splits = compared(run.evaluation)
    for split in splits:
        rows = [r for r in run.responses if r.split == split and r.decoding == decoding]
        names = in_order(r.model for r in rows)
        groups = [
            (title(name), [r.reward for r in rows if r.model == name and r.reward is not None])
            for name in names
            if name in MODELS or name.startswith("best_of_")
        ]
        axes = Axes(
            f"Reward of the answers to held-out prompts, {split}",
            "raw score of the reward model",
            "percent of the model's answers",
        )
        charts.append(histogram(axes, groups))
    return grid(charts)


def frontier(run: RunFacts) -> Markup:
    """Reward against KL over training, and what best-of-n would buy for its KL.

    Scores are normalized by the mean and deviation of the reward model's reference responses, as
    PPO sees them.
    """
    series = run.metrics["rlhf"].series if "rlhf" in run.metrics else {}
    if not drawable(series, "kl/sequence_k1") or not drawable(series, "reward/score"):
        return Markup()
    lines = []
    for name, label in (
        ("reward/score", "PPO, rollouts"),
        ("eval/score", "PPO, held-out prompts"),
    ):
        if drawable(series, name):
            steps, (kl, score) = aligned([series["kl/sequence_k1"], series[name]])
            watched = name == "eval/score"
            points = tuple(
                f"step {step}: KL {a:.2f} nats, score {b:.2f} deviations"
                for step, a, b in zip(steps.tolist(), kl, score, strict=True)
                if watched
            )
            colour = len(lines)
            lines.append(Line(label, kl, score, points=points, joined=watched, colour=colour))
    reference = _best_of_line(run, len(lines))
    axes = Axes(
        "Reward against KL: good is high and to the left",
        "KL to the SFT model, nats a response",
        "normalized score, deviations",
        include_x=(0.0,),
    )
    words = [
        "Each point is a PPO step; held-out points are joined in their order, each at the KL of "
        "that step's rollouts."
    ]
    if reference is not None:
        lines.append(reference[0])
        words.append(
            "Best-of-n: the expected reward of the best of n SFT samples, at its KL bound "
            "log n − (n − 1)/n, for n = 1 … "
            f"{reference[1]} on {reference[2]}. Its KL is at most that, so the true line is at "
            "the left of the one drawn; what is above it, best-of-n cannot buy so cheaply."
        )
    return joined([grid([line_chart(axes, lines)]), notes(*words)])


def _best_of_line(run: RunFacts, colour: int) -> tuple[Line, int, str] | None:
    """Best-of-n for n = 1 … N on one split: the line, N, and the split's name."""
    scale = run.stages.get("reward", {}).get("scores") or {}
    mean, std = scale.get("mean"), scale.get("std")
    rows = [r for r in run.responses if len(r.scores) > 1]
    if mean is None or not std or not rows:
        return None
    split = _training_split(run, rows)
    curves_of = [best_of_curve(r.scores) for r in rows if r.split == split]
    most = min(map(len, curves_of))
    expected = (np.mean([c[:most] for c in curves_of], axis=0) - mean) / std
    bounds = np.array([kl_bound(n) for n in range(1, most + 1)])
    told = tuple(
        f"best of {n}: KL at most {x:.2f} nats, score {y:.2f} deviations"
        for n, x, y in zip(range(1, most + 1), bounds, expected, strict=True)
    )
    line = Line("best of n", bounds, expected, colour=colour, points=told, hollow=True)
    return line, most, split


def _training_split(run: RunFacts, rows: Sequence[Response]) -> str:
    """The split whose prompts PPO was watched on; the first one where that is not known."""
    watched = _paths(run.settings.get("rlhf", {}).get("eval_data"))
    splits = list(dict.fromkeys(r.split for r in rows))
    for source in run.settings.get("evaluation", {}).get("data") or []:
        for split in splits:
            if f'"{split}"' in str(source) and any(path in str(source) for path in watched):
                return split
    return next((s for s in splits_of(run.evaluation) if s in splits), splits[0])


def _paths(value: Any) -> list[str]:  # noqa: ANN401
    return [str(v) for v in value] if isinstance(value, list) else []
