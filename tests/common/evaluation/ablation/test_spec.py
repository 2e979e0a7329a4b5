"""Ablations as files: what is read, and what is refused."""

import pytest
import yaml

from common.errors import UserError
from common.evaluation.ablation.spec import changed, names, read_ablation, slug


def written(tmp_path, **parts):
    tree = {
        "title": "T",
        "question": "Q?",
        "base": "a",
        "arms": {"a": {}, "b c": {"rlhf": {"gamma": 0.9}}},
        **parts,
    }
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in tree.items() if v is not None}))
    return str(path)


def test_a_file_of_ones_own(tmp_path):
    found = read_ablation(written(tmp_path, paper={"b c": {"says": "worse", "where": "§1"}}))
    assert (found.name, found.base, found.others) == ("mine", "a", ["b c"])
    assert found.label("a") == "standard" and found.label("b c") == "mine.b_c"
    assert found.paper["b c"].says == "worse"


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"base": "z"}, "'base' must name one of the arms"),
        ({"arms": {"a": {}}}, "two arms at least"),
        ({"arms": {"a": {}, "b": {"ppo": {}}}}, "unknown section 'ppo'"),
        ({"arms": {"a": {}, "b": {"rlhf": 3}}}, "'rlhf' must hold settings"),
        ({"arms": {"a": {}, "b": None}}, "must hold sections"),
        ({"arms": {"a": {}, "b c": {}, "b_c": {}}}, "the same folder"),
        ({"paper": {"a": {"says": "worse", "where": "x"}}}, "'a' is no arm that is compared"),
        ({"paper": {"b c": {"says": "bad", "where": "x"}}}, "needs `says`"),
        ({"before": {"x": {"sft": {}}}}, "'stages' must list stages"),
        ({"titel": "x"}, "unknown key 'titel'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, parts, said):
    with pytest.raises(UserError, match=said) as error:
        read_ablation(written(tmp_path, **parts))
    assert "mine.yaml" in str(error.value)


def test_an_unknown_name_lists_those_there_are():
    with pytest.raises(UserError, match="unknown ablation 'klx'.*reward_size"):
        read_ablation("klx")


def test_those_of_the_project_are_the_ones_asked_for():
    assert {
        *("data_source", "advantage_normalization", "reward_size", "kl", "clip_range"),
        *("response_length", "critic", "reward_loss", "samples"),
    } <= set(names())
    for name in names():
        ablation = read_ablation(name)
        assert not ablation.arms[ablation.base], "every base arm is the same run"
        assert ablation.question and len({slug(arm) for arm in ablation.arms}) >= 2


def test_settings_are_laid_over_section_by_section():
    tree = {"run": "r", "sft": {"epochs": 1, "model": "tiny"}, "rank": None, "rlhf": {"steps": 9}}
    changes = {"sft": {"epochs": 2}, "rank": {"labelers": 5}, "rlhf": None}
    assert changed(tree, changes) == {
        "run": "r",
        "sft": {"epochs": 2, "model": "tiny"},
        "rank": {"labelers": 5},
    }
    assert tree["sft"]["epochs"] == 1 and "rlhf" in tree
    with pytest.raises(UserError, match="changes 'dpo', which is no section"):
        changed(tree, {"dpo": {"epochs": 2}})
