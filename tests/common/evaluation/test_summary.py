"""summary.json: its shape, and its numbers by hand and by a separate computation."""

import json
import shutil

import numpy as np
import pytest

from common.errors import UserError
from common.evaluation.summary import build_summary, write_summary


def only_responses(tmp_path, write_lines, rows):
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    return build_summary(tmp_path)["evaluation"]


def test_the_shape_is_what_others_read(run):
    summary = build_summary(run)
    assert summary["seed"] == 3
    assert summary["versions"] == {"torch": "2.13.0", "python": "3.11.7"}
    stages = summary["stages"]
    assert list(stages) == ["sft", "sample", "rank", "reward", "rlhf", "evaluation"]
    assert stages["sft"] == {"seconds": 60.0, "eval_perplexity": 1.9, "examples": 6000}
    assert stages["sample"]["prompts"] == 1000
    assert stages["reward"]["accuracy"] == 0.92 and stages["reward"]["right_minus_wrong"] == 2.6
    assert stages["rlhf"] == {"seconds": 130.5, "kl_per_sequence": 2.5, "eos_rate": 0.99}
    assert summary["seconds_total"] == 60 + 20 + 1 + 40 + 130.5 + 30
    evaluation = summary["evaluation"]
    assert list(evaluation) == ["decoding", "seen", "unseen", "general", "greedy"]
    assert evaluation["decoding"] == "sample"
    assert list(evaluation["greedy"]) == ["seen", "unseen", "general"]
    for block in (evaluation, evaluation["greedy"]):
        for split in (block["seen"], block["unseen"], block["general"]):
            assert split["prompts"] == 24 and split["judge"] == "rubric"
            assert split["rlhf_wins"] + split["ties"] + split["rlhf_losses"] == 24
            for model in ("sft", "rlhf"):
                low, high = split[model]["ci95"]
                assert low <= split[model]["overall"] <= high
                assert len(split[model]["criteria"]) == 8
    assert evaluation["seen"]["sft"]["samples"] == 96
    assert evaluation["greedy"]["seen"]["sft"]["samples"] == 24
    assert summary["notes"] == []


