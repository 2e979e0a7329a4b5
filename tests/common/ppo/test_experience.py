"""Experience against its definition: one bare forward a row, no padding, no masks, plain loops."""

import itertools
import math
import random

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from common.hybrid_engine.rollout import Rollout
from common.ppo.arguments import PPOArguments
from common.ppo.experience import (
    Experience,
    chunks,
    make_experience,
    micro_batches,
    response_values,
)
from common.ppo.running import RunningMoments, Scale
from tests.common.ppo.small import EOS, PAD, small_actor, small_critic

VOCABULARY = 9
ROWS = [
    # prompt, response, whether it has its end token, raw score
    ([1, 5, 3], [4, 6, EOS], True, 1.5),
    ([1], [7, 3, 8, 5], False, 99.0),  # at the limit: the score must not count
    ([1, 8], [EOS], True, -2.0),  # nothing but the end token
    ([1, 4, 4, 6, 3], [PAD, 3, EOS], True, 50.0),  # a drawn pad token is an action; score clipped
    ([1, EOS, 7], [6, 6, 6, EOS], True, 0.25),  # as long as the limit, but ended
    ([1, 3], [5, 8, 7, 6], False, -1.0),
]
SETTINGS = PPOArguments(
    rollout_batch_size=6,
    mini_batch_size=6,
    score_batch_size=4,
    gamma=0.9,
    lam=0.8,
    score_clip=3.0,
    no_end_score=-2.5,
)
BETA, TEMPERATURE, MEAN, STD = 0.3, 0.7, 0.5, 2.0
SCALES = {"reward": Scale(MEAN, STD)}


def rollout_of(rows=ROWS, pad: int = PAD, extra: tuple[int, int] = (0, 0)) -> Rollout:
    """Prompts left-padded and responses right-padded; `extra` columns more on either side."""
    prompt_width = max(len(r[0]) for r in rows) + extra[0]
    width = max(len(r[1]) for r in rows) + extra[1]
    ids, mask = [], []
    for prompt, response, *_ in rows:
        left, right = prompt_width - len(prompt), width - len(response)
        ids.append([pad] * left + prompt + response + [pad] * right)
        mask.append([False] * left + [True] * (len(prompt) + len(response)) + [False] * right)
    ended, unused = torch.tensor([r[2] for r in rows]), torch.zeros(len(ids), width)
    return Rollout(torch.tensor(ids), torch.tensor(mask), width, ended, unused)


def experience_of(
    rollout: Rollout, rows=ROWS, settings: PPOArguments = SETTINGS, **more
) -> Experience:
    return make_experience(
        rollout,
        {"reward": torch.tensor([r[3] for r in rows])},
        small_actor(VOCABULARY, seed=3),
        small_actor(VOCABULARY, seed=5),
        small_critic(VOCABULARY, seed=4, zero_head=False),
        settings,
        kl_coefficient=BETA,
        temperature=TEMPERATURE,
        **{"scales": SCALES, **more},
    )


