"""The losses of all stages by plain torch in float64, on data that is ragged in every way.

Row by row: batches of one without padding, plain Python over the tokens, one mean. Nothing of the
loss, masking or padding code under test is used.
"""

import numpy as np
import torch

from common.data.encoding import Comparison, EncodedExample
from common.data.records import Message, Pair
from common.ppo.experience import Experience

BATCH = 8
CLIP, VALUE_CLIP, TEMPERATURE = 0.2, 0.3, 0.8
MARGIN, SCORE_PENALTY, CENTRING = 1.5, 0.2, 0.15


# The data: ragged in every way that the loops have to cope with.


def draws(*purpose):
    return np.random.default_rng([3, *purpose])


def sft_examples(count=BATCH):
    """Prompts of 2–9 tokens, responses of 1–12: the ranks' token counts differ a lot."""
    rng = draws(1)
    rows = []
    for i in range(count):
        prompt, response = int(rng.integers(2, 10)), int(rng.integers(1, 13))
        ids = rng.integers(3, 259, size=prompt + response).tolist()
        rows.append(EncodedExample(ids, [False] * prompt + [True] * response, f"sft.jsonl:{i + 1}"))
    return rows


def comparisons(count=BATCH):
    """One to four pairs a prompt, among two to four responses; every third has no prompt.

    Each pair has a weight of its own, and every second one a margin.
    """
    rng, more = draws(2), draws(5)
    kinds = [[(0, 1)], [(0, 1), (0, 2)], [(0, 2), (0, 3), (1, 2), (1, 3)], [(1, 0), (2, 0), (2, 1)]]
    found = []
    for i in range(count):
        pairs = kinds[i % len(kinds)]
        prompt = rng.integers(3, 259, size=3 * (i % 3)).tolist()
        rows = [
            prompt + rng.integers(3, 259, size=int(rng.integers(2, 12))).tolist()
            for _ in range(1 + max(map(max, pairs)))
        ]
        records = [
            Pair(
                (Message("user", "q"),),
                *("a", "b", 1.0, f"pairs.jsonl:{i + 1}"),
                weight=float(more.uniform(0.1, 2.0)),
                margin=float(more.uniform(0.0, 3.0)) if (i + k) % 2 else None,
            )
            for k in range(len(pairs))
        ]
        found.append(Comparison(rows, pairs, records, len(prompt)))
    return found


def experience():
    """Eight rows of prompt and response with whatever a rollout may hold; clipping binds."""
    rng = draws(3)
    prompt_width, response_width = 7, 9
    prompts = rng.integers(1, prompt_width + 1, size=BATCH)
    responses = rng.integers(1, response_width + 1, size=BATCH)
    responses[3] = response_width
    columns = np.arange(prompt_width + response_width)
    attention = (columns >= prompt_width - prompts[:, None]) & (
        columns < prompt_width + responses[:, None]
    )
    numbers = {
        name: torch.tensor(rng.normal(size=(BATCH, response_width)) * scale, dtype=torch.float32)
        for name, scale in {
            "logprobs": 0.3,  # completed to old log-probabilities by `with_old_logprobs`
            "ref_logprobs": 1.0,
            "entropy": 1.0,
            "values": 0.5,
            "rewards": 1.0,
            "advantages": 1.0,
            "returns": 1.0,
        }.items()
    }
    return Experience(
        input_ids=torch.tensor(rng.integers(3, 259, size=attention.shape)),
        attention_mask=torch.tensor(attention),
        mask=torch.tensor(attention[:, prompt_width:]),
        raw_scores={"reward": torch.zeros(BATCH)},
        scores=torch.zeros(BATCH),
        penalties=torch.zeros(BATCH),
        **numbers,
    )


# Plain torch, one row at a time.


def logprobs_of(model, ids, temperature=1.0):
    """log p of every token but the first, from one forward without padding."""
    logits = model.model(input_ids=torch.tensor([ids])).logits[0] / temperature
    return [torch.log_softmax(logits[t - 1], dim=-1)[ids[t]] for t in range(1, len(ids))]


def outputs_of(scalar, ids):
    """Head outputs at every token, from one forward without padding (GPT-2's own modules)."""
    stock = scalar.stock
    return stock.score(stock.transformer(input_ids=torch.tensor([ids])).last_hidden_state)[0, :, 0]


