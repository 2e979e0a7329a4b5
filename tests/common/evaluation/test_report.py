"""report.html: what it says, what it leaves out, and that no model can write it."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml

from common.evaluation.criteria import CRITERIA, RECONSTRUCTED_WEIGHTS
from common.evaluation.judges.answers import mark_of
from common.evaluation.judges.judgements import Judged, Judgement, Rating, write_judgement
from common.evaluation.judges.table import write_criteria
from common.evaluation.page.curves import BEFORE, LENGTH, REWARD, UPDATES
from common.evaluation.page.facts import read_facts
from common.evaluation.page.samples import MOST_CHARACTERS, browser_data
from common.evaluation.page.scores import units
from common.evaluation.page.verdict import checks, verdict
from common.evaluation.report import main, write_report
from tests.pages import Reader

PANELS = (*REWARD, *LENGTH, *UPDATES, *BEFORE)


def report(run):
    return Reader(write_report(run)[1].read_text(encoding="utf-8"))


def embedded(run):
    text = (run / "report.html").read_text(encoding="utf-8")
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text)[1]
    )


def test_everything_is_in_one_page_that_can_be_moved(run, tmp_path):
    summary, path = write_report(run)
    assert path == run / "report.html"
    assert json.loads((run / "summary.json").read_text()) == summary
    text = path.read_text(encoding="utf-8")
    page = Reader(text)
    assert str(tmp_path) not in text and "url(" not in text and "@import" not in text
    assert page.styled == [] and "link" not in page.tags and "img" not in page.tags
    links = [link for link in page.links if not link.startswith("#")]
    assert links == ["reward/diagnostics.html"] and (run / links[0]).is_file()
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == "Run quickstart" and page.headings[1] == "Diagnosis"
    assert page.tags.count("svg") > 20


def test_the_numbers_of_the_tables_are_those_of_the_summary(run):
    summary, _ = write_report(run)
    page = report(run)
    split = summary["evaluation"]["unseen"]
    row = page.row("SFT against RLHF on held-out prompts", "unseen", "sampled", "24")
    low, high = split["rlhf"]["ci95"]
    assert row[4] == f"{split['rlhf']['overall']:.1f} [{low:.1f}, {high:.1f}]"
    assert row[6] == f"{split['rlhf_wins']} / {split['ties']} / {split['rlhf_losses']}"
    seen = summary["evaluation"]["seen"]
    (criteria,) = [t for c, t in page.tables.items() if c.startswith("seen: percent")]
    row = next(r for r in criteria if r[0] == "completeness")
    assert row[1:3] == [f"{seen[m]['criteria']['completeness']:.1f}" for m in ("sft", "rlhf")]
    gap = seen["difference"]["criteria"]["completeness"]["mean"]
    assert row[3].startswith(f"{gap:+.1f} [")
    assert criteria[-1][:3] == ["overall", *(f"{seen[m]['overall']:.1f}" for m in ("sft", "rlhf"))]


def test_scores_by_task_are_paired_by_prompt(tmp_path, response_row, write_lines):
    rows = []
    for index, (task, sft, rlhf) in enumerate([("a", 10, 30), ("a", 20, 20), ("b", 50, 40)]):
        for model, score in (("sft", sft), ("rlhf", rlhf)):
            for sample, off in enumerate((-5.0, 5.0)):
                values = {"overall": score + off, "task": task, "criteria": None}
                rows.append(response_row(index=index, model=model, sample=sample, **values))
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    table = report(tmp_path).table("Mean score by task")
    assert table[1] == ["seen", "a", "2", "15.0", "25.0", "+10.0 [+0.0, +20.0]", "1 / 1 / 0"]
    assert table[2] == ["seen", "b", "1", "50.0", "40.0", "-10.0 [-10.0, -10.0]", "0 / 0 / 1"]


def test_it_names_seed_versions_labelers_and_the_settings_that_were_changed(run, write_result):
    changed = {"learning_rate": 0.5, "data": ["{run}/data/sft.jsonl"]}
    write_result(run, "sft", {"seconds": 60.0, "changed_settings": changed})
    every = {"run": "/somewhere/run", "seed": 3, "learning_rate": 0.5, "epochs": 1.0}
    every |= {"device": None, "data": ['{"path": "/somewhere/run/data/sft.jsonl"}']}
    (run / "sft" / "config.yaml").write_text(yaml.safe_dump(every))
    page = report(run)
    assert "torch 2.13.0" in page.text and "4 min 42 s for all stages" in page.text
    assert "simulated labeler (the rubric with noise); no person ranked anything" in page.text
    assert page.row("Settings that differ from the defaults", "learning_rate")[1] == "0.5"
    assert page.row("All settings", "epochs")[1] == "1"
    assert page.row("All settings", "device")[1] == "not set"
    assert page.row("All settings", "data")[1] == '{"path": "{run}/data/sft.jsonl"}'
    assert "/somewhere" not in page.text


def test_rankings_by_a_language_model_are_called_ai_feedback(run, write_result):
    shutil.rmtree(run / "rank")
    write_result(run, "ai_rank", {"seconds": 9.0, "labelers": ["ai:judge"]})
    text = report(run).text
    assert "AI feedback by ai:judge" in text
    assert "simulated labeler" not in text


def test_who_ranked_is_what_the_pairs_say_whatever_else_was_ranked(run, write_result):
    who = {"people": ["ann"], "simulated": [], "ai": ["ai:judge"], "unnamed": 0}
    write_result(run, "pairs", {"seconds": 1.0, "labelers": {"of_pairs": who}})
    text = report(run).text
    assert "1 person, AI feedback by ai:judge" in text and "ann" not in text.split()
    assert "simulated labeler" not in text
    who = {"people": [], "simulated": ["simulated:1"], "ai": [], "unnamed": 2}
    write_result(run, "reward", {"seconds": 1.0, "accuracy": 0.9, "labelers": who})
    text = report(run).text
    assert "1 simulated labeler; of 2 comparisons the data does not say" in text
    assert "no person ranked" not in text and "AI feedback by" not in text


def test_alarms_are_on_the_curves_of_their_stage(run, write_lines):
    event = {"step": 20, "text": "the KL is <b>high</b>", "action": "goes on"}
    write_lines(run / "rlhf" / "events.jsonl", [event, {"odd": 1}])
    text = write_report(run)[1].read_text()
    page = Reader(text)
    panels = [p for p in PANELS if p.stage == "rlhf"]
    assert text.count('class="alarm-head" d="M9 1h10l-5 9z"') == len(panels)  # in each legend
    places = re.findall(r'class="alarm" x1="([\d.]+)"', text)
    assert len(places) == len(panels) and len(set(places)) == 1  # all axes have the same steps
    assert "step 20: the KL is <b>high</b>; the run goes on" in page.text


def test_every_panel_has_a_unit_and_most_say_what_good_is():
    assert all(panel.unit and panel.title for panel in PANELS)
    assert sum("good" in panel.title for panel in PANELS) >= len(PANELS) - 1


ATTACK = (
    "fine </script></ScRiPt ><script>alert(1)</script><!--<script> <img src=x onerror=alert(2)>"
    "</td></table><style>*{}</style> & \" ' \x1b[2J\u202e\u2028"
)


def test_model_text_cannot_become_html(tmp_path, response_row, write_lines):
    rows = [
        response_row(split, 0, model, prompt=ATTACK, response=ATTACK, task=ATTACK, overall=score)
        for split in ("seen", ATTACK)
        for model, score in (("sft", 1.0), ("rlhf", 2.0))
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    text = write_report(tmp_path)[1].read_text(encoding="utf-8")
    page = Reader(text)
    assert page.tags.count("script") == 2 and page.tags.count("style") == 1
    assert "img" not in page.tags and "\x1b" not in text and "\u202e" not in text
    assert "<script>alert(1)</script>" in page.text  # in the table of wins, as text
    prompts = embedded(tmp_path)["prompts"]
    assert {p["p"] for p in prompts} == {ATTACK}
    assert {a["r"] for p in prompts for a in p["d"]["sample"]["a"].values()} == {ATTACK}


def test_a_results_text_is_escaped_as_well(run, write_result):
    write_result(run, "sft", {"seconds": 1.0, "base|model": "<b>x</b>\n| y |"})
    text = write_report(run)[1].read_text()
    assert "<b>x</b>" not in text and "&lt;b&gt;x&lt;/b&gt;" in text


@pytest.mark.parametrize("stage", ["sft", "sample", "rank", "reward", "rlhf", "evaluation"])
def test_a_missing_stage_is_left_out_and_said(run, stage):
    shutil.rmtree(run / stage)
    page = report(run)
    assert f"without a result: {stage}" in page.text
    assert ("SFT and RLHF were not compared" in page.text) == (stage == "evaluation")
    assert all((run / x).is_file() for x in page.links if not x.startswith("#"))


def test_a_stage_that_was_killed_is_called_unfinished(run):
    (run / "rlhf" / "result.json").unlink()
    path = run / "rlhf" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 50, "rew')
    page = report(run)
    assert "PPO (ICE-GRT) not finished" in page.text
    assert "rlhf/metrics.jsonl, line 51: cut off" in page.text
    assert "Reward of the rollouts" in page.text


def test_lost_values_are_flagged_in_words(run):
    path = run / "rlhf" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 50, "policy/loss": NaN}\n')
    text = write_report(run)[1].read_text()
    assert "policy/loss is not a finite number at any step" in Reader(text).text
    assert not re.search(r'(d|cx|cy|x1|y1|points)="[^"]*nan', text)


def test_what_needs_a_look_is_open_and_the_culprit_is_named(run, write_result):
    write_result(run, "rlhf", {"seconds": 1.0, "kl_per_sequence": 40.0, "eos_rate": 0.99})
    text = write_report(run)[1].read_text()
    page = Reader(text)
    assert "1 needs a look: KL to the SFT model (PPO)." in page.text
    assert "At fault: nobody." in page.text and 'class="stage culprit"' not in text
    (ill,) = re.findall(r"<details open>(.*?)</details>", text, re.S)
    told = Reader(ill).text
    assert "KL to the SFT model" in told and "40.00 nats" in told and "Try: " in told
    assert "kl_coefficient" in told

    at_fault = replace(read_facts(run).diagnosis, culprit="reward", because="It is <deaf>.")
    assert "At fault: The reward model. It is <deaf>." in Reader(verdict(at_fault)).text
    (column,) = re.findall(r'<div class="stage culprit">\s*<h3>([^<]*)', checks(at_fault))
    assert column.strip() == "Reward model"


def test_only_a_better_run_is_drawn_as_one(run):
    found = read_facts(run).diagnosis
    for outcome, culprit, kind in (
        ("better", "", "well"),
        ("unknown", "", "open"),
        ("worse", "", "open"),
        ("better", "reward", "ill"),
    ):
        shown = verdict(replace(found, outcome=outcome, culprit=culprit))
        assert shown.startswith(f'<div class="verdict {kind}">')


def test_labelers_who_are_no_people_are_called_so_where_it_begins_and_beside_the_score(run):
    words = "The reward model's labelers: 1 simulated labeler (the rubric with noise); no person"
    page = report(run)
    assert page.text.count(words) == 2
    assert page.text.index(words) < page.text.rindex("Held-out scores")
    assert "given by the rubric, a program that plays a judge, and by no person" in page.text


def test_a_table_of_points_names_their_unit(run):
    page = report(run)
    assert "Largest wins: mean scores of the samples (rubric, points of 100)" in page.tables
    two = {"a": {"judge": "rubric"}, "b": {"judge": "reward_model"}, "c": {"judge": "rubric"}}
    assert units(two) == "rubric, points of 100: a, c; reward model, raw score: b"


def test_the_limit_of_the_pairs_accuracy_is_the_one_that_is_judged_by(run, write_result):
    assert "limit, held out" not in write_report(run)[1].read_text()
    found = {"ceiling": {"value": 0.8}, "accuracy": {"value": 0.7}}
    write_result(run, "reward", {"seconds": 1.0, "accuracy": 0.7, "diagnostics": found})
    assert "limit, held out: 0.71, of the labelers' 0.8" in report(run).text


def test_users_own_data_says_who_judged(tmp_path, response_row, write_lines):
    rows = [
        response_row("mine", i, m, overall=None, criteria=None, reward=r)
        for i in range(3)
        for m, r in (("sft", 0.0), ("rlhf", 1.0))
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    page = report(tmp_path)
    assert page.row("SFT against RLHF", "mine", "sampled", "3")[7] == "reward model"
    assert "no independent evidence" in page.text
    assert "The eight criteria" not in page.headings and "Benchmarks" not in page.headings


def test_a_second_report_replaces_the_first(run):
    first = write_report(run)[1].read_text()
    assert write_report(run)[1].read_text() == first


def test_command_line(run, capsys):
    assert main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("split")
    assert f"report: {run / 'report.html'}" in printed


def test_command_line_without_a_run(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    streams = capsys.readouterr()
    assert "sft/result.json" in streams.err and "Traceback" not in streams.err
    assert not any(tmp_path.iterdir())


def test_importing_the_report_loads_no_plotting_or_deep_learning_library():
    code = (
        "import sys, common.evaluation.report; "
        "sys.exit(any(name in sys.modules for name in ('matplotlib', 'torch', 'transformers')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_further_contenders_are_in_every_table_and_the_bound_is_called_one(four):
    page = report(four)
    heads, *rows = page.table("SFT against RLHF on held-out prompts")
    assert heads[3:8] == ["SFT", "RLHF", "best of 3", "dpo", "RLHF − SFT"]
    assert rows[0][3:7] == ["50.0 [40.0, 60.0]", "80.0 [80.0, 80.0]"] + [
        *("65.0 [40.0, 90.0]", "70.0 [50.0, 90.0]")
    ]
    assert rows[1][3:7] == ["–", "–", "–", "61.2 [61.2, 61.2]"]
    against = page.row("Further contenders", "seen", "sampled", "dpo", "RLHF")
    assert against[4:] == ["-10.0 [-30.0, +10.0]", "1 / 0 / 1"]
    assert "at most log n − (n − 1)/n = 0.43 nats a response, which is a bound" in page.text
    overall = page.row("seen: percent of the most points", "overall")
    assert overall[1:5] == ["50.0", "80.0", "65.0", "70.0"]


def test_the_largest_regressions_and_wins_are_those_of_the_means(
    tmp_path, response_row, write_lines
):
    gaps = [5.0, -30.0, 0.0, 12.0, -2.0]
    rows = [
        response_row(index=i, model=m, overall=50.0 + (gap if m == "rlhf" else 0.0))
        for i, gap in enumerate(gaps)
        for m in ("sft", "rlhf")
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    page = report(tmp_path)
    worst = [row[0] for row in page.table("Largest regressions")[1:]]
    best = [row[3] for row in page.table("Largest wins")[1:]]
    assert worst == ["seen 1", "seen 4"] and best == ["+12.0", "+5.0"]


def test_answers_to_browse_have_their_scores_and_tokens(run, write_lines):
    token = {"split": "seen", "index": 5, "model": "rlhf", "decoding": "greedy", "sample": 0}
    token |= {"tokens": ["a", "b"], "sft": [-1.0, -2.0], "rlhf": [-0.5, -2.5], "values": [0.1, 0.2]}
    short = token | {"index": 6, "sft": [-1.0]}
    assert "No answer is scored by token" in report(run).text
    plain = {name: value for name, value in token.items() if name != "values"}
    write_lines(run / "evaluation" / "tokens.jsonl", [plain])
    assert "need the critic: models/critic of the run" in report(run).text
    write_lines(run / "evaluation" / "tokens.jsonl", [token, short])
    data = browser_data(read_facts(run))
    assert [m for m, _ in data["models"]] == ["sft", "rlhf"] and data["there"] == 72
    assert [(p["s"], p["i"]) for p in data["prompts"]] == [
        (split, i) for split in ("seen", "unseen", "general") for i in range(24)
    ]
    prompt = data["prompts"][5]
    answer = prompt["d"]["greedy"]["a"]["rlhf"]
    assert answer["k"] == {"x": ["a", "b"], "s": [-1, -2], "a": [-0.5, -2.5], "v": [0.1, 0.2]}
    assert "k" not in data["prompts"][6]["d"]["greedy"]["a"]["rlhf"]
    rows = [r for r in read_facts(run).responses if (r.split, r.index) == ("seen", 5)]
    means = {
        m: sum(r.overall for r in rows if r.model == m and r.decoding == "sample") / 4
        for m in ("sft", "rlhf")
    }
    assert prompt["d"]["sample"]["g"] == pytest.approx(means["rlhf"] - means["sft"], abs=1e-3)
    first = next(r for r in rows if r.model == "sft" and r.decoding == "sample" and r.sample == 0)
    assert prompt["d"]["sample"]["a"]["sft"]["o"] == pytest.approx(first.overall, abs=1e-3)


def test_a_page_of_very_many_answers_stays_small_and_keeps_the_extremes(
    tmp_path, response_row, write_lines
):
    long, count = "y" * (MOST_CHARACTERS // 100), 120
    rows = [
        response_row(index=i, model=m, response=long, overall=50.0 + (m == "rlhf") * (i == 77) * 9)
        for i in range(count)
        for m in ("sft", "rlhf")
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    page = report(tmp_path)
    prompts = embedded(tmp_path)["prompts"]
    assert 30 < len(prompts) < 60 and 77 in [p["i"] for p in prompts]
    assert f"{len(prompts)} of {count} prompts are on this page" in page.text
    text = prompts[0]["d"]["sample"]["a"]["sft"]["r"]
    assert len(text) < 6100 and text.endswith("(34000 more characters)")


def test_benchmarks_are_shown_with_the_papers_rows(run):
    cell = {"score": 45.25, "low": 42.0, "high": 48.0, "n": 100, "shots": "5", "shots_dropped": 2}
    cell |= {"unparsed": 0.031, "origin": "stock", "source": "x@1"}
    found = {
        "mode": "fathom",
        "benchmarks": {"mmlu": {"title": "MMLU"}},
        "models": {"actor": {"mmlu": cell, "odd": {}}, "none": {}},
        "paper": {"ICE-GRT 13B": {"mmlu": 55.33}, "other": {}},
        "notes": ["Not comparable <b>."],
        "left_out": ["race: no file"],
    }
    (run / "benchmarks").mkdir()
    path = run / "benchmarks" / "benchmarks.json"
    path.write_text(json.dumps(found))
    page = report(run)
    table = page.table("Benchmarks: score in percent", "mode fathom")
    assert table[0] == ["model", "MMLU", "odd"]
    assert table[1:] == [
        ["actor", "45.2 ±3.0", "–"],
        ["none", "–", "–"],
        ["ICE-GRT 13B (the paper's)", "55.3", "–"],
    ]
    assert page.row("What belongs to each score", "actor", "MMLU")[5] == "3.1%"
    assert "Not comparable <b>." in page.text and "race: no file" in page.text
    path.write_text("{")
    assert "Benchmarks" not in report(run).headings


def test_benchmarks_during_ppo_are_curves(run, write_lines):
    rows = [{"step": s, "benchmark/mmlu": 25.0 + s, "benchmark/arc_e": 30.0} for s in (10, 20)]
    write_lines(run / "rlhf" / "metrics.jsonl", rows)
    text = write_report(run)[1].read_text()
    assert "Benchmarks" in Reader(text).headings
    assert "mmlu: from 35 to 45" in text and "arc_e: from 30 to 30" in text


def test_the_reward_models_page_is_linked_and_its_numbers_are_not_repeated(run, write_result):
    page = report(run)
    assert "The diagnostics page has the scores, the worst mistakes" in page.text
    row = page.row("What Reward model (ICE-Reward) reported", "length only accuracy")
    assert row[1] == "0.61 (share of held-out pairs)"
    write_result(run, "evaluation", {"seconds": 1.0, "best_of_8_reward": 0.5, "rlhf_overall": None})
    rows = dict(report(run).table("What Evaluation reported")[1:])
    assert rows["best of 8 reward"] == "0.5 (raw score)" and rows["rlhf overall"] == "not measured"
    assert not [r for r in page.table("What Reward model") if r[0] == "diagnostics"]


def test_what_people_and_judges_said_of_the_criteria_is_told_with_who_they_were(run):
    answers = read_facts(run).responses
    marks = {(r.split, r.index, r.model): mark_of(r.response) for r in answers if not r.sample}
    prompts = []
    for index, points in enumerate((2.0, 1.0)):
        own = {model: marks["seen", index, model] for model in ("sft", "rlhf")}
        given = {"sft": dict.fromkeys(CRITERIA, 1.0), "rlhf": dict.fromkeys(CRITERIA, points)}
        ratings = tuple(Rating(model, "<b>x", given[model]) for model in own)
        prompts.append(Judged("seen", index, own, ratings))
    write_judgement(run, Judgement("simulated", "simulated", 1, "sample", tuple(prompts)))
    write_criteria(run, "reconstructed", RECONSTRUCTED_WEIGHTS, seed=0)
    page = report(run)
    who = "simulated labelers, not people (1 labeler), seen"
    row = page.row(f"By {who}: percent of the most points", "overall")
    assert row[1].startswith("50.0 [") and row[2].startswith("75.0 [") and row[3] == "2"
    pair = page.row(f"Pairs by {who}; differences in points", "RLHF against SFT", "score")
    assert pair[2:4] == ["2", "1 / 1 / 0"] and pair[4].startswith("75.0 [")
    assert pair[5].startswith("+25.0 [")


def test_an_evaluation_that_is_greedy_only_has_every_part(run):
    path = run / "evaluation" / "responses.jsonl"
    sampled = report(run).tables
    rows = [line for line in path.read_text().splitlines() if '"greedy"' in line]
    path.write_text("\n".join(rows))
    page = report(run)
    for part in ("seen: percent", "Largest wins", "Mean score by task"):
        there = [any(c.startswith(part) for c in tables) for tables in (sampled, page.tables)]
        assert there[0] == there[1]
    assert "Largest wins: greedy answers (rubric, points of 100)" in page.tables
    assert "greedy decoding" in page.text and "sampled decoding" not in page.text