@torch.no_grad()
def by_definition(
    rows, settings: PPOArguments, mean: float = MEAN, std: float = STD
) -> dict[str, list[list[float]]]:
    """Every per-token field as ragged lists, one row at a time."""
    actor, reference = small_actor(VOCABULARY, seed=3), small_actor(VOCABULARY, seed=5)
    critic = small_critic(VOCABULARY, seed=4, zero_head=False).stock
    fields: dict[str, list[list[float]]] = {
        name: []
        for name in (
            *("logprobs", "ref_logprobs", "entropy", "values", "rewards", "returns"),
            *("advantages", "scores"),
        )
    }
    for prompt, response, ended, raw in rows:
        n = len(response)
        found: dict[str, list[float]] = {name: [] for name in fields}
        for t, token in enumerate(response):
            state = torch.tensor([prompt + response[:t]])  # what is known before token t is drawn
            p, q = (
                (m(state).logits[0, -1].double() / TEMPERATURE).softmax(-1)
                for m in (actor, reference)
            )
            found["logprobs"].append(math.log(p[token]))
            found["ref_logprobs"].append(math.log(q[token]))
            found["entropy"].append(-sum(float(x) * math.log(x) for x in p))
            found["values"].append(float(critic(state).logits[0, -1, 0]))
        score = max(-3.0, min(3.0, (raw - mean) / std)) if ended else settings.no_end_score
        pairs = list(itertools.pairwise(response))
        repeats = sum(pair in pairs[:i] for i, pair in enumerate(pairs))
        score -= settings.length_penalty * n
        score -= settings.repeat_penalty * (repeats / len(pairs) if pairs else 0.0)
        found["scores"] = [score]
        for t in range(n):
            kl = found["logprobs"][t] - found["ref_logprobs"][t]
            found["rewards"].append(-BETA * kl + (score if t == n - 1 else 0.0))
        v = [*found["values"], 0.0]  # nothing comes after the last action
        delta = [found["rewards"][t] + settings.gamma * v[t + 1] - v[t] for t in range(n)]
        for t in range(n):
            decay = settings.gamma * settings.lam
            found["advantages"].append(sum(decay ** (i - t) * delta[i] for i in range(t, n)))
            found["returns"].append(found["advantages"][t] + v[t])
        for name, values in found.items():
            fields[name].append(values)
    if settings.normalize_advantages:
        kept = [x for row in fields["advantages"] for x in row]
        mean = sum(kept) / len(kept)
        deviation = math.sqrt(sum((x - mean) ** 2 for x in kept) / len(kept))
        fields["advantages"] = [
            [(x - mean) / (deviation + 1e-8) for x in row] for row in fields["advantages"]
        ]
    return fields


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("score_batch", [1, 4, 100])
def test_experience_is_its_definition(normalize, score_batch):
    settings = PPOArguments(
        **{**vars(SETTINGS), "normalize_advantages": normalize, "score_batch_size": score_batch}
    )
    found = experience_of(rollout_of(), settings=settings)
    expected = by_definition(ROWS, settings)
    for name, rows in expected.items():
        values = getattr(found, name)
        assert values.dtype == torch.float32, name
        if name == "scores":
            assert values.tolist() == pytest.approx([row[0] for row in rows], abs=1e-6)
            continue
        for row, wanted in enumerate(rows):
            got = values[row].tolist()
            assert got[: len(wanted)] == pytest.approx(wanted, abs=2e-5), (name, row)
            assert not any(got[len(wanted) :]), (name, row)
    assert found.mask.sum(dim=1).tolist() == [len(r[1]) for r in ROWS]
    assert found.raw_scores["reward"].tolist() == [r[3] for r in ROWS]


def test_penalties_and_running_moments_are_in_the_scores():
    changes = {"length_penalty": 0.1, "repeat_penalty": 0.7, "repeat_size": 2}
    settings = PPOArguments(**{**vars(SETTINGS), **changes})
    rows = [*ROWS[1:], ([3, 4], [5, 6, 5, 6, 5], True, 1.5)]
    moments, seen = RunningMoments(), [1.0, 2.0, 7.0]
    moments.update(torch.tensor(seen))
    found = experience_of(
        rollout_of(rows), rows, settings, scales={"reward": Scale(moments=moments)}
    )
    seen += [row[3] for row in rows if row[2]]  # cut ones do not count
    assert len(seen) < 3 + len(rows)
    mean = sum(seen) / len(seen)
    std = math.sqrt(sum((x - mean) ** 2 for x in seen) / len(seen))
    expected = by_definition(rows, settings, mean, std)
    assert found.scores.tolist() == pytest.approx([x for (x,) in expected["scores"]], abs=1e-5)
    assert found.penalties[-1].item() == pytest.approx(0.5 + 0.7 * 2 / 4)
    for row, wanted in enumerate(expected["returns"]):
        assert found.returns[row, : len(wanted)].tolist() == pytest.approx(wanted, abs=5e-5)


def test_the_end_token_gets_the_score_and_a_truncated_row_the_penalty():
    """By hand, without a KL: rewards are 0 but at each response's last token."""
    model = small_actor(VOCABULARY)
    found = make_experience(
        rollout_of(),
        {"reward": torch.tensor([r[3] for r in ROWS])},
        model,
        model,
        small_critic(VOCABULARY),
        SETTINGS,
        kl_coefficient=BETA,
        temperature=1.0,
        scales=SCALES,
    )
    assert found.rewards.tolist() == [
        [0.0, 0.0, 0.5, 0.0],
        [0.0, 0.0, 0.0, -2.5],
        [-1.25, 0.0, 0.0, 0.0],
        [0.0, 0.0, 3.0, 0.0],
        [0.0, 0.0, 0.0, -0.125],
        [0.0, 0.0, 0.0, -2.5],
    ]


