"""Shares of the training prompts, and the rankings that held-out pairs come from."""

import json

import pytest

from common.config.arguments import RunArguments, TextArguments
from common.data.pairs import write_pairs
from common.data.records import Message, Pair
from common.data.template import Template
from common.errors import UserError
from common.training import preferences
from common.training.preferences import (
    PreferenceArguments,
    load_comparisons,
    part_of,
    ranking_files,
)
from common.training.resume.folders import Label, partial_folder, publish, write_manifest
from common.training.stage import Stage
from tests.models import byte_tokenizer

TEXT = TextArguments(max_prompt_tokens=200, max_response_tokens=50)


def pairs_of(prompts, each=3):
    return [
        Pair((Message("user", f"question {k}"),), f"good {i}", f"bad {i}", 1.0, f"f:{k}")
        for k in range(prompts)
        for i in range(each)
    ]


def keys(pairs):
    return {pair.prompt_key for pair in pairs}


def test_a_smaller_share_is_part_of_a_larger_and_prompts_stay_whole():
    pairs = pairs_of(40)
    parts = [part_of(pairs, fraction, seed=3) for fraction in (0.01, 0.1, 0.25, 0.5, 1.0)]
    assert [len(keys(part)) for part in parts] == [1, 4, 10, 20, 40]
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert keys(smaller) < keys(larger)
    assert all(len(part) == 3 * len(keys(part)) for part in parts) and parts[-1] == pairs
    assert keys(part_of(pairs, 0.25, seed=4)) != keys(parts[2])


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.01])
def test_shares_outside_are_refused(fraction):
    with pytest.raises(UserError, match="train_fraction"):
        PreferenceArguments(train_fraction=fraction)


def load(root, source, **given):
    stage = Stage("reward", RunArguments(run=str(root)), {})
    template = Template(byte_tokenizer())
    return load_comparisons(stage, source, template, TEXT, always_ends=True, **given)


