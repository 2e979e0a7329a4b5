"""Critic and reward model: scores against bare forwards, heads, and what loading refuses."""

import math

import pytest
import torch
from torch import nn

from common.config.arguments import ModelArguments
from common.errors import UserError
from common.models.loading import load_tokenizer, save_model, separate_pad
from common.models.scalar import (
    VALUE_HEAD_FILE,
    copy_reward_head,
    head_of,
    initialize_head,
    last_token_scores,
    load_scalar_model,
)
from tests.models import save_tiny

KINDS = ["llama", "gpt2", "opt"]
ROLES = ["reward", "critic"]
PLAIN = ModelArguments()
ROW = [1, 9, 30, 77, 8, 50, 60, 70, 2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {kind: str(save_tiny(root / kind, kind)) for kind in KINDS}


def with_random_head(folder, role, seed=0):
    """A model whose head matters: a fresh critic's is 0."""
    model = load_scalar_model(folder, role, PLAIN, new_head=True)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in head_of(model.inner).parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model.eval()


def by_hand(model, ids):
    """Head outputs at every token of one row, from the backbone alone, without a mask."""
    head = head_of(model.inner)
    with torch.no_grad():
        hidden = model.inner.base_model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        bias = 0.0 if head.bias is None else head.bias
        return (hidden.double() * head.weight[0].double()).sum(dim=1) + bias


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("pad_id", [0, 2], ids=["pad", "pad=eos"])
def test_scores_do_not_depend_on_padding(folders, kind, role, pad_id):
    model = with_random_head(folders[kind], role)
    expected = by_hand(model, ROW)
    assert expected.std() > 0.1
    rows, masks, starts = [], [], []
    for left in (0, 1, 7, 20):
        for right in (0, 2, 20 - left):
            width = 45 - left - len(ROW)
            rows.append([pad_id] * left + ROW + [pad_id] * width)
            masks.append([False] * left + [True] * len(ROW) + [False] * width)
            starts.append(left)
            # As wide as it must be, too: what other rows need must make no difference.
            ids = torch.tensor([[pad_id] * left + ROW + [pad_id] * right])
            mask = torch.tensor([[False] * left + [True] * len(ROW) + [False] * right])
            with torch.no_grad():
                alone = last_token_scores(model(ids, mask), mask)
            assert float(alone) == pytest.approx(float(expected[-1]), abs=1e-4)
    ids, mask = torch.tensor(rows), torch.tensor(masks)
    with torch.no_grad():
        found = model(ids, mask)
    assert found.shape == ids.shape and found.dtype == torch.float32
    for row, left in zip(found, starts, strict=True):
        assert torch.allclose(row[left : left + len(ROW)].double(), expected, atol=1e-4)
    assert torch.allclose(last_token_scores(found, mask).double(), expected[-1], atol=1e-4)


def test_last_token_scores_against_loops():
    generator = torch.Generator().manual_seed(1)
    masks = [
        [1, 1, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
        [1, 1, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1],
        [1, 0, 0, 0, 0, 0],
    ]
    values = torch.randn(len(masks), 6, generator=generator)
    for mask in (torch.tensor(masks), torch.tensor(masks).bool()):
        expected = []
        for row, marks in zip(values.tolist(), masks, strict=True):
            last = [v for v, m in zip(row, marks, strict=True) if m][-1]
            expected.append(last)
        assert last_token_scores(values, mask).tolist() == expected


def test_a_new_reward_head_is_drawn_from_the_distribution_of_the_literature():
    head = nn.Linear(40_000, 1)
    initialize_head(head, "reward", seed=3)
    weights = head.weight.detach().double()
    std = 1 / math.sqrt(40_001)
    assert float(weights.std()) == pytest.approx(std, rel=0.02)
    assert abs(float(weights.mean())) < 4 * std / 200
    inside = [float((weights.abs() < k * std).double().mean()) for k in (1, 2)]
    assert inside == pytest.approx([0.6827, 0.9545], abs=0.01)  # of a normal distribution
    assert head.bias.tolist() == [0.0]
    again, other = nn.Linear(40_000, 1), nn.Linear(40_000, 1)
    initialize_head(again, "reward", seed=3)
    initialize_head(other, "reward", seed=4)
    assert torch.equal(again.weight, head.weight) and not torch.equal(other.weight, head.weight)


@pytest.mark.parametrize("kind", KINDS)
def test_new_heads_in_place(folders, kind):
    reward = load_scalar_model(folders[kind], "reward", PLAIN, new_head=True, seed=1)
    critic = load_scalar_model(folders[kind], "critic", PLAIN, new_head=True, seed=1)
    ids = torch.tensor([ROW])
    with torch.no_grad():
        assert critic(ids, torch.ones_like(ids)).abs().max() == 0
        assert reward(ids, torch.ones_like(ids)).abs().max() > 0
    assert float(head_of(reward.inner).weight.detach().std()) == pytest.approx(17**-0.5, rel=0.6)
    torch.rand(5)  # what else was drawn must not matter
    same = load_scalar_model(folders[kind], "reward", PLAIN, new_head=True, seed=1)
    assert torch.equal(head_of(same.inner).weight, head_of(reward.inner).weight)


@pytest.mark.parametrize("kind", KINDS)
def test_a_critic_from_the_reward_model_predicts_normalized_scores(folders, kind, tmp_path):
    reward = with_random_head(folders[kind], "reward")
    save_model(reward, load_tokenizer(folders[kind]), tmp_path / "reward", "")
    mean, std = -1.5, 2.5
    critic = load_scalar_model(
        str(tmp_path / "reward"), "critic", PLAIN, new_head=True, head_from=(reward, mean, std, 1.0)
    )
    ids = torch.tensor([ROW, ROW[::-1]])
    mask = torch.ones_like(ids)
    with torch.no_grad():
        raw, values = reward(ids, mask), critic(ids, mask)
    assert raw.std() > 0.1
    assert torch.allclose(values, (raw + 1.5) / 2.5, atol=1e-4)


def test_copying_a_head_with_a_bias():
    reward = nn.Module()
    reward.head = nn.Linear(2, 1)
    target = nn.Linear(2, 1)
    with torch.no_grad():
        reward.head.weight.copy_(torch.tensor([[3.0, -6.0]]))
        reward.head.bias.fill_(5.0)
    copy_reward_head(target, reward, mean=2.0, std=3.0, weight=1.0)
    assert target.weight.tolist() == [[1.0, -2.0]]
    assert target.bias.tolist() == [1.0]
    copy_reward_head(target, reward, mean=2.0, std=3.0, weight=-0.5)
    assert target.weight.tolist() == [[-0.5, 1.0]]
    assert target.bias.tolist() == [-0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_a_reward_model_of_a_base_that_pads_with_its_end_token(kind, tmp_path):
    """Its tokenizer gets a pad token, its embedding a row for it, and no score changes."""
    folder = str(save_tiny(tmp_path / kind, kind, pad="</s>"))
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pad_token_id == tokenizer.eos_token_id == 2
    separate_pad(tokenizer)
    plain = load_scalar_model(folder, "reward", PLAIN, new_head=True, seed=1)
    first, again = (
        load_scalar_model(folder, "reward", PLAIN, new_head=True, seed=1, tokenizer=tokenizer)
        for _ in range(2)
    )
    pad = tokenizer.pad_token_id
    assert pad == 259 and first.inner.config.pad_token_id == pad
    assert first.inner.get_input_embeddings().num_embeddings == 260
    for a, b in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)  # ranks, and runs of one seed, start from the same weights
    ids, padded = torch.tensor([ROW]), torch.tensor([ROW + [pad] * 3])
    mask = torch.tensor([[1] * len(ROW) + [0] * 3])
    with torch.no_grad():
        expected = last_token_scores(plain(ids, torch.ones_like(ids)), torch.ones_like(ids))
        found = last_token_scores(first(padded, mask), mask)
    assert float(found) == pytest.approx(float(expected), abs=1e-5)


@pytest.mark.parametrize("role", ROLES)
def test_saved_and_loaded_again(folders, role, tmp_path):
    for kind in KINDS:
        model = with_random_head(folders[kind], role)
        save_model(model, load_tokenizer(folders[kind]), tmp_path / kind, "")
        loaded = load_scalar_model(str(tmp_path / kind), role, PLAIN, new_head=False)
        ids = torch.tensor([ROW])
        with torch.no_grad():
            assert torch.allclose(loaded(ids, ids > 0), model(ids, ids > 0), atol=1e-5)
        for a, b in zip(loaded.parameters(), model.parameters(), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("role", ROLES)
def test_a_language_model_is_no_finished_scalar_model(folders, kind, role):
    with pytest.raises(UserError, match="weights of the model are not in its files"):
        load_scalar_model(folders[kind], role, PLAIN, new_head=False)


def test_opt_critics(folders, tmp_path):
    """No stock class: the head lies beside the backbone."""
    with pytest.raises(UserError, match="value_head.safetensors: the critic's value head is miss"):
        load_scalar_model(folders["opt"], "critic", PLAIN, new_head=False)
    model = with_random_head(folders["opt"], "critic")
    save_model(model, load_tokenizer(folders["opt"]), tmp_path / "critic", "")
    assert (tmp_path / "critic" / VALUE_HEAD_FILE).is_file()


@pytest.mark.parametrize("role", ROLES)
def test_no_such_folder(role, tmp_path):
    with pytest.raises(UserError, match="no such model folder"):
        load_scalar_model(str(tmp_path / "nowhere"), role, PLAIN, new_head=True)