@pytest.mark.parametrize("pad", [PAD, EOS], ids=["pad", "pad equals eos"])
def test_padding_changes_nothing(pad):
    """Neither its amount, nor the ids that stand in it."""
    clean = experience_of(rollout_of())
    wide = rollout_of(pad=pad, extra=(3, 2))
    junk = torch.randint(VOCABULARY, wide.input_ids.shape, generator=torch.manual_seed(0))
    filled = Rollout(
        torch.where(wide.attention_mask, wide.input_ids, junk),
        wide.attention_mask,
        wide.response_width,
        wide.ended,
        wide.logprobs,
    )
    for rollout in (wide, filled):
        found = experience_of(rollout)
        for name in ("logprobs", "ref_logprobs", "values", "rewards", "advantages", "returns"):
            values = getattr(found, name)
            assert_close(values[:, :4], getattr(clean, name), rtol=0, atol=1e-5)
            assert not values[:, 4:].any()


# Columns


class ColumnNumbers(nn.Module):
    """A critic whose value at row b, column c is 1000·b + c."""

    def forward(self, input_ids, attention_mask):
        rows, width = input_ids.shape
        return 1000.0 * torch.arange(rows).unsqueeze(1) + torch.arange(width)


@pytest.mark.parametrize(("prompt", "response"), [(1, 1), (4, 1), (1, 5), (6, 3)])
def test_values_are_read_before_each_response_token(prompt, response):
    ids = torch.zeros(2, prompt + response, dtype=torch.long)
    values = response_values(ColumnNumbers(), ids, torch.ones_like(ids).bool(), response)
    # The state before response token t ends with column prompt + t − 1.
    expected = [[1000.0 * b + prompt + t - 1 for t in range(response)] for b in range(2)]
    assert values.tolist() == expected


def random_rows(seed: int, count: int = 13) -> list[tuple[list[int], list[int], bool, float]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count):
        prompt = [draw.randint(3, 8) for _ in range(draw.randint(1, 7))]
        response = [draw.randint(3, 8) for _ in range(draw.randint(1, 6))]
        rows.append((prompt, response, False, draw.random()))
    return rows


@pytest.mark.parametrize("size", [1, 4, 13, 50])
@pytest.mark.parametrize("seed", range(3))
def test_chunks_leave_out_nothing_but_padding(seed, size):
    rows = random_rows(seed)
    rollout = rollout_of(rows, extra=(2, 3))
    seen = []
    for indices, ids, attention, width in chunks(rollout, size):
        assert len(indices) <= size
        seen += indices.tolist()
        for i, row, mask in zip(indices.tolist(), ids.tolist(), attention.tolist(), strict=True):
            prompt, response, *_ = rows[i]
            kept = [token for token, real in zip(row, mask, strict=True) if real]
            assert kept == prompt + response
            prompt_width = len(row) - width
            assert row[prompt_width - len(prompt) : prompt_width] == prompt
            assert row[prompt_width : prompt_width + len(response)] == response
        assert attention.any(dim=0).all(), "a column that is padding in all rows was kept"
    assert sorted(seen) == list(range(len(rows)))
    lengths = [len(rows[i][0]) + len(rows[i][1]) for i in seen]
    assert lengths == sorted(lengths)


def fake_experience(rows) -> Experience:
    """Per-token fields hold 100·row + t, so that a misplaced one shows."""
    rollout = rollout_of(rows, extra=(1, 2))
    mask = rollout.response_mask
    grid = 100.0 * torch.arange(len(rows)).unsqueeze(1) + torch.arange(mask.shape[1])
    per_token = {
        name: (grid + offset).masked_fill(~mask, 0.0)
        for offset, name in enumerate(
            ("logprobs", "ref_logprobs", "entropy", "values", "rewards", "advantages", "returns")
        )
    }
    numbers = torch.arange(len(rows)).float()
    return Experience(
        rollout.input_ids,
        rollout.attention_mask,
        mask,
        raw_scores={"reward": numbers},
        scores=-numbers,
        penalties=numbers / 2,
        **per_token,
    )


@pytest.mark.parametrize("seed", range(3))
def test_rows_leave_out_nothing_but_padding(seed):
    rows = random_rows(seed)
    whole = fake_experience(rows)
    chosen = random.Random(seed).sample(range(len(rows)), 5)
    part = whole.rows(torch.tensor(chosen))
    width = max(len(rows[i][1]) for i in chosen)
    prompt_width = max(len(rows[i][0]) for i in chosen)
    assert len(part) == 5
    assert part.input_ids.shape == part.attention_mask.shape == (5, prompt_width + width)
    for k, i in enumerate(chosen):
        prompt, response, *_ = rows[i]
        n = len(response)
        assert part.input_ids[k][part.attention_mask[k]].tolist() == prompt + response
        assert part.input_ids[k, prompt_width : prompt_width + n].tolist() == response
        assert part.mask[k].tolist() == [t < n for t in range(width)]
        assert part.values[k].tolist() == [100.0 * i + t + 3 if t < n else 0 for t in range(width)]
        assert part.returns[k, 0].item() == 100.0 * i + 6
        assert (part.raw_scores["reward"][k].item(), part.scores[k].item()) == (float(i), -float(i))


