"""The KL estimators in expectation, by enumerating every outcome; the controller by hand."""

import json
import math
from itertools import product

import pytest
import torch

from common.ppo.kl import KLController, kl_k1, kl_k2, kl_k3

VOCABULARY = 5
EOS = 0


def log_distributions(seed: int, *shape: int) -> torch.Tensor:
    """Random log-probabilities `[*shape, VOCABULARY]`, float64, each row normalized."""
    noise = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(*shape, VOCABULARY, generator=noise, dtype=torch.float64)
    return logits - logits.exp().sum(-1, keepdim=True).log()


def mean_over_vocabulary(estimates: torch.Tensor, log_p: torch.Tensor) -> float:
    return math.fsum(
        math.exp(lp) * k for lp, k in zip(log_p.tolist(), estimates[0].tolist(), strict=True)
    )


@pytest.mark.parametrize("seed", range(6))
def test_expectations_over_a_small_vocabulary(seed):
    log_p, log_q = log_distributions(seed, 2)
    pairs = list(zip(log_p.tolist(), log_q.tolist(), strict=True))
    exact = math.fsum(math.exp(lp) * (lp - lq) for lp, lq in pairs)
    half_square = math.fsum(math.exp(lp) * (lp - lq) ** 2 / 2 for lp, lq in pairs)
    # One "response" whose tokens are the whole vocabulary: every outcome once.
    p, q = log_p.unsqueeze(0), log_q.unsqueeze(0)
    assert mean_over_vocabulary(kl_k1(p, q), log_p) == pytest.approx(exact, rel=1e-6)
    assert mean_over_vocabulary(kl_k3(p, q), log_p) == pytest.approx(exact, rel=1e-6)
    k2 = mean_over_vocabulary(kl_k2(p, q), log_p)
    assert k2 == pytest.approx(half_square, rel=1e-6)
    assert abs(k2 - exact) > 0.02 * exact, "k2 is biased: this draw must show it"


def all_responses() -> list[list[int]]:
    """Every response of at most two tokens: EOS ends it, two tokens are the limit."""
    firsts = [[EOS]]
    return firsts + [[a, b] for a, b in product(range(1, VOCABULARY), range(VOCABULARY))]


@pytest.mark.parametrize("seed", range(4))
def test_expectations_over_all_two_token_sequences(seed):
    """Summed over a sequence's tokens: E[Σ k1] = E[Σ k3] = KL(sequences), E[Σ k2] = ½·E[Σ d²]."""
    first = log_distributions(seed, 2)  # [policy, token]
    second = log_distributions(seed + 100, 2, VOCABULARY)  # [policy, previous token, token]
    responses = all_responses()
    logprobs = torch.full((2, len(responses), 2), math.nan, dtype=torch.float64)
    mask = torch.zeros(len(responses), 2, dtype=torch.bool)
    for i, response in enumerate(responses):
        logprobs[:, i, 0] = first[:, response[0]]
        mask[i, 0] = True
        if len(response) == 2:
            logprobs[:, i, 1] = second[:, response[0], response[1]]
            mask[i, 1] = True

    probabilities, exact, half_squares = [], 0.0, 0.0
    for i, response in enumerate(responses):
        lp = logprobs[0, i].tolist()[: len(response)]
        lq = logprobs[1, i].tolist()[: len(response)]
        p = math.exp(math.fsum(lp))
        probabilities.append(p)
        exact += p * (math.fsum(lp) - math.fsum(lq))
        half_squares += p * math.fsum((a - b) ** 2 / 2 for a, b in zip(lp, lq, strict=True))
    assert math.fsum(probabilities) == pytest.approx(1.0)

    def expectation(estimator) -> float:
        per_sequence = estimator(*logprobs).masked_fill(~mask, 0.0).sum(1).tolist()
        return math.fsum(p * k for p, k in zip(probabilities, per_sequence, strict=True))

    assert expectation(kl_k1) == pytest.approx(exact, rel=1e-6)
    assert expectation(kl_k3) == pytest.approx(exact, rel=1e-6)
    assert expectation(kl_k2) == pytest.approx(half_squares, rel=1e-6)
    assert abs(half_squares - exact) > 0.02 * exact