def real_tokens(item, row):
    """A row's ids without padding, the number of its prompt's tokens and of its response's."""
    ids = item.input_ids[row][item.attention_mask[row]].tolist()
    actions = int(item.mask[row].sum())
    return ids, len(ids) - actions, actions


def sft_mean(model, count=BATCH):
    terms = []
    for example in sft_examples(count):
        logprobs = logprobs_of(model, example.input_ids)
        terms += [-p for p, learned in zip(logprobs, example.loss_mask[1:], strict=True) if learned]
    return sum(terms) / len(terms)


def reward_mean(scalar, count=BATCH):
    """Of the hinge with its two penalties; a pair of weight 2 counts like two of weight 1."""
    total, weights = 0.0, 0.0
    for comparison in comparisons(count):
        scores = [outputs_of(scalar, row)[-1] for row in comparison.rows]
        for (i, j), pair in zip(comparison.pairs, comparison.records, strict=True):
            margin = MARGIN if pair.margin is None else pair.margin
            term = torch.clamp(margin - (scores[i] - scores[j]), min=0.0)
            term = term + SCORE_PENALTY * (scores[i] ** 2 + scores[j] ** 2) / 2
            term = term + CENTRING * (scores[i] + scores[j]) ** 2
            total, weights = total + pair.weight * term, weights + pair.weight
    return total / weights


def reference_logprobs():
    """log π_ref of every response, drawn: any number will do."""
    rng = draws(4)
    return [[float(-rng.uniform(5.0, 60.0)) for _ in c.rows] for c in comparisons()]


def dpo_mean(model, reference, beta, smoothing=0.0, by_length=False, count=BATCH):
    """Rafailov et al. 2023, eq. 7; a response without a prompt begins at its second token."""
    total, weights = 0.0, 0.0
    for comparison, ref in zip(comparisons(count), reference, strict=False):
        shifts = []
        for i, row in enumerate(comparison.rows):
            logprobs = logprobs_of(model, row)[max(comparison.prompt_tokens, 1) - 1 :]
            tokens = len(row) - comparison.prompt_tokens
            shifts.append((sum(logprobs) - ref[i]) / (tokens if by_length else 1))
        for (i, j), pair in zip(comparison.pairs, comparison.records, strict=True):
            right = 1 / (1 + torch.exp(-beta * (shifts[i] - shifts[j])))
            term = -(1 - smoothing) * torch.log(right) - smoothing * torch.log(1 - right)
            total, weights = total + pair.weight * term, weights + pair.weight
    return total / weights


def policy_mean(model, item):
    terms = []
    for row in range(BATCH):
        ids, prompt, actions = real_tokens(item, row)
        new = logprobs_of(model, ids, TEMPERATURE)[prompt - 1 :]
        for t in range(actions):
            advantage = float(item.advantages[row, t])
            ratio = torch.exp(new[t] - float(item.logprobs[row, t]))
            limited = torch.clamp(ratio, 1 - CLIP, 1 + CLIP)
            terms.append(-torch.minimum(ratio * advantage, limited * advantage))
    return sum(terms) / len(terms)


def value_mean(scalar, item):
    terms = []
    for row in range(BATCH):
        ids, prompt, actions = real_tokens(item, row)
        values = outputs_of(scalar, ids)[prompt - 1 :]
        for t in range(actions):
            old, target = float(item.values[row, t]), float(item.returns[row, t])
            limited = old + torch.clamp(values[t] - old, -VALUE_CLIP, VALUE_CLIP)
            terms.append(torch.maximum((values[t] - target) ** 2, (limited - target) ** 2) / 2)
    return sum(terms) / len(terms)


def gradients_of(model, mean):
    model.zero_grad()
    mean.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def with_old_logprobs(item, model):
    """Old log-probabilities: the model's own, moved by what `experience` drew."""
    for row in range(BATCH):
        ids, prompt, actions = real_tokens(item, row)
        with torch.no_grad():
            own = logprobs_of(model, ids, TEMPERATURE)[prompt - 1 :]
        for t in range(actions):
            item.logprobs[row, t] += float(own[t])
    return item
