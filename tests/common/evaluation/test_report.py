"""report.md: what it says, what it leaves out, and that no model can write it."""

import json
import re
import shutil

import pytest

from common.evaluation.report import main, write_report
from common.evaluation.run_files import read_responses
from common.evaluation.side_by_side import chosen_prompts


@pytest.fixture(autouse=True)
def blank_pictures(monkeypatch):
    """Figures are built and not rendered, which takes seconds; test_plots.py renders them."""
    monkeypatch.setattr(
        "matplotlib.figure.Figure.savefig", lambda figure, path, **_: path.write_bytes(b"")
    )


def report(run):
    return write_report(run)[1].read_text(encoding="utf-8")


def table_row(text, *starts):
    """The cells of the one table row that starts with these."""
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines()]
    (found,) = [row for row in rows if row[: len(starts)] == list(starts)]
    return found


def test_everything_is_written_and_links_are_relative(run, tmp_path):
    summary, path = write_report(run)
    assert path == run / "report.md"
    assert json.loads((run / "summary.json").read_text()) == summary
    shutil.move(run, tmp_path / "moved")
    text = (tmp_path / "moved" / "report.md").read_text()
    links = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert len(links) == 10
    assert all((tmp_path / "moved" / link).is_file() for link in links)
    assert str(tmp_path) not in text


def test_the_numbers_of_the_tables_are_those_of_the_summary(run):
    summary, path = write_report(run)
    text = path.read_text()
    split = summary["evaluation"]["unseen"]
    row = table_row(text, "unseen", "sampled", "24")
    low, high = split["rlhf"]["ci95"]
    assert row[4] == f"{split['rlhf']['overall']:.1f} [{low:.1f}, {high:.1f}]"
    assert row[6] == f"{split['rlhf_wins']} / {split['ties']} / {split['rlhf_losses']}"
    criteria = table_row(text, "completeness")
    seen = summary["evaluation"]["seen"]
    assert criteria[1:3] == [f"{seen[m]['criteria']['completeness']:.1f}" for m in ("sft", "rlhf")]
    assert table_row(text, "**overall**")[2] == f"{seen['rlhf']['overall']:.1f}"


def test_it_names_seed_versions_simulated_labelers_and_explains_the_probe(run):
    text = report(run)
    assert "seed: 3" in text and "torch 2.13.0" in text and "4 min 42 s" in text
    assert "*simulated* labelers" in text
    assert table_row(text, "2-3") == ["2-3", "0.97", "900"]
    assert "mean score of right answers minus that of wrong ones" in text
    assert "reconstructed" in text
    assert "things that were checked look healthy." in text


def test_people_who_rank_are_not_called_simulated(run, write_result):
    write_result(run, "rank", {"seconds": 1.0, "labelers": "browser"})
    assert "simulated" not in report(run)


def test_ai_feedback_is_called_so(run, write_result):
    assert "AI feedback" not in report(run)
    write_result(run, "ai_rank", {"seconds": 1.0, "labelers": ["ai:judge"], "prompts": 7})
    text = report(run)
    assert "- rankings: *AI feedback* by ai:judge, a language model, no person" in text
    assert "### Ranking by a language model (AI feedback)" in text


def test_who_ranked_is_what_the_pairs_say_whatever_else_was_ranked(run, write_result):
    who = {"people": ["ann"], "simulated": [], "ai": ["ai:judge"], "unnamed": 0}
    write_result(run, "pairs", {"seconds": 1.0, "labelers": {"of_pairs": who}})
    text = report(run)
    assert "- rankings: *AI feedback* by ai:judge" in text and "- rankings: by *sim" not in text
    who = {"people": ["ann"], "simulated": ["simulated:1"], "ai": [], "unnamed": 0}
    write_result(run, "reward", {"seconds": 1.0, "accuracy": 0.9, "labelers": who})
    text = report(run)
    assert "- rankings: by *simulated* labelers (the rubric with noise)\n" in text
    assert "no person" not in text and "AI feedback* by" not in text


