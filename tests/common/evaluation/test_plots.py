"""Which pictures are drawn; what is on them was looked at by eye."""

import subprocess
import sys

import pytest

from common.evaluation.plots import CURVES, make_plots
from common.evaluation.run_files import METRIC_STAGES, read_metrics
from common.evaluation.summary import build_summary


def drawn(run, folder):
    metrics = {stage: read_metrics(run / stage / "metrics.jsonl") for stage in METRIC_STAGES}
    return make_plots(folder, metrics, build_summary(run))


def test_a_whole_run_has_every_picture(run, tmp_path):
    plots = drawn(run, tmp_path / "plots")
    wanted = {"reward", "kl", "length", "entropy", "value", "sft", "reward_model", "time"}
    assert wanted | {"evaluation", "policy_update"} == set(plots)
    for path in plots.values():
        assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 3000


def test_only_what_was_measured_is_drawn(tmp_path, write_lines):
    write_lines(
        tmp_path / "rlhf" / "metrics.jsonl",
        [{"step": 1, "policy/entropy": 1.0, "value/loss": None, "time/train": 2.0}],
    )
    assert set(drawn(tmp_path, tmp_path / "plots")) == {"entropy", "time"}


def test_lost_values_are_no_error(tmp_path, write_lines):
    lost = float("nan")
    rows = [
        {"step": 1, "reward/score": 1.0, "reward/score_std": lost, "time/generate": lost},
        {"step": 2, "reward/score": lost, "reward/score_std": 1.0, "time/generate": 1.0},
        {"step": 3, "reward/score": 2.0, "time/generate": 1.0},
    ]
    write_lines(tmp_path / "rlhf" / "metrics.jsonl", rows)
    assert set(drawn(tmp_path, tmp_path / "plots")) == {"reward", "time"}


def test_a_gap_stays_a_gap(tmp_path, write_lines):
    from matplotlib.figure import Figure

    from common.evaluation.plots import _line

    path = tmp_path / "rlhf" / "metrics.jsonl"
    write_lines(path, [{"step": s, "a": float("nan") if s == 2 else 1.0} for s in (1, 2, 3)])
    axes = Figure().subplots()
    _line(axes, read_metrics(path).series["a"], "a", "black")
    (line,) = axes.lines
    assert [value == 1.0 for value in line.get_ydata()] == [True, False, True]


@pytest.mark.parametrize("judge", ["rubric", "reward"])
def test_each_judge_has_its_own_axes(tmp_path, response_row, write_lines, judge):
    from common.evaluation.plots import _evaluation

    rows = [response_row("a $x", model=m) for m in ("sft", "rlhf")]
    if judge == "reward":
        rows += [response_row("mine", model=m, overall=None) for m in ("sft", "rlhf")]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    figure = _evaluation(build_summary(tmp_path)["evaluation"])
    assert len(figure.axes) == (1 if judge == "rubric" else 2)
    figure.savefig(tmp_path / "x.png")


def test_every_panel_has_a_unit_and_a_title_that_says_what_good_is():
    for curves in CURVES:
        assert curves.steps and curves.panels[0].title
        assert all(panel.unit for panel in curves.panels)
        assert any("good" in panel.title for panel in curves.panels)


def test_importing_the_report_loads_no_plotting_or_deep_learning_library():
    code = (
        "import sys, common.evaluation.report; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_contender_is_drawn_beside_the_others(four):
    from common.evaluation.plots import _evaluation

    (axes,) = _evaluation(build_summary(four)["evaluation"]).axes
    labels = axes.get_legend_handles_labels()[1]
    assert labels == ["SFT", "RLHF", "best of 3", "dpo"]
    places = sorted(float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) < 3)
    assert places[0] >= -0.5 and len(set(places)) >= 4


def test_dpo_has_its_picture(tmp_path, write_lines):
    rows = [{"step": s, "train/loss": 0.69 - s / 100, "train/margin": s} for s in (1, 2, 3)]
    write_lines(tmp_path / "dpo" / "metrics.jsonl", rows)
    assert set(drawn(tmp_path, tmp_path / "plots")) == {"dpo"}
