"""Sizes of reward models: how they are named, what they change, what they start from."""

import pytest

from common.config.arguments import ModelArguments, OptimizerArguments, TextArguments
from common.errors import UserError
from common.models.loading import load_causal_lm, load_tokenizer
from common.reward.training import RewardArguments
from step2_reward.main import RewardStageArguments
from step2_reward.sizes import base_folder, count_parameters, parse_sizes, with_changes
from tests.models import save_tiny

GROUPS = [RewardStageArguments(), RewardArguments(), OptimizerArguments()]


def test_paths_and_mappings():
    big = '{"path": "org/big", "name": "large", "learning_rate": 1e-5, "loss": "logistic"}'
    sizes = parse_sizes(["tiny:2x64", "runs/mine/models/sft/", big], GROUPS)
    assert [s.name for s in sizes] == ["tiny_2x64", "sft", "large"]
    assert [s.path for s in sizes] == ["tiny:2x64", "runs/mine/models/sft/", "org/big"]
    tiny = sizes[0].tiny
    assert (tiny.tiny_layers, tiny.tiny_width, tiny.tiny_heads) == (2, 64, 2)
    assert sizes[1].tiny is None and sizes[1].changes == {}
    changed = with_changes(GROUPS, sizes[2].changes)
    assert changed[2].learning_rate == 1e-5 and changed[1].loss == "logistic"
    assert GROUPS[1].loss == "margin"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "sizes is empty"),
        ([""], "`path` must name"),
        (['{"path": "a", "name": "../up"}'], "must be a name for a folder"),
        ([".."], "must be a name for a folder"),
        (['{"path": "a", "learning_rat": 1}'], "unknown setting 'learning_rat'.*learning_rate"),
        (['{"path": "a", "learning_rate": "fast"}'], "`learning_rate` is 'fast'"),
        (['{"path": "a", "patience": true}'], "`patience` is True"),
        (["tiny:2"], "must be tiny:LAYERSxWIDTH"),
        (["tiny:0x64"], "must be tiny:LAYERSxWIDTH"),
        (["tiny:2x70"], "multiple"),
        (["tiny:2x15"], "even"),
        (["tiny:2x0"], "must be tiny:LAYERSxWIDTH"),
        (["x/sft", "y/sft"], "two sizes are named sft"),
    ],
)
def test_what_cannot_be_is_refused(values, message):
    with pytest.raises(UserError, match=message):
        parse_sizes(values, GROUPS)


def test_settings_check_themselves_again():
    with pytest.raises(UserError, match="train_fraction"):
        with_changes(GROUPS, {"train_fraction": 1.5})


def test_a_tiny_base_is_the_same_each_time(tmp_path):
    (size,) = parse_sizes(["tiny:1x32"], GROUPS)
    text = TextArguments(max_prompt_tokens=60, max_response_tokens=40)
    texts = ["what colour is the sky", "blue, mostly", "grey on some days"]
    found = []
    for _ in range(2):
        folder = base_folder(size, tmp_path, iter(texts), text, seed=4)
        files = ("model.safetensors", "tokenizer.json", "config.json")
        found.append([(tmp_path / "tiny_1x32" / name).read_bytes() for name in files])
    assert found[0] == found[1] and folder == str(tmp_path / "tiny_1x32")
    model = load_causal_lm(folder, ModelArguments())
    assert model.config.max_position_embeddings == 100 and model.config.hidden_size == 32
    assert len(load_tokenizer(folder)) == model.config.vocab_size
    assert [p.name for p in tmp_path.iterdir()] == ["tiny_1x32"]
    (other,) = parse_sizes([str(tmp_path)], GROUPS)
    assert base_folder(other, tmp_path, [], text, seed=4) == str(tmp_path)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_weights_are_counted_without_reading_them(tmp_path, kind):
    folder = str(save_tiny(tmp_path / kind, kind))
    (tmp_path / kind / "model.safetensors").unlink()
    from transformers import AutoConfig, AutoModelForSequenceClassification

    config = AutoConfig.from_pretrained(folder, num_labels=1)
    whole = AutoModelForSequenceClassification.from_config(config)
    expected = sum(p.numel() for p in whole.parameters())
    assert count_parameters(folder, ModelArguments()) == expected > 1000
