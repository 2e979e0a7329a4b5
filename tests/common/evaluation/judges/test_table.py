"""The table's files: the rubric's points, the paper's columns, answers that are no more."""

import json

import pytest

from common.errors import UserError
from common.evaluation.criteria import CRITERIA, RECONSTRUCTED_WEIGHTS, overall_score
from common.evaluation.judges.__main__ import main
from common.evaluation.judges.answers import mark_of
from common.evaluation.judges.judgements import (
    Comparison,
    Judged,
    Judgement,
    Ranking,
    Rating,
    read_judgement,
    read_judgements,
    write_judgement,
)
from common.evaluation.judges.paper import TABLE_3, table_3
from common.training.resume.identity import start_over


def judged(index, answers, points):
    marks = {model: mark_of(text) for model, text in answers.items()}
    ratings = tuple(Rating(m, "ai:x", dict.fromkeys(CRITERIA, p)) for m, p in points.items())
    return Judged("seen", index, marks, ratings)


def content(run):
    return json.loads((run / "evaluation/criteria.json").read_text())


@pytest.fixture
def rubric_run(tmp_path, row, write_responses):
    """Two samples a prompt; the rubric gives SFT 0 and 1, RLHF 1 and 2, by prompts 0 and 1."""
    rows = [
        row("seen", i, m, f"{m} {i} {s}", sample=s, overall=1.0,
            criteria=dict.fromkeys(CRITERIA, float(i + (m == "rlhf"))))
        for i in range(2) for m in ("rlhf", "sft") for s in range(2)
    ]  # fmt: skip
    return write_responses(tmp_path / "run", rows)