def test_rows_of_a_response_as_wide_as_its_prompt():
    """`[batch, P + R]` and `[batch, R]` must not be taken for one another."""
    rows = [([3, 4], [5, 6], False, 0.0), ([3], [5, 6], False, 0.0)]
    part = fake_experience(rows).rows(torch.tensor([1]))
    assert part.input_ids.tolist() == [[3, 5, 6]] and part.values.shape == (1, 2)


@pytest.mark.parametrize(("mini", "micro"), [(12, 12), (6, 2), (4, 4), (3, 1)])
def test_mini_batches_are_a_partition(mini, micro):
    rows = random_rows(3, count=12)
    total = torch.tensor([len(prompt) + len(response) for prompt, response, *_ in rows])
    order = torch.randperm(12, generator=torch.manual_seed(1))
    batches = [
        [part.tolist() for part in parts] for parts in micro_batches(total, order, mini, micro)
    ]
    assert [len(parts) for parts in batches] == [mini // micro] * (12 // mini)
    assert all(len(part) == micro for parts in batches for part in parts)
    # Every mini-batch holds the rows that the permutation gives it, each once.
    members = [sorted(i for part in parts for i in part) for parts in batches]
    assert members == [sorted(order[i : i + mini].tolist()) for i in range(0, 12, mini)]
    for parts in batches:
        lengths = [int(total[i]) for part in parts for i in part]
        assert lengths == sorted(lengths)


def test_chunks_may_end_with_rows_of_the_callers_choice():
    rows = random_rows(5)
    last = torch.tensor([7, 2, 11])
    found = [indices.tolist() for indices, *_ in chunks(rollout_of(rows), 4, last)]
    assert found[-1] == [7, 2, 11] and [len(part) for part in found] == [4, 4, 2, 3]
    assert sorted(i for part in found for i in part) == list(range(13))


@pytest.mark.parametrize("train_actor", [True, False])
def test_the_graph_of_the_first_rows_is_kept(train_actor):
    """Their values are those that the experience has, and lead back to the weights."""
    actor = small_actor(VOCABULARY, seed=3)
    critic = small_critic(VOCABULARY, seed=4, zero_head=False)
    first = torch.tensor([3, 0, 5])
    found = make_experience(
        rollout_of(),
        {"reward": torch.tensor([r[3] for r in ROWS])},
        actor,
        small_actor(VOCABULARY, seed=5),
        critic,
        SETTINGS,
        kl_coefficient=BETA,
        temperature=TEMPERATURE,
        scales=SCALES,
        first=first,
        train_actor=train_actor,
    )
    expected = experience_of(rollout_of())
    for name in ("logprobs", "ref_logprobs", "values", "entropy", "advantages", "returns"):
        values = getattr(found, name)
        assert not values.requires_grad
        assert_close(values, getattr(expected, name), rtol=1e-5, atol=1e-5)
    part = found.rows(first)
    assert part.first is None
    assert torch.equal(found.first.values[part.mask], part.values[part.mask])
    found.first.values[part.mask].sum().backward()
    assert critic.stock.score.bias.grad.item() == pytest.approx(int(part.mask.sum()))
    if not train_actor:
        assert found.first.logprobs is None
        return
    assert torch.equal(found.first.logprobs, part.logprobs)
    found.first.logprobs.sum().backward()
    assert float(actor.lm_head.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("score_batch", [1, 4, 100])
def test_a_reward_model_may_read_the_batches_of_the_others(score_batch):
    """Its scores come to the rows they are of, whatever order and width the batches have."""
    rollout = rollout_of()

    def reward(ids, mask):
        return (ids * mask).sum(dim=1) * 0.01

    settings = PPOArguments(**{**vars(SETTINGS), "score_batch_size": score_batch})
    found = make_experience(
        rollout,
        {"reward": reward},
        small_actor(VOCABULARY, seed=3),
        small_actor(VOCABULARY, seed=5),
        small_critic(VOCABULARY, seed=4, zero_head=False),
        settings,
        kl_coefficient=BETA,
        temperature=TEMPERATURE,
        scales=SCALES,
    )
    expected = [0.01 * sum(prompt + response) for prompt, response, _, _ in ROWS]
    assert found.raw_scores["reward"].tolist() == pytest.approx(expected)