def test_the_numbers_of_a_whole_run_by_a_separate_computation(run):
    lines = (run / "evaluation" / "responses.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]

    def table(model, value):
        """[prompts, samples]"""
        found = np.full((24, 4), np.nan)
        for row in rows:
            place = (row["split"], row["decoding"], row["model"])
            if place == ("seen", "sample", model):
                found[row["index"], row["sample"]] = value(row)
        return found

    split = build_summary(run)["evaluation"]["seen"]
    means = {}
    for model in ("sft", "rlhf"):
        means[model] = table(model, lambda row: row["overall"]).mean(axis=1)
        assert split[model]["overall"] == pytest.approx(means[model].mean())
        assert split[model]["reward"] == pytest.approx(table(model, lambda r: r["reward"]).mean())
        assert split[model]["mean_tokens"] == pytest.approx(
            table(model, lambda r: r["tokens"]).mean()
        )
        for name in ("accuracy", "context"):
            points = table(model, lambda row, name=name: row["criteria"][name])
            assert split[model]["criteria"][name] == pytest.approx(50 * points.mean())
    gaps = means["rlhf"] - means["sft"]
    assert split["difference"]["mean"] == pytest.approx(gaps.mean())
    error = 1.96 * gaps.std() / 24**0.5
    assert split["difference"]["ci95"] == pytest.approx(
        [gaps.mean() - error, gaps.mean() + error], abs=0.15 * error
    )
    assert split["rlhf_wins"] == (gaps > 1e-9).sum()


def test_the_unit_is_the_prompt(tmp_path, response_row, write_lines):
    rows = [response_row(index=0, sample=s, overall=0.0) for s in range(3)]
    rows += [response_row(index=1, overall=90.0)]
    rows += [response_row(index=0, model="rlhf", sample=s, overall=v) for s, v in enumerate((0, 9))]
    rows += [response_row(index=1, model="rlhf", overall=90.0)]
    split = only_responses(tmp_path, write_lines, rows)["seen"]
    # (0 + 90) / 2, not 90 / 4; two prompts give 0, ½ and 1 of the way with chance ¼, ½, ¼.
    assert split["sft"]["overall"] == 45.0
    assert split["sft"]["ci95"] == [0.0, 90.0]
    assert split["rlhf"]["overall"] == pytest.approx(47.25)
    # Paired: the prompts' differences are 4.5 and 0, however far apart the prompts are.
    assert split["difference"]["mean"] == pytest.approx(2.25)
    assert split["difference"]["ci95"] == [0.0, 4.5]
    assert (split["rlhf_wins"], split["ties"], split["rlhf_losses"]) == (1, 1, 0)
    assert split["sft"]["samples"] == 4 and split["rlhf"]["samples"] == 3


def test_equal_scores_have_no_width(tmp_path, response_row, write_lines):
    rows = [response_row(index=i, model=m) for i in range(5) for m in ("sft", "rlhf")]
    split = only_responses(tmp_path, write_lines, rows)["seen"]
    assert split["sft"]["ci95"] == [50.0, 50.0]
    assert split["difference"] == {
        "mean": 0.0,
        "ci95": [0.0, 0.0],
        "criteria": {name: {"mean": 0.0, "ci95": [0.0, 0.0]} for name in split["sft"]["criteria"]},
    }
    assert split["ties"] == 5


def test_the_order_of_rows_changes_nothing(run):
    before = build_summary(run)
    path = run / "evaluation" / "responses.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join(sorted(lines, key=lambda line: line[::-1])))
    assert build_summary(run)["evaluation"] == before["evaluation"]


def test_without_a_rubric_the_reward_model_judges_and_it_says_so(
    tmp_path, response_row, write_lines
):
    rows = [
        response_row("mine", i, m, criteria=None, overall=None, reward=score)
        for i, scores in enumerate([(0.0, 1.0), (2.0, 1.0), (0.5, 0.5)])
        for m, score in zip(("sft", "rlhf"), scores, strict=True)
    ]
    split = only_responses(tmp_path, write_lines, rows)["mine"]
    assert split["judge"] == "reward_model"
    assert "no independent evidence" in split["judge_note"]
    assert (split["rlhf_wins"], split["ties"], split["rlhf_losses"]) == (1, 1, 1)
    assert split["difference"]["mean"] == pytest.approx(0.0)
    assert split["rlhf"]["overall"] is None and split["rlhf"]["ci95"] is None
    assert split["rlhf"]["criteria"] is None
    assert split["rlhf"]["reward"] == pytest.approx(2.5 / 3)


def test_with_a_rubric_the_reward_does_not_judge(tmp_path, response_row, write_lines):
    rows = [response_row(overall=60.0, reward=0.0), response_row(model="rlhf", reward=9.0)]
    split = only_responses(tmp_path, write_lines, rows)["seen"]
    assert split["judge"] == "rubric" and "judge_note" not in split
    assert (split["rlhf_wins"], split["ties"], split["rlhf_losses"]) == (0, 0, 1)


def test_without_any_score_nobody_wins(tmp_path, response_row, write_lines):
    rows = [
        response_row(model=m, criteria=None, overall=None, reward=None, ended=m == "sft")
        for m in ("sft", "rlhf")
    ]
    split = only_responses(tmp_path, write_lines, rows)["seen"]
    assert split["judge"] is None and split["rlhf_wins"] is None and split["difference"] is None
    assert split["prompts"] == 1
    assert (split["sft"]["eos_rate"], split["rlhf"]["eos_rate"]) == (1.0, 0.0)


def test_prompts_of_one_model_only_are_not_compared_and_noted(tmp_path, response_row, write_lines):
    rows = [response_row(index=i) for i in range(3)] + [response_row(index=2, model="rlhf")]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    summary = build_summary(tmp_path)
    split = summary["evaluation"]["seen"]
    assert split["prompts"] == 1 and split["ties"] == 1
    assert any("2 prompts" in note for note in summary["notes"])


def test_one_model_alone_is_reported_alone(tmp_path, response_row, write_lines):
    split = only_responses(tmp_path, write_lines, [response_row(index=i) for i in range(3)])["seen"]
    assert split["rlhf"] is None and split["difference"] is None and split["rlhf_wins"] is None
    assert split["sft"]["overall"] == 50.0 and split["prompts"] == 3


def test_responses_without_a_score_are_noted(tmp_path, response_row, write_lines):
    rows = [response_row(), response_row(sample=1, overall=float("nan"))]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    summary = build_summary(tmp_path)
    assert summary["evaluation"]["seen"]["sft"]["overall"] == 50.0
    assert any("1 responses have no score" in note for note in summary["notes"])


def test_nothing_at_all_names_the_file_that_is_missing(tmp_path):
    with pytest.raises(UserError, match="result.json"):
        build_summary(tmp_path)
    with pytest.raises(UserError, match="result.json"):
        build_summary(tmp_path / "nowhere")


def test_benchmarks_take_time_too(run):
    before = build_summary(run)["seconds_total"]
    (run / "benchmarks").mkdir()
    (run / "benchmarks" / "result.json").write_text('{"seconds": 75.5, "questions": 320}')
    summary = build_summary(run)
    assert summary["stages"]["benchmarks"] == {"seconds": 75.5, "questions": 320}
    assert summary["seconds_total"] == before + 75.5


@pytest.mark.parametrize("stage", ["sft", "sample", "rank", "reward", "rlhf", "evaluation"])
def test_a_missing_stage_is_left_out(run, stage):
    whole = build_summary(run)
    shutil.rmtree(run / stage)
    summary = build_summary(run)
    assert stage not in summary["stages"]
    missing = whole["stages"][stage]["seconds"]
    assert summary["seconds_total"] == pytest.approx(whole["seconds_total"] - missing)
    assert (summary["evaluation"] == {}) == (stage == "evaluation")


def test_the_file_is_strict_json_and_holds_the_summary(run, write_result):
    write_result(run, "sft", {"seconds": 5.0, "eval_perplexity": float("inf")})
    summary = build_summary(run)
    path = write_summary(run, summary)
    assert path == run / "summary.json"

    def refuse(name):
        raise AssertionError(name)

    read = json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == summary
    assert read["stages"]["sft"]["eval_perplexity"] is None
    assert any("eval_perplexity" in note for note in read["notes"])
    assert not list(run.glob("*.partial"))


def test_stages_that_disagree_are_noted(run):
    path = run / "rlhf" / "result.json"
    changed = json.loads(path.read_text()) | {"seed": 4, "versions": {"torch": "2.12.0"}}
    path.write_text(json.dumps(changed))
    notes = build_summary(run)["notes"]
    assert any("different seeds" in note for note in notes)
    assert any("rlhf ran with torch 2.12.0, not 2.13.0" in note for note in notes)


def test_further_contenders_are_held_against_both_models(four):
    evaluation = build_summary(four)["evaluation"]
    split = evaluation["seen"]
    assert list(split["further"]) == ["best_of_3", "dpo"]
    dpo, best = split["further"]["dpo"], split["further"]["best_of_3"]
    # SFT has 40 and 60, RLHF 80 and 80, DPO 50 and 90, the best of three 90 and 40.
    assert (dpo["overall"], dpo["samples"], len(dpo["criteria"])) == (70.0, 2, 8)
    sft = dpo["against"]["sft"]
    assert (sft["wins"], sft["ties"], sft["losses"]) == (2, 0, 0)
    assert sft["difference"] == {"mean": 20.0, "ci95": [10.0, 30.0]}
    rlhf = dpo["against"]["rlhf"]
    assert (rlhf["wins"], rlhf["ties"], rlhf["losses"]) == (1, 0, 1)
    assert rlhf["difference"]["mean"] == -10.0
    assert best["against"]["sft"]["difference"] == {"mean": 15.0, "ci95": [-20.0, 50.0]}
    assert best["best_of"] == 3 and best["kl_bound"] == pytest.approx(0.4319, abs=1e-4)
    assert best["reward"] == 1.5 and "kl_bound" not in dpo
    greedy = evaluation["greedy"]["seen"]["further"]
    assert list(greedy) == ["dpo"] and greedy["dpo"]["against"] == {}
    # The two models' own comparison is what it is without the others.
    assert (split["rlhf_wins"], split["difference"]["mean"]) == (2, 30.0)


def test_without_further_contenders_there_is_no_such_part(run):
    evaluation = build_summary(run)["evaluation"]
    assert not any("further" in split for split in (evaluation["seen"], evaluation["general"]))