def write_rankings(path, prompts):
    rows = [
        {
            "prompt": f"question {k}",
            "responses": ["best", "good", "fair", "poor"],
            "orders": [[0, 1, 2, 3], [1, 0, 2, 3], [0, 1, 3, 2]],
        }
        for k in range(prompts)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def held_out_prompts(sets):
    return {c.records[0].prompt_key for c in sets.held_out}


def test_all_shares_are_tested_on_the_same_prompts(tmp_path):
    write_rankings(tmp_path / "rankings.jsonl", 40)
    data = [str(tmp_path / "rankings.jsonl")]
    half, whole = (
        load(tmp_path, PreferenceArguments(data=data, eval_fraction=0.3, train_fraction=f))
        for f in (0.5, 1.0)
    )
    assert held_out_prompts(half) == held_out_prompts(whole)
    assert len(half.train) == round(len(whole.train) / 2)
    assert {r.prompt_key for r in whole.rankings} == held_out_prompts(whole)


def test_rankings_behind_ready_made_pairs_are_known_from_their_file_alone(tmp_path):
    pairs = [
        Pair((Message("user", f"question {k}"),), "best", "poor", 2.5, f"f:{k}") for k in range(30)
    ]
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", pairs)
    source = PreferenceArguments(eval_fraction=0.3)
    stage = Stage("reward", RunArguments(run=str(tmp_path)), {})
    assert ranking_files(stage, source) == [] and load(tmp_path, source).rankings == []
    write_rankings(tmp_path / "rank" / "rankings.jsonl", 30)
    (file,) = ranking_files(stage, source)
    sets = load(tmp_path, source, rankings=[file])
    assert {r.prompt_key for r in sets.rankings} == held_out_prompts(sets)
    assert all(len(r.ranks) == 3 for r in sets.rankings)
    assert sets.held_out[0].records[0].gap == 2.5  # the pairs stay those of the pairs' file
    assert ranking_files(stage, PreferenceArguments(data=["elsewhere.jsonl"])) == []


def test_rankings_that_are_given_become_pairs_as_in_stage_pairs(tmp_path, capsys):
    write_rankings(tmp_path / "rankings.jsonl", 10)
    data = [str(tmp_path / "rankings.jsonl")]
    for settings, each, words in (
        ({}, 4, "the best 2 of a prompt against the worst 2, by mean ranks"),
        ({"choice": "all", "aggregation": "bradley_terry"}, 6, "every two of a prompt, by bradley"),
        ({"choice": "best_worst"}, 1, "the best of a prompt against the worst"),
        ({"top": 1, "margin_from_gap": 0.5}, 2, "the best 1 of a prompt against the worst 2"),
    ):
        sets = load(tmp_path, PreferenceArguments(data=data, eval_fraction=0.3, **settings))
        assert sets.facts["pairs"] + sets.facts["held_out_pairs"] == 10 * each
        assert words in capsys.readouterr().out
    assert all(p.margin == p.gap / 2 for c in sets.train for p in c.records)


def test_settings_that_made_pairs_do_not_heed_are_refused(tmp_path):
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", pairs_of(10))
    with pytest.raises(UserError, match="top, min_agreement: the run's pairs are made already"):
        load(tmp_path, PreferenceArguments(top=1, min_agreement=0.5))
    with pytest.raises(UserError, match="top and bottom are for top_bottom"):
        PreferenceArguments(choice="all", top=1)


def test_weights_count_in_training_alone(tmp_path):
    pairs = [
        Pair((Message("user", f"q {k}"),), "good", "bad", 1.0, f"f:{k}", weight=0.25, margin=2.0)
        for k in range(30)
    ]
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", pairs)
    sets = load(tmp_path, PreferenceArguments(eval_fraction=0.3))
    for part, weight in ((sets.train, 0.25), (sets.held_out, 1.0)):
        found = {(p.weight, p.margin) for c in part for p in c.records}
        assert found == {(weight, 2.0)}


def test_the_rankings_are_those_that_the_pairs_stage_has_read(tmp_path):
    write_rankings(tmp_path / "rank" / "rankings.jsonl", 3)
    write_rankings(tmp_path / "people.jsonl", 3)
    stage = Stage("reward", RunArguments(run=str(tmp_path)), {})
    settings = tmp_path / "pairs" / "config.yaml"
    settings.parent.mkdir()
    people = [str(tmp_path / "people.jsonl")]
    for rankings, expected in (
        ([], [str(tmp_path / "rank" / "rankings.jsonl")]),
        (people, people),
        ([{"path": people[0], "limit": 2}], [{"path": people[0], "limit": 2}]),
        ([*people, str(tmp_path / "gone.jsonl")], []),
    ):
        settings.write_text(json.dumps({"rankings": rankings}))
        assert ranking_files(stage, PreferenceArguments()) == expected


def test_an_unfinished_run_does_not_go_on_with_another_split(tmp_path, monkeypatch):
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", pairs_of(30))

    def go_on(**run):
        stage = Stage("reward", RunArguments(run=str(tmp_path), **run), {})
        stage.begin()
        source = PreferenceArguments(eval_fraction=0.3)
        sets = load_comparisons(stage, source, Template(byte_tokenizer()), TEXT, always_ends=True)
        stage._lock.close()
        return held_out_prompts(sets)

    before = go_on()
    checkpoint = partial_folder(tmp_path / "reward/checkpoints", Label(1))
    checkpoint.mkdir(parents=True)
    write_manifest(checkpoint, {}, {"step": 1})
    publish(checkpoint.parent, Label(1))
    assert go_on() == before
    # As by code that tells conversations apart in another way.
    monkeypatch.setattr(preferences, "_conversation", lambda pair: pair.prompt_key[::-1])
    with pytest.raises(UserError, match="trained on changed.*held out changed.*_changes examples"):
        go_on()
    assert go_on(allow_changes=["examples"]) != before
    # The same pairs in another order are trained on in other batches.
    write_pairs(tmp_path / "pairs" / "pairs.jsonl", pairs_of(30)[::-1])
    with pytest.raises(UserError, match="trained on changed"):
        go_on()
