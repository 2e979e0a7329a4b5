"""Best-of-n and further models: who is compared, which sample is kept, and how far that is."""

import itertools
import json
import math
import random

import pytest

import common.evaluation.main as evaluation
from common.config.arguments import RunArguments
from common.errors import UserError
from common.evaluation.contenders import contenders, in_order, keep_best, kl_bound, title
from common.training.stage import Stage
from tests.inputs import argument_groups, write
from tests.models import save_reward, save_tiny

# Which sample is kept.


def candidates(draw, prompts, n, name="best_of_4"):
    """Rows of SFT and of best-of-n, in the order in which the evaluation makes them."""
    rows = []
    for split in ("seen", "unseen"):
        for sample, index in itertools.product(range(n), range(prompts)):
            for model in ("sft", name):
                row = {"split": split, "index": index, "model": model, "sample": sample}
                reward = draw.choice([-1.0, 0.25, 0.25, 2.0, draw.gauss(0.0, 1.0)])
                rows.append(row | {"reward": reward, "response": f"{model} {split} {sample}"})
    return rows


@pytest.mark.parametrize("seed", range(3))
def test_the_highest_score_is_kept_and_the_first_of_equals(seed):
    rows = candidates(random.Random(seed), 20, 4)
    kept = keep_best(rows, "best_of_4")
    assert [r for r in kept if r["model"] == "sft"] == [r for r in rows if r["model"] == "sft"]
    ties = 0
    for split, index in itertools.product(("seen", "unseen"), range(20)):
        scores = [None] * 4
        for row in rows:
            if (row["split"], row["index"], row["model"]) == (split, index, "best_of_4"):
                scores[row["sample"]] = row["reward"]
        best = 0
        for k in (1, 2, 3):
            if scores[k] > scores[best]:
                best = k
        ties += scores.count(max(scores)) > 1
        place = (split, index, "best_of_4")
        (row,) = (r for r in kept if (r["split"], r["index"], r["model"]) == place)
        assert (row["chosen"], row["scores"], row["sample"]) == (best, scores, 0)
        assert row["response"] == f"best_of_4 {split} {best}" and row["reward"] == scores[best]
    assert ties > 5


def test_the_order_of_rows_changes_nothing():
    rows = candidates(random.Random(0), 5, 3)
    shuffled = random.Random(1).sample(rows, len(rows))
    in_order = sorted(keep_best(rows, "best_of_4"), key=str)
    assert sorted(keep_best(shuffled, "best_of_4"), key=str) == in_order


def test_the_best_of_one_is_that_one():
    rows = candidates(random.Random(0), 6, 1, "best_of_1")
    kept = keep_best(rows, "best_of_1")
    assert [{k: v for k, v in r.items() if k not in ("chosen", "scores")} for r in kept] == rows
    assert all(r["chosen"] == 0 for r in kept if r["model"] == "best_of_1")


# How far that is.


@pytest.mark.parametrize("n", [2, 4, 16])
def test_the_kl_of_best_of_n_is_below_the_bound_and_near_it_for_many_outcomes(n):
    """Exactly, for outcomes of different scores: the best is k where all are ≤ k, not all < k."""

    def exact(probabilities):
        below, kl = 0.0, 0.0
        for p in probabilities:
            share = (below + p) ** n - below**n
            below += p
            if share > 0.0:
                kl += share * math.log(share / p)
        return kl

    draw = random.Random(n)
    for outcomes in (1, 2, 5, 50):
        weights = [draw.random() for _ in range(outcomes)]
        assert exact([w / sum(weights) for w in weights]) <= kl_bound(n) + 1e-12
    assert exact([1.0]) == 0.0
    assert exact([1e-4] * 10_000) == pytest.approx(kl_bound(n), rel=0.01)


def test_the_bound_by_hand():
    assert kl_bound(1) == 0.0
    assert kl_bound(4) == pytest.approx(1.3862944 - 0.75)


# Who is compared.