def test_ten_prompts_are_drawn_by_seed_and_not_by_score(run):
    path = run / "evaluation" / "responses.jsonl"
    rows, _ = read_responses(path)
    chosen = chosen_prompts(rows, 3)
    places = [(split, index) for split, index, _, _ in chosen]
    assert len(places) == 10 == len(set(places))
    for split, index, sft, rlhf in chosen:
        assert (sft.model, rlhf.model) == ("sft", "rlhf")
        for row in (sft, rlhf):
            assert (row.split, row.index, row.decoding, row.sample) == (split, index, "sample", 0)

    # Other scores, other texts, another order of rows: the same prompts.
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        line |= {"overall": 100.0 - line["overall"], "reward": None, "response": "x"}
    path.write_text("\n".join(json.dumps(line) for line in reversed(lines)))
    again = chosen_prompts(read_responses(path)[0], 3)
    assert [(split, index) for split, index, _, _ in again] == places
    other = [(split, index) for split, index, _, _ in chosen_prompts(rows, 4)]
    assert other != places


def test_only_first_samples_of_prompts_that_both_answered_are_drawn(
    tmp_path, response_row, write_lines
):
    path = tmp_path / "responses.jsonl"
    rows = [response_row(model=m, decoding="greedy") for m in ("sft", "rlhf")]
    rows += [response_row(index=1, model=m, sample=1) for m in ("sft", "rlhf")]
    rows += [response_row(index=2), response_row(index=3), response_row(index=3, model="rlhf")]
    write_lines(path, rows)
    chosen = chosen_prompts(read_responses(path)[0], 0)
    assert [(split, index) for split, index, _, _ in chosen] == [("seen", 3)]


def test_both_answers_are_in_one_row(run):
    text = report(run)
    assert len(re.findall(r"^### \d+\. ", text, re.MULTILINE)) == 10
    split, index = re.search(r"^### 1\. (\w+), prompt (\d+)", text, re.MULTILINE).groups()
    assert split in ("seen", "unseen", "general")
    assert f"| sft says yes to {index} | rlhf says yes to {index} |" in text


ATTACK = (
    "fine | **bold** `tick`\n\n# Heading by the model\n```\n~~~\n<img src=x onerror=alert(1)>\n"
    "| a | b |\n|---|---|\n</td></table>\n![x](http://evil.example/x.png)\n- item\n\x1b[2J\u202e"
)