def test_estimators_token_by_token():
    differences = [-6.0, -1.5, -0.3, 0.0, 0.3, 1.5, 6.0]
    ref = torch.full((1, len(differences)), -2.0)
    logprobs = ref + torch.tensor([differences])
    for estimator, expected in (
        (kl_k1, differences),
        (kl_k2, [d * d / 2 for d in differences]),
        (kl_k3, [math.exp(-d) - 1 + d for d in differences]),
    ):
        actual = estimator(logprobs, ref)
        assert actual.shape == ref.shape and actual.dtype == torch.float32
        assert actual[0].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_k3_is_never_negative():
    """Nor by rounding: near d = 0, e^(−d) − 1 and d cancel."""
    sizes = torch.cat([torch.logspace(-12, 1, 20_000), torch.linspace(0, 30, 20_000)])
    for d in (sizes, -sizes):
        assert (kl_k3(d, torch.zeros_like(d)) >= 0).all()
    noise = torch.Generator().manual_seed(0)
    logprobs = -10 * torch.rand(20_000, generator=noise)
    ref = logprobs + 1e-3 * torch.randn(20_000, generator=noise)
    assert (kl_k3(logprobs, ref) >= 0).all()


def test_k3_does_not_overflow():
    far = torch.tensor([[-1000.0, -100.0, 100.0, 1000.0]])
    k3 = kl_k3(far, torch.zeros_like(far))
    assert torch.isfinite(k3).all() and (k3 > 0).all()


# Controller


def test_fixed_coefficient_never_moves():
    controller = KLController(coefficient=0.05)
    for kl in (0.0, 3.0, 1000.0):
        assert controller.update(kl, sequences=512) == 0.05
    assert controller.coefficient == 0.05


def test_adaptive_controller_by_hand():
    """Factors 1 + clip(KL/6 − 1, ±0.2)·256/1024 = 1 + clip(…)/4."""
    controller = KLController(coefficient=0.1, target=6.0, horizon=1024.0)
    steps = [
        (12.0, 0.105),  # error 1, clipped to 0.2: × 1.05
        (6.6, 0.107625),  # error 0.1: × 1.025
        (6.0, 0.107625),  # on target
        (5.7, 0.1062796875),  # error −0.05: × 0.9875
        (0.0, 0.100965703125),  # error −1, clipped to −0.2: × 0.95
        (-2.0, 0.09591741796875),  # a mean of k1 can come out negative: clipped as well
        (7.2, 0.1007132888671875),  # error 0.2, just at the clip: × 1.05
    ]
    for kl, expected in steps:
        assert controller.update(kl, sequences=256) == pytest.approx(expected, rel=1e-12)
        assert controller.coefficient == pytest.approx(expected, rel=1e-12)


def test_step_grows_with_the_number_of_sequences():
    controller = KLController(coefficient=1.0, target=2.0, horizon=1000.0)
    assert controller.update(100.0, sequences=1000) == pytest.approx(1.2)
    assert controller.update(100.0, sequences=500) == pytest.approx(1.2 * 1.1)
    assert controller.update(0.0, sequences=10) == pytest.approx(1.2 * 1.1 * 0.998)


def test_controller_goes_on_from_its_saved_state():
    kls = [9.0, 1.0, 6.5, 30.0, 5.9]
    whole = KLController(coefficient=0.2, target=6.0, horizon=1000.0)
    trace = [whole.update(kl, 100) for kl in kls]

    before = KLController(coefficient=0.2, target=6.0, horizon=1000.0)
    for kl in kls[:3]:
        before.update(kl, 100)
    saved = before.state_dict()
    before.update(1e9, 100)  # must not reach into the state that was handed out
    saved = json.loads(json.dumps(saved))
    after = KLController(coefficient=0.2, target=6.0, horizon=1000.0)
    after.load_state_dict(saved)
    assert [after.coefficient, *(after.update(kl, 100) for kl in kls[3:])] == trace[2:]


def test_a_fixed_coefficient_is_the_one_that_is_set():
    after = KLController(coefficient=0.05)
    after.load_state_dict(KLController(coefficient=0.2).state_dict())
    assert after.coefficient == 0.05
