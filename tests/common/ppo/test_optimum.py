"""PPO with KL penalty β finds the one policy that the theory says is best.

With γ 1, maximizing E[r] − β·KL(π ‖ π_ref) over all policies has the solution
π(y|x) = π_ref(y|x)·exp(r(x, y)/β) / Z(x). With a vocabulary of four tokens every response can be
written down, so that both sides are known exactly: the trainer, with DeepSpeed engines and all,
must end within 0.03 total variation of it. A wrong sign, a missing term, a reward or a
log-probability that is one column off all lead elsewhere.
"""

import itertools

import pytest
import torch

from common.ppo.arguments import PPOArguments
from common.ppo.trainer import PPOTrainer
from common.training.engine import process_group
from tests.common.ppo.small import EOS, Reward, encoded, small_actor, small_trainer
from tests.ranks import run_ranks

VOCABULARY = 4  # pad, beginning, end, and one more: all four are drawn like any other token
PROMPTS = [(1, 3), (2, 3, 0)]  # of unequal length, and the second one holds the pad and end ids
BETA = 0.5
TOLERANCE = 0.03

CASES = {
    (1, True): {"reward_scale": 1.0, "steps": 80, "rollout": 128, "mini": 64, "micro": 32},
    (1, False): {"reward_scale": 1.0, "steps": 80, "rollout": 128, "mini": 64, "micro": 32},
    (3, True): {"reward_scale": 0.4, "steps": 200, "rollout": 256, "mini": 64, "micro": 64},
    (3, False): {"reward_scale": 0.4, "steps": 200, "rollout": 256, "mini": 64, "micro": 64},
}
"""(longest response, whether advantages are normalized) -> how it is trained."""


class NoTruncation(PPOTrainer):
    """A response at the limit is as finished as any: no penalty replaces its reward."""

    def generate(self, *args, **kwargs):
        rollout = super().generate(*args, **kwargs)
        rollout.ended = torch.ones_like(rollout.ended)
        return rollout


def responses(longest: int) -> list[tuple[int, ...]]:
    """Every response: it ends with its first end token, or at the limit."""
    found = []
    for length in range(1, longest + 1):
        for tokens in itertools.product(range(VOCABULARY), repeat=length):
            if EOS not in tokens[:-1] and (tokens[-1] == EOS or length == longest):
                found.append(tokens)
    return found


@torch.no_grad()
def probabilities(model, longest: int) -> torch.Tensor:
    """π(y|x), `[prompts, responses]` float64: one bare forward each, without padding or masks."""
    table = []
    for prompt in PROMPTS:
        for response in responses(longest):
            logits = model(torch.tensor([[*prompt, *response]])).logits[0].double()
            p = 1.0
            for t, token in enumerate(response):
                p *= float(logits[len(prompt) - 1 + t].softmax(-1)[token])
            table.append(p)
    return torch.tensor(table, dtype=torch.float64).view(len(PROMPTS), -1)


def distance(p: torch.Tensor, q: torch.Tensor) -> list[float]:
    """Total variation for each prompt."""
    return (0.5 * (p - q).abs().sum(dim=1)).tolist()


def train(longest: int, normalize: bool) -> dict[str, list[float]]:
    """Distances to the optimum, per prompt, before and after training."""
    case = CASES[longest, normalize]
    outcomes = responses(longest)
    noise = torch.Generator().manual_seed(7)
    table = torch.randn(len(PROMPTS), len(outcomes), generator=noise) * case["reward_scale"]
    rewards = {
        (str(x), response): float(table[x, y])
        for x in range(len(PROMPTS))
        for y, response in enumerate(outcomes)
    }
    settings = PPOArguments(
        steps=case["steps"],
        rollout_batch_size=case["rollout"],
        mini_batch_size=case["mini"],
        micro_batch_size=case["micro"],
        score_batch_size=case["rollout"],
        ppo_epochs=2,
        gamma=1.0,
        lam=1.0,
        normalize_advantages=normalize,
        value_clip_range=100.0,
        kl_coefficient=BETA,
        score_clip=100.0,
        actor_learning_rate=3e-3,
        critic_learning_rate=3e-3,
        lr_schedule="linear",
        lr_floor=0.0,
        critic_warmup_steps=2,
    )
    trainer = small_trainer(
        settings,
        Reward(lambda x, response: rewards[x, response]),
        vocabulary=VOCABULARY,
        max_response_tokens=longest,
        kind=NoTruncation,
    )
    reference = probabilities(small_actor(VOCABULARY), longest)
    assert torch.allclose(reference.sum(dim=1), torch.ones(2).double(), atol=1e-5)
    optimum = reference * (table.double() / BETA).exp()
    optimum /= optimum.sum(dim=1, keepdim=True)
    policy = trainer.actor.module.model
    start = distance(probabilities(policy, longest), optimum)
    half = case["rollout"] // 2
    prompts = [encoded(str(x), ids) for x, ids in enumerate(PROMPTS)] * half
    for step in range(1, settings.steps + 1):
        trainer.iterate(step, prompts)
    return {"start": start, "end": distance(probabilities(policy, longest), optimum)}


def train_alone(longest: int, normalize: bool) -> dict[str, list[float]]:
    """In a process of its own, with a process group."""
    with process_group():
        return train(longest, normalize)


@pytest.mark.parametrize(
    ("longest", "normalize"),
    [
        pytest.param(1, False, id="one_token-raw", marks=pytest.mark.slow),
        pytest.param(3, True, id="up_to_three_tokens-normalized"),
        pytest.param(1, True, id="one_token-normalized", marks=pytest.mark.slow),
        pytest.param(3, False, id="up_to_three_tokens-raw", marks=pytest.mark.slow),
    ],
)
def test_ppo_ends_at_the_optimum(longest, normalize):
    (found,) = run_ranks(train_alone, 1, longest, normalize, timeout=400.0, start_group=False)
    assert min(found["start"]) > 0.2, "the reference must be far from the optimum"
    assert max(found["end"]) < TOLERANCE, found


def test_the_enumeration_is_complete():
    assert responses(1) == [(0,), (1,), (2,), (3,)]
    # End at once; x, end; x, y, anything: 1 + 3 + 3·3·4.
    assert len(responses(3)) == len(set(responses(3))) == 40