def test_model_text_cannot_become_markdown_or_html(tmp_path, response_row, write_lines):
    rows = [
        response_row(split, 0, model, prompt=ATTACK, response=ATTACK)
        for split in ("seen", ATTACK)
        for model in ("sft", "rlhf")
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    text = report(tmp_path)
    assert "Heading by the model" in text
    assert not re.search(r"^#+ Heading", text, re.MULTILINE)
    assert set(re.findall(r"<[^>]*>", text)) <= {"<br>"}
    assert "`tick`" not in text and "```" not in text and "~~~" not in text
    assert "![x]" not in text and "http://" not in text and "**bold**" not in text
    assert "\x1b" not in text and "\u202e" not in text
    answers = [line for line in text.splitlines() if line.startswith("| fine")]
    bars = {line.count("|") for line in answers}
    # Rows with the text: a prompt's, two answers', and those of tables whose split has that name.
    assert 2 in bars and 3 in bars
    blocks = text.split("\n\n")
    for block in blocks:
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_a_results_text_is_escaped_as_well(run, write_result):
    write_result(run, "sft", {"seconds": 1.0, "base|model": "<b>x</b>\n| y |"})
    text = report(run)
    assert "<b>" not in text
    assert "| base&#124;model | &lt;b&gt;x&lt;/b&gt;<br>&#124; y &#124; |" in text


def test_long_and_empty_answers(tmp_path, response_row, write_lines):
    rows = [
        response_row(response="y" * 5000, ended=False),
        response_row(model="rlhf", response=" \n"),
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    text = report(tmp_path)
    assert "y" * 2000 + " *… (3000 more characters)*" in text and "y" * 2001 not in text
    assert "*(empty)*" in text and "cut off" in text


@pytest.mark.parametrize("stage", ["sft", "sample", "rank", "reward", "rlhf", "evaluation"])
def test_a_missing_stage_is_left_out_and_said(run, stage):
    shutil.rmtree(run / stage)
    text = report(run)
    assert f"without a result: {stage}" in text
    assert text.count("Left out: no `result.json`.") == 1
    for link in re.findall(r"\]\(([^)]*)\)", text):
        assert (run / link).is_file()
    assert ("Left out: the run has no `evaluation/responses.jsonl`." in text) == (
        stage == "evaluation"
    )


def test_a_stage_that_was_killed_is_called_unfinished(run):
    (run / "rlhf" / "result.json").unlink()
    path = run / "rlhf" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 50, "rew')
    text = report(run)
    assert "Not finished: it has metrics and no `result.json`." in text
    assert "rlhf/metrics.jsonl, line 51: cut off" in text
    assert "plots/reward.png" in text


def test_lost_values_are_flagged_in_words(run):
    path = run / "rlhf" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 50, "policy/loss": NaN}\n')
    assert "policy/loss is not a finite number at any step" in report(run)


def test_what_needs_a_look_is_counted_and_told(run, write_result):
    write_result(run, "rlhf", {"seconds": 1.0, "kl_per_sequence": 40.0, "eos_rate": 0.99})
    part = report(run).split("## Diagnosis")[1].split("\n## ")[0]
    assert "1 needs a look: KL to the SFT model (PPO)." in part
    row = table_row(part, "PPO", "KL to the SFT model")
    assert row[2].startswith("40.00 nats") and row[3] == "⚠ look" and "kl_coefficient" in row[5]


def test_users_own_data_says_who_judged(tmp_path, response_row, write_lines):
    rows = [
        response_row("mine", i, m, overall=None, criteria=None, reward=r)
        for i in range(3)
        for m, r in (("sft", 0.0), ("rlhf", 1.0))
    ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    text = report(tmp_path)
    assert table_row(text, "mine", "sampled", "3")[7] == "reward model"
    assert "no independent evidence" in text
    assert "## The eight criteria" not in text
    assert "seed: not recorded" in text


def test_a_second_report_replaces_the_first(run):
    first = report(run)
    assert report(run) == first


def test_settings_are_linked_where_they_are(run):
    (run / "sft" / "config.yaml").write_text("run: {}\n")
    assert "- settings: [sft](sft/config.yaml)\n" in report(run)


def test_command_line(run, capsys):
    assert main([str(run)]) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0].startswith("split")
    assert f"report: {run / 'report.md'}" in printed
    for name in ("summary.json", "report.md", "plots/reward.png"):
        assert (run / name).is_file()


def test_command_line_without_a_run(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    streams = capsys.readouterr()
    assert "sft/result.json" in streams.err and "Traceback" not in streams.err
    assert not any(tmp_path.iterdir())


def test_further_contenders_are_in_every_table_and_the_bound_is_called_one(four):
    text = report(four)
    assert "| split | decoding | prompts | SFT | RLHF | best of 3 | dpo | RLHF − SFT |" in text
    row = table_row(text, "seen", "sampled", "2")
    assert row[3:7] == ["50.0 [40.0, 60.0]", "80.0 [80.0, 80.0]"] + [
        *("65.0 [40.0, 90.0]", "70.0 [50.0, 90.0]")
    ]
    assert table_row(text, "seen", "greedy", "2")[3:7] == ["–", "–", "–", "61.2 [61.2, 61.2]"]
    against = table_row(text, "seen", "sampled", "dpo", "RLHF")
    assert against[4:] == ["-10.0 [-30.0, +10.0]", "1 / 0 / 1"]
    assert "at most log n − (n − 1)/n = 0.43 nats a sequence, which is a bound" in text
    assert table_row(text, "**overall**")[1:] == ["50.0", "80.0", "65.0", "70.0"]
    assert table_row(text, "seen", "greedy", "dpo")[3:] == ["2", "100.0%", "10.0"]
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_reward_models_page_is_linked_and_its_numbers_are_not_repeated(run):
    _, path = write_report(run)
    text = path.read_text()
    assert "[The diagnostics page](reward/diagnostics.html)" in text
    assert "| length only accuracy | 0.61 (share of held-out pairs) |" in text
    assert "| diagnostics |" not in text
