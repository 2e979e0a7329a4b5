"""What training on pairs shares: reward models (§3.2) and DPO learn from the same comparisons."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from torch import Tensor

from common.config.arguments import TextArguments, option
from common.data.blending import split_by_prompt
from common.data.cleaning import clean
from common.data.encoding import Comparison, describe, encode_pairs
from common.data.joining import join_rankings
from common.data.labelers import who_ranked
from common.data.layouts import read_rankings
from common.data.pairs import PairArguments, make_pairs, read_pairs
from common.data.records import Pair, Ranking, opening_key
from common.data.sources import parse_sources, paths_of
from common.data.template import Template
from common.errors import UserError
from common.files import write_json
from common.training.batching import FILLER
from common.training.distributed import device, is_main
from common.training.once_per_node import once_per_node
from common.training.resume.identity import hash_of_examples
from common.training.seeding import derive_seed
from common.training.stage import Stage


@dataclass
class PreferenceArguments(PairArguments):
    """Where a model that learns from pairs starts, and the pairs.

    How rankings that are given as data become pairs is set as in stage `pairs`.
    """

    model: str = option("", "model folder or hub name to start from; by default RUN/models/sft")
    data: list[str] = option([], "pairs or rankings; by default RUN/pairs/pairs.jsonl")
    eval_fraction: float = option(0.13, "share of prompts whose pairs are held out")
    train_fraction: float = option(
        1.0, "share of the other prompts that is trained on; a smaller share is part of a larger"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.train_fraction <= 1:
            raise UserError(f"train_fraction is {self.train_fraction}, but must be in (0, 1]")


class ComparisonSets(NamedTuple):
    """Encoded pairs, put together by prompt; no prompt is in both sets."""

    train: list[Comparison]
    held_out: list[Comparison]
    facts: dict[str, Any]
    """For `result.json`: `pairs`, `held_out_pairs`, `left_out`, and `labelers` as of `Who`."""
    rankings: list[Ranking]
    """Of the held-out prompts, as far as they are known."""

    @property
    def longest(self) -> int:
        """Tokens of the longest response with its prompt."""
        rows = (row for part in (self.train, self.held_out) for c in part for row in c.rows)
        return max(map(len, rows))


def pair_files(stage: Stage, source: PreferenceArguments) -> list[str]:
    """The files that the pairs come from."""
    return paths_of(source.data) or [str(stage.root / "pairs" / "pairs.jsonl")]


def ranking_files(stage: Stage, source: PreferenceArguments) -> list[str]:
    """The files of rankings that the run's own pairs were made from, if they are still there."""
    if source.data:
        return []
    settings = stage.root / "pairs" / "config.yaml"
    noted = yaml.safe_load(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    files = noted.get("rankings") or [str(stage.root / "rank" / "rankings.jsonl")]
    return files if all(Path(file).is_file() for file in paths_of(files)) else []


def load_comparisons(
    stage: Stage,
    source: PreferenceArguments,
    template: Template,
    text: TextArguments,
    *,
    always_ends: bool,
    rankings: Sequence[str] = (),
) -> ComparisonSets:
    """Reads pairs, splits them by conversation and encodes them, once on each node.

    Held-out pairs all count alike: weights are for learning, not for looking good.

    Args:
        always_ends: see `encode_pairs`.
        rankings: files of the rankings that the pairs were made from, where they were made before.

    Raises:
        UserError: bad rows, too few prompts, nothing left; the run was begun with other pairs.
    """
    pairs, known = once_per_node(lambda: load_pairs(stage, source, rankings))
    train, held_out = split_pairs(pairs, source.eval_fraction, stage.run.seed)
    train = part_of(train, source.train_fraction, stage.run.seed)
    held_out = [replace(pair, weight=1.0) for pair in held_out]
    keys = {pair.prompt_key for pair in held_out}
    (train_set, counts), (held_out_set, more) = once_per_node(
        lambda: (
            encode_pairs(train, template, text, always_ends=always_ends),
            encode_pairs(held_out, template, text, "held-out pair", always_ends=always_ends),
        )
    )
    counts += more
    parts = {"trained on": train_set, "held out": held_out_set}
    stage.bind_examples(
        {name: hash_of_examples(map(_texts, part)) for name, part in parts.items()},
        follows=["seed", *(f.name for f in (*fields(PreferenceArguments), *fields(TextArguments)))],
    )
    sizes = f"{len(train)} pairs for {len(train_set)} prompts, {len(held_out)} pairs held out"
    stage.say(", ".join(filter(None, [sizes, describe(counts)])))
    facts = {"pairs": len(train), "held_out_pairs": len(held_out), "left_out": dict(counts)}
    facts["labelers"] = who_ranked(pair.labelers for pair in (*train, *held_out))
    return ComparisonSets(
        train_set, held_out_set, facts, [r for r in known if r.prompt_key in keys]
    )


def split_pairs(pairs: Sequence[Pair], fraction: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """(training, held out), by conversation: no prompt is in both, and no turn of its own thread.

    Raises:
        UserError: all pairs are of one conversation.
    """
    return split_by_prompt(pairs, fraction=fraction, seed=seed, key=_conversation)


def part_of(pairs: list[Pair], fraction: float, seed: int) -> list[Pair]:
    """The pairs of a share of the conversations, at least of one.

    A smaller share is part of a larger.
    """
    conversations = len({_conversation(pair) for pair in pairs})
    count = max(1, round(fraction * conversations))
    if count == conversations:
        return pairs
    seed = derive_seed(seed, "part")
    return split_by_prompt(pairs, count=count, seed=seed, key=_conversation)[1]


def _texts(comparison: Comparison) -> list[Any]:
    """What tells a comparison from others."""
    pairs = comparison.records
    return [
        [(m.role, m.content) for m in pairs[0].messages],
        [(p.chosen, p.rejected) for p in pairs],
    ]


def _conversation(pair: Pair) -> str:
    return opening_key(pair.messages)


def load_pairs(
    stage: Stage, source: PreferenceArguments, ranking_files: Sequence[str] = ()
) -> tuple[list[Pair], list[Ranking]]:
    """Pairs that `pairs.py` made, or pairs made here from files of rankings or of pairs.

    And the rankings behind them: of `ranking_files`, or those that the pairs are made of.

    Raises:
        UserError: bad rows, no pair, settings that pairs which are made already do not heed.
    """
    if not source.data:
        _refuse_pair_settings(source)
    given = read_rankings(parse_sources(ranking_files)) if ranking_files else []
    if not source.data:
        pairs = read_pairs(stage.root / "pairs" / "pairs.jsonl")
        return _with_labelers(pairs, stage, source), usable(given)
    rankings = read_rankings(parse_sources(source.data))
    pairs, account = make_pairs(rankings, source, seed=stage.run.seed)
    if is_main():
        write_json(stage.folder / "account.json", account.as_dict())
    made = f"{len(pairs)} pairs from {len(rankings)} rankings"
    if any(len(ranking.responses) > 2 for ranking in rankings):  # else there was nothing to choose
        made += f": {source.in_words()}"
    stage.say(f"{made}\n{account.table()}")
    return pairs, usable(given or rankings)


def _refuse_pair_settings(source: PreferenceArguments) -> None:
    names = [f.name for f in fields(PairArguments) if getattr(source, f.name) != f.default]
    if names:
        raise UserError(
            f"{', '.join(names)}: the run's pairs are made already, by stage `pairs`, which takes "
            "these settings; here they are for rankings given as data"
        )


def _with_labelers(pairs: list[Pair], stage: Stage, source: PreferenceArguments) -> list[Pair]:
    """With the names of those who ranked, which pairs that were made earlier do not hold."""
    if any(pair.labelers for pair in pairs):
        return pairs
    files = ranking_files(stage, source)
    rankings = read_rankings(parse_sources(files)) if files else []
    judges = {ranking.origin: ranking.judges for ranking in join_rankings(rankings)[0]}
    return [replace(pair, labelers=judges.get(pair.origin, ())) for pair in pairs]


def usable(rankings: Sequence[Ranking]) -> list[Ranking]:
    """Joined, without what cannot be compared, and without those of which nothing is left."""
    joined, _ = join_rankings(rankings)
    cleaned = (clean(ranking).ranking for ranking in joined)
    return [ranking for ranking in cleaned if ranking is not None]


def pair_rows(
    comparisons: Sequence[Comparison], indices: np.ndarray
) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pairs of a micro-batch have their responses, when all rows stand in one list.

    Args:
        comparisons: of the micro-batch, whose rows follow one another.
        indices: theirs; some may be `FILLER`.

    Returns:
        rows of the preferred responses, rows of the others (int64), and the pairs' weights
        (float32; a filler's are 0); each `[pairs]`.
    """
    starts = np.cumsum([0, *(len(c.rows) for c in comparisons)])
    better, worse, weights = zip(
        *(
            (start + i, start + j, 0.0 if index == FILLER else pair.weight)
            for start, c, index in zip(starts, comparisons, indices, strict=False)
            for (i, j), pair in zip(c.pairs, c.records, strict=True)
        ),
        strict=True,
    )
    return tuple(torch.tensor(x, device=device()) for x in (better, worse, weights))