def test_contenders_in_their_order():
    found = contenders("m/sft", "m/actor", ["m/dpo/", "hub/other"], 4, 8)
    assert [c.name for c in found] == ["sft", "best_of_8", "rlhf", "dpo", "other"]
    assert [c.path for c in found] == ["m/sft", "m/sft", "m/actor", "m/dpo/", "hub/other"]
    assert [c.passes for c in found] == [5, 8, 5, 5, 5]
    assert len({c.purpose for c in found}) == 2 and found[1].purpose != found[0].purpose
    assert [c.name for c in contenders("a", "b", [], 4, 0)] == ["sft", "rlhf"]
    assert [title(c.name) for c in found] == ["SFT", "best of 8", "RLHF", "dpo", "other"]


@pytest.mark.parametrize("path", ["m/sft", "rlhf/", "m/best_of_4", "m/dpo", "/", ".."])
def test_a_name_that_is_taken_or_none_is_refused(path):
    with pytest.raises(UserError, match="further: "):
        contenders("a", "b", ["n/dpo", path], 4, 4)


@pytest.mark.parametrize(("setting", "value"), [("best_of", 1), ("best_of", -2), ("samples", -1)])
def test_bad_settings_are_refused(setting, value):
    with pytest.raises(UserError, match=f"{setting} is {value}"):
        evaluation.EvaluationArguments(**{setting: value})


# The whole stage, on models of random weights.


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    found = {n: str(save_tiny(root / n, seed=i)) for i, n in enumerate(("sft", "actor", "dpo"))}
    return found | {"reward": save_reward(root / "reward")}


def evaluate(tmp_path, models, name, **changes):
    """`main` as one rank; returns the rows it wrote and its result."""
    file = write(tmp_path, [{"prompt": "q" * (1 + 3 * i)} for i in range(5)], "prompts.jsonl")
    settings = {
        "sft": models["sft"],
        "rlhf": models["actor"],
        "reward": models["reward"],
        "further": [models["dpo"]],
        "data": [file],
        "samples": 1,
        "best_of": 3,
        "max_prompt_tokens": 200,
        "max_response_tokens": 6,
        "checkpoint_steps": 1,
        **changes,
    }
    run = RunArguments(run=str(tmp_path / name), progress=False)
    stage = Stage("evaluation", run, {})
    evaluation.main(stage, run, *argument_groups(evaluation.ARGUMENTS[1:], settings))
    lines = (stage.folder / "responses.jsonl").read_text().splitlines()
    result = json.loads((stage.folder / "result.json").read_text())
    return [json.loads(line) for line in lines], result


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory):
    return evaluate(tmp_path_factory.mktemp("evaluation"), models, "whole")


def test_each_contender_answers_and_best_of_n_keeps_one(whole):
    rows, result = whole
    counts = {}
    for row in rows:
        key = (row["model"], row["decoding"])
        counts[key] = counts.get(key, 0) + 1
    both = {(m, d): 5 for m in ("sft", "rlhf", "dpo") for d in ("sample", "greedy")}
    assert counts == both | {("best_of_3", "sample"): 5}
    best = [row for row in rows if row["model"] == "best_of_3"]
    assert [row["index"] for row in best] == list(range(5))
    for row in best:
        assert len(row["scores"]) == 3 and row["reward"] == max(row["scores"])
        assert row["scores"][row["chosen"]] == row["reward"]
    assert {row["chosen"] for row in best} != {0}
    assert result["best_of_3_reward"] == pytest.approx(sum(r["reward"] for r in best) / 5)
    assert result["best_of_kl_bound"] == pytest.approx(math.log(3) - 2 / 3)
    assert "dpo_reward" in result


def test_the_batch_size_changes_nothing(tmp_path, models, whole):
    rows, _ = evaluate(tmp_path, models, "small", generation_batch_size=2)
    for row, other in zip(whole[0], rows, strict=True):
        for name, value in row.items():
            close = name in ("reward", "scores")
            assert other[name] == (pytest.approx(value, abs=1e-4) if close else value), name


def test_without_the_new_settings_the_answers_are_what_they_were(tmp_path, models, whole):
    rows, result = evaluate(tmp_path, models, "plain", further=[], best_of=0)
    assert rows == [r for r in whole[0] if r["model"] in ("sft", "rlhf")]
    assert not [name for name in result if "best" in name or "dpo" in name]


