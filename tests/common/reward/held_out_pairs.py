"""Made-up rankings by several labelers, the comparisons among them, and scores."""

import random

from common.data.encoding import Comparison
from common.data.records import Message, Pair, Ranking

RESPONSES = 5


def ranks_of(order):
    ranks = [0.0] * len(order)
    for place, i in enumerate(order, start=1):
        ranks[i] = float(place)
    return tuple(ranks)


def make(prompts, seed=0, labelers=3, noise=0.8):
    """Comparisons of the top two with the bottom two, their rankings, and scores of all rows."""
    draw = random.Random(seed)
    comparisons, rankings, scores = [], [], []
    for k in range(prompts):
        quality = [draw.gauss(0, 1) for _ in range(RESPONSES)]
        texts = tuple(f"{k} {i} " + "w" * draw.randrange(30) for i in range(RESPONSES))
        ranks = []
        for _ in range(labelers):
            seen = [q + draw.gauss(0, noise) for q in quality]
            ranks.append(ranks_of(sorted(range(RESPONSES), key=lambda i: -seen[i])))
        messages = (Message("user", f"question {k}"),)
        means = [sum(column) / labelers for column in zip(*ranks, strict=True)]
        order = sorted(range(RESPONSES), key=lambda i: means[i])
        pairs = [(i, j) for i in order[:2] for j in order[3:] if means[i] < means[j]]
        records = [
            Pair(messages, texts[i], texts[j], means[j] - means[i], f"file:{k}") for i, j in pairs
        ]
        rankings.append(Ranking(messages, texts, tuple(ranks), f"file:{k}"))
        rows = [[5, 6, 10 + i] for i in range(RESPONSES)]
        comparisons.append(Comparison(rows, pairs, records, 2))
        scores.append([q + draw.gauss(0, 1) for q in quality])
    return comparisons, rankings, scores
