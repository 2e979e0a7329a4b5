"""Each warning appears when its number crosses the limit, and only then."""

import pytest

from common.evaluation.health import findings
from common.evaluation.run_files import read_metrics
from common.evaluation.summary import build_summary


def found(run, metrics=None):
    return findings(build_summary(run), metrics or {})


def warnings(run):
    return [finding.text for finding in found(run) if finding.level == "warning"]


def pair_rows(response_row, split, scores, **changes):
    """Rows of one prompt for each (SFT, RLHF) pair of overall scores."""
    return [
        response_row(split, index, model, overall=score, **changes)
        for index, pair in enumerate(scores)
        for model, score in zip(("sft", "rlhf"), pair, strict=True)
    ]


def test_a_good_run_has_no_warning(run):
    assert warnings(run) == []


@pytest.mark.parametrize(
    ("stage", "facts", "word"),
    [
        ("rlhf", {"kl_per_sequence": 6.5, "eos_rate": 0.99}, "KL"),
        ("rlhf", {"kl_per_sequence": 2.5, "eos_rate": 0.9}, "end by themselves"),
        ("reward", {"accuracy": 0.8, "right_minus_wrong": 2.0}, "80.0%"),
        ("reward", {"accuracy": 0.9, "right_minus_wrong": 0.8}, "right minus wrong is 0.80"),
        ("reward", {"accuracy": 0.9, "length_only_accuracy": 0.93}, "length alone gets 93.0%"),
    ],
)
def test_a_stages_number_beyond_its_limit_warns(run, write_result, stage, facts, word):
    write_result(run, stage, facts)
    (text,) = warnings(run)
    assert word in text


def test_what_was_not_measured_is_not_judged(tmp_path, write_result):
    write_result(tmp_path, "reward", {"seconds": 1.0, "right_minus_wrong": None})
    write_result(tmp_path, "rlhf", {"seconds": 1.0})
    assert found(tmp_path) == []


def test_kl_of_a_killed_run_comes_from_its_metrics(tmp_path, write_lines, write_result):
    write_result(tmp_path, "sft", {"seconds": 1.0})
    path = tmp_path / "rlhf" / "metrics.jsonl"
    rows = [{"step": s, "kl/sequence_k1": kl} for s, kl in enumerate((0.0, 7.5, float("nan")))]
    write_lines(path, rows)
    (finding,) = found(tmp_path, {"rlhf": read_metrics(path)})
    assert finding.level == "warning"
    assert "7.50" in finding.text and "last step" in finding.text


@pytest.mark.parametrize(("losses", "warned"), [(3, False), (4, True)])
def test_losing_on_more_than_15_percent_warns(tmp_path, response_row, write_lines, losses, warned):
    scores = [(50.0, 49.0)] * losses + [(50.0, 90.0)] * (20 - losses)
    rows = pair_rows(response_row, "seen", scores)
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    assert any("loses on" in text for text in warnings(tmp_path)) == warned


def test_a_falling_accuracy_criterion_and_a_rising_reward_is_a_hacked_reward_model(
    tmp_path, response_row, write_lines
):
    rows = []
    for index in range(10):
        rows += [response_row("seen", index, criteria={"accuracy": 2, "clarity": 0})]
        rows += [
            response_row(
                "seen",
                index,
                "rlhf",
                overall=80.0,
                reward=1.5,
                criteria={"accuracy": 1, "clarity": 2},
            )
        ]
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    texts = warnings(tmp_path)
    assert any("accuracy criterion falls: -50.0 points" in text for text in texts)
    assert any("hacked reward model" in text and "0.00 to 1.50" in text for text in texts)
    assert len(texts) == 2


@pytest.mark.parametrize(("after", "warned"), [(88.1, False), (87.9, True), (95.0, False)])
def test_general_ability_may_lose_less_than_2_points(
    tmp_path, response_row, write_lines, after, warned
):
    rows = pair_rows(response_row, "general", [(90.0, after)] * 4)
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    assert (
        any(text.startswith("general: RLHF against SFT") for text in warnings(tmp_path)) == warned
    )


def test_a_split_that_is_cut_off_at_the_limit_warns(tmp_path, response_row, write_lines):
    rows = pair_rows(response_row, "seen", [(50.0, 60.0)] * 4, ended=False)
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    assert any("only 0.0% of the responses end" in text for text in warnings(tmp_path))


def test_a_change_that_chance_could_make_is_called_so(tmp_path, response_row, write_lines):
    rows = pair_rows(response_row, "seen", [(50.0, 40.0), (50.0, 70.0), (50.0, 30.0)])
    write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
    (text,) = [t for t in warnings(tmp_path) if t.startswith("seen: RLHF against SFT")]
    assert "-3.3 points" in text and "may be chance" in text


def test_greedy_at_the_ceiling_is_noted(tmp_path, response_row, write_lines):
    for overall, noted in ((96.0, False), (99.0, True)):
        rows = [response_row(model=m, decoding="greedy", overall=overall) for m in ("sft", "rlhf")]
        write_lines(tmp_path / "evaluation" / "responses.jsonl", rows)
        texts = [finding.text for finding in found(tmp_path)]
        assert any("no longer be told apart" in text for text in texts) == noted


def test_what_a_guard_noted_is_a_warning(tmp_path, write_lines, write_result):
    write_result(tmp_path, "sft", {"seconds": 1.0})
    path = tmp_path / "sft" / "metrics.jsonl"
    write_lines(path, [{"step": 1, "train/loss": 1.0}])
    noted = {"step": 7, "fault": "kl", "text": "the KL is high", "action": "went on"}
    write_lines(path.with_name("events.jsonl"), [noted, {"step": 8}])
    (finding,) = found(tmp_path, {"sft": read_metrics(path)})
    assert finding.level == "warning"
    assert finding.text == "sft, step 7: the KL is high; the run went on."