@pytest.mark.parametrize("passes", [3, 6])
def test_a_run_that_was_interrupted_ends_with_the_same_rows(
    tmp_path, models, whole, monkeypatch, passes
):
    """Among best-of-n's samples, and among RLHF's."""
    answer, calls = evaluation.answer, []

    def counted(*args, **kwargs):
        if len(calls) == passes:
            raise KeyboardInterrupt
        calls.append(kwargs["seed"])
        return answer(*args, **kwargs)

    monkeypatch.setattr(evaluation, "answer", counted)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, models, "run")
    monkeypatch.setattr(evaluation, "answer", answer)
    assert evaluate(tmp_path, models, "run")[0] == whole[0]


def test_scores_of_tokens_go_on_where_they_were_interrupted(tmp_path, models, monkeypatch):
    """Nothing is answered or scored twice, and the file is the same."""
    changes = {"further": [], "best_of": 0, "token_prompts": 3}
    evaluate(tmp_path, models, "alone", **changes)
    asked, answered, call = [], [], evaluation.TokenScorer.__call__
    answer = evaluation.answer

    def counted(scorer, name, *args):
        if len(asked) == 1:
            asked.append(name)
            raise KeyboardInterrupt
        asked.append(name)
        return call(scorer, name, *args)

    monkeypatch.setattr(evaluation.TokenScorer, "__call__", counted)
    monkeypatch.setattr(
        evaluation, "answer", lambda *args, **kwargs: answered.append(1) or answer(*args, **kwargs)
    )
    with pytest.raises(KeyboardInterrupt):
        evaluate(tmp_path, models, "run", **changes)
    evaluate(tmp_path, models, "run", **changes)
    assert asked == ["sft", "rlhf", "rlhf"] and len(answered) == 4
    files = [tmp_path / name / "evaluation" / "tokens.jsonl" for name in ("alone", "run")]
    one, other = (file.read_text() for file in files)
    rows = [json.loads(line) for line in one.splitlines()]
    assert one == other and len(rows) == 3 * 2 * 2
    assert all(len(r["tokens"]) == len(r["sft"]) == len(r["rlhf"]) > 0 for r in rows)
    none = evaluate(tmp_path, models, "none", **changes | {"token_prompts": 0})[0]
    assert len(none) == 20 and (tmp_path / "none/evaluation/tokens.jsonl").read_text() == ""


def with_other_ids(folder, seed):
    """A model whose tokenizer gives every byte another number."""
    save_tiny(folder, seed=seed)
    content = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    words = sorted(vocabulary, key=vocabulary.get)
    content["model"]["vocab"] = dict(zip([*words[:3], *words[:2:-1]], range(999), strict=False))
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return str(folder)


def test_scores_of_tokens_are_not_of_a_further_models_ids(tmp_path, models):
    changes = {"best_of": 0, "token_prompts": 2}
    other = with_other_ids(tmp_path / "other", 2)
    for name, further in (("alone", []), ("beside", [other])):
        evaluate(tmp_path, models, name, further=further, **changes)
    files = [tmp_path / name / "evaluation" / "tokens.jsonl" for name in ("alone", "beside")]
    alone, beside = (file.read_text() for file in files)
    assert alone and alone == beside


def test_models_that_read_ids_otherwise_score_none_of_each_others(tmp_path, models, capsys):
    """And a prompt that one of them cannot take gives no other prompt its number."""
    other = with_other_ids(tmp_path / "other", 1)
    texts = ["a", "b" * 400, "c"]
    file = write(tmp_path, [{"prompt": text} for text in texts], "long.jsonl")
    changes = {"data": [file], "further": [], "best_of": 0, "token_prompts": 2}
    rows, result = evaluate(tmp_path, models, "run", rlhf=other, **changes)
    assert (tmp_path / "run" / "evaluation" / "tokens.jsonl").read_text() == ""
    assert "different tokenizers" in capsys.readouterr().out
    assert {(row["index"], row["prompt"]) for row in rows} == {(0, "a"), (2, "c")}
    assert result["prompts"] == {"long": 2}


def test_the_order_of_contenders_for_readers():
    names = ["rlhf", "best_of_8", "a", "rlhf", "sft", "best_of_4"]
    assert in_order(names) == ["sft", "rlhf", "a", "best_of_4", "best_of_8"]