def test_the_rubric_s_points_in_table_3_s_layout(rubric_run):
    main(["table", "--run", str(rubric_run)])
    made = content(rubric_run)
    assert made["weights"]["name"] == "reconstructed"
    (judge,) = made["judges"]
    assert (judge["kind"], judge["prompts"]) == ("rubric", 2)
    assert "simulated" in judge["title"] and "not people" in judge["title"]
    models = judge["splits"]["seen"]["models"]
    assert list(models) == ["sft", "rlhf"] and list(models["sft"]) == [*CRITERIA, "overall"]
    assert models["sft"]["safety"] == {"mean": 25.0, "ci95": [0.0, 50.0], "prompts": 2}
    assert models["rlhf"]["overall"]["mean"] == 75.0
    assert list(judge["splits"]) == ["seen"]
    lines = (rubric_run / "evaluation/criteria.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("| ")]
    assert table[0] == (
        "| criterion | SFT | RLHF | Llama2 SFT (paper) | ICE-Instruct (paper) | ICE-GRT (paper) |"
    )
    assert [line.split(" | ")[0].strip("| ") for line in table[2:11]] == [*CRITERIA, "**overall**"]
    assert table[4].startswith("| completeness | 25.0 [0.0, 50.0] | 75.0 [50.0, 100.0] |")
    assert table[4].endswith("| 64.8 | 71.1 | 92.9 |")
    assert any("*reconstructed* weights: clarity 3, accuracy 4" in line for line in lines)


def test_weights_change_the_overall_score_alone(rubric_run):
    main(["table", "--run", str(rubric_run)])
    before = content(rubric_run)["judges"][0]["splits"]["seen"]["models"]
    main(["table", "--run", str(rubric_run), "--weights", "safety=2", "clarity=1"])
    made = content(rubric_run)
    assert made["weights"]["name"] == "given" and made["weights"]["values"]["accuracy"] == 0
    after = made["judges"][0]["splits"]["seen"]["models"]
    assert all(after[m][n] == before[m][n] for m in after for n in CRITERIA)
    page = (rubric_run / "evaluation/criteria.md").read_text()
    assert "*given* weights: clarity 1, accuracy 0" in page


@pytest.mark.parametrize("model", TABLE_3)
def test_the_paper_s_overall_scores_come_out_of_its_rows(model):
    points = {name: TABLE_3[model][name] / 50 for name in CRITERIA}
    assert overall_score(points) == pytest.approx(TABLE_3[model]["overall"], abs=0.1)


def test_judgements_of_answers_that_are_no_more_are_left_out_and_told(
    tmp_path, row, write_responses
):
    answers = {"sft": "s", "rlhf": "r"}
    rows = [row("seen", i, m, t) for i in range(3) for m, t in answers.items()]
    run = write_responses(tmp_path / "run", rows)
    points = {"sft": 0.0, "rlhf": 2.0}
    prompts = (
        judged(0, answers, points),
        judged(1, answers, points),
        judged(2, {"sft": "s", "rlhf": "an older one"}, {"sft": 2.0, "rlhf": 0.0}),
    )
    write_judgement(run, Judgement("ai", "ai:x", 1, "sample", prompts))
    main(["table", "--run", str(run)])
    (judge,) = content(run)["judges"]
    assert judge["prompts"] == 2 and "1 of 3 judged prompts are left out" in judge["notes"][0]
    assert judge["splits"]["seen"]["models"]["rlhf"]["overall"]["mean"] == 100.0
    assert judge["notes"][0].split(":")[0] in (run / "evaluation/criteria.md").read_text()


def test_a_judgement_is_read_as_it_was_written(tmp_path):
    prompt = Judged(
        "seen",
        1,
        {"sft": "m"},
        (Rating("sft", "anna", {"clarity": 1.0}),),
        (Comparison("sft", "rlhf", "model", "tie"),),
        (Ranking("anna", {"sft": 1.5}),),
    )
    judgement = Judgement("people", "people", 1, "greedy", (prompt,), {"kendalls_w": None})
    path = write_judgement(tmp_path, judgement)
    assert read_judgement(path) == judgement
    path.write_text('{"kind": "people"}')
    with pytest.raises(UserError, match="no judgement that can be read; delete it"):
        read_judgement(path)


def test_two_judges_with_like_names_do_not_overwrite_each_other(tmp_path):
    write_judgement(tmp_path, Judgement("ai", "ai:a/b", 1, "sample", ()))
    with pytest.raises(UserError, match="another judge with a like name"):
        write_judgement(tmp_path, Judgement("ai", "ai:a b", 1, "sample", ()))


def test_a_judges_work_is_replaced_by_its_work_on_the_same_decoding_only(tmp_path):
    for decoding, labelers in (("sample", 1), ("greedy", 2), ("sample", 3)):
        path = write_judgement(tmp_path, Judgement("ai", "ai:x", labelers, decoding, ()))
    assert {(j.decoding, j.labelers) for j in read_judgements(tmp_path)} == {
        ("sample", 3),
        ("greedy", 2),
    }
    path.rename(path.with_name("ai_x.json"))  # as an earlier version called it
    write_judgement(tmp_path, Judgement("ai", "ai:x", 4, "sample", ()))
    assert sorted(j.labelers for j in read_judgements(tmp_path)) == [2, 4]


def test_an_evaluation_that_starts_over_keeps_judgements_and_not_the_table(rubric_run):
    main(["table", "--run", str(rubric_run)])
    path = write_judgement(rubric_run, Judgement("ai", "ai:x", 1, "sample", ()))
    start_over(rubric_run / "evaluation")
    assert path.is_file() and not list((rubric_run / "evaluation").glob("criteria.*"))


def test_nobody_has_judged(answered):
    with pytest.raises(UserError, match="nobody has judged its answers"):
        main(["table", "--run", str(answered)])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the first word must be one of table, people, ai"),
        (["tabel"], "not 'tabel'"),
        (["table", "--run", "nowhere"], "nowhere: there is no such folder"),
        (["table", "--wieghts", "a"], "did you mean '--weights'"),
    ],
)
def test_mistakes_on_the_command_line(words, said):
    with pytest.raises(UserError, match=said):
        main(words)


def test_the_papers_overall_goes_by_the_weights_too():
    assert table_3(RECONSTRUCTED_WEIGHTS) == TABLE_3
    found = table_3({**dict.fromkeys(CRITERIA, 0.0), "accuracy": 2.0, "completeness": 1.0})
    assert found["Llama2 SFT"]["overall"] == pytest.approx((2 * 77.4 + 64.8) / 3)
    assert found["Llama2 SFT"] | {"overall": 86.3} == TABLE_3["Llama2 SFT"]
