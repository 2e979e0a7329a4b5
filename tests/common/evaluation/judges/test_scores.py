"""Table 3 and win rates against loops that are written from their definitions."""

import random

import pytest

from common.evaluation.judges.judgements import Comparison, Judged, Ranking, Rating
from common.evaluation.judges.scores import block_of, comparison_of, vote_of

NAMES = "clarity accuracy completeness safety courtesy comfortableness conciseness context".split()
WEIGHTS = dict(zip(NAMES, (3, 4, 5, 2, 2, 2, 1, 3), strict=True))
MODELS = ("sft", "rlhf")


@pytest.fixture(scope="module")
def prompts():
    """Thirty prompts, three labelers; one in ten leaves out a criterion, and one a whole answer."""
    draw = random.Random(3)
    made = []
    for index in range(30):
        ratings = []
        for model in MODELS:
            for labeler in "abc":
                points = {n: float(draw.choice((0, 1, 2))) for n in NAMES if draw.random() > 0.1}
                if draw.random() > 0.1:
                    ratings.append(Rating(model, labeler, points))
        made.append(Judged("seen", index, dict.fromkeys(MODELS, "m"), tuple(ratings)))
    return made


def percent(prompt, model, name):
    given = [r.points[name] for r in prompt.ratings if r.model == model and name in r.points]
    return 100 * sum(given) / len(given) / 2 if given else None


def overall(prompt, model):
    total = 0.0
    for name, weight in WEIGHTS.items():
        value = percent(prompt, model, name)
        if value is None:
            return None
        total += weight * value / 22
    return total


def test_rows_are_means_over_prompts_of_means_over_labelers(prompts):
    block = block_of(prompts, MODELS, WEIGHTS, 0)
    assert block["prompts"] == 30
    for model in MODELS:
        for name in NAMES:
            values = [v for p in prompts if (v := percent(p, model, name)) is not None]
            row = block["models"][model][name]
            assert row["mean"] == pytest.approx(sum(values) / len(values))
            assert row["prompts"] == len(values)
            assert row["ci95"][0] < row["mean"] < row["ci95"][1]
        values = [v for p in prompts if (v := overall(p, model)) is not None]
        row = block["models"][model]["overall"]
        assert row["mean"] == pytest.approx(sum(values) / len(values))
        assert row["prompts"] == len(values)


def test_wins_by_score_and_the_paired_difference(prompts):
    (pair,) = block_of(prompts, MODELS, WEIGHTS, 0)["pairs"]
    wins = ties = losses = 0
    gaps = []
    for prompt in prompts:
        mine, theirs = overall(prompt, "rlhf"), overall(prompt, "sft")
        if mine is None or theirs is None:
            continue
        gaps.append(mine - theirs)
        if abs(mine - theirs) < 1e-9:
            ties += 1
        elif mine > theirs:
            wins += 1
        else:
            losses += 1
    assert (pair["model"], pair["other"], pair["by"]) == ("rlhf", "sft", "score")
    assert (pair["wins"], pair["ties"], pair["losses"]) == (wins, ties, losses)
    assert pair["win_rate"] == pytest.approx((wins + ties / 2) / len(gaps))
    assert pair["difference"] == pytest.approx(sum(gaps) / len(gaps))
    assert pair["difference_ci95"][0] < pair["difference"] < pair["difference_ci95"][1]


def test_the_unit_of_an_interval_is_the_prompt(prompts):
    """Ten labelers who say the same as one make no interval narrower."""
    many = [
        Judged(
            p.split,
            p.index,
            p.marks,
            tuple(
                Rating(r.model, f"{r.labeler}{i}", r.points) for r in p.ratings for i in range(10)
            ),
        )
        for p in prompts
    ]
    one, ten = (block_of(x, MODELS, WEIGHTS, 0)["models"] for x in (prompts, many))
    for model in MODELS:
        assert ten[model]["overall"]["ci95"] == pytest.approx(one[model]["overall"]["ci95"])


def test_weights_of_zero_need_no_rating():
    rating = Rating("sft", "a", {"accuracy": 1.0})
    block = block_of([Judged("s", 0, {"sft": ""}, (rating,))], ["sft"], WEIGHTS, 0)
    assert block["models"]["sft"]["overall"] == {"mean": None, "ci95": None, "prompts": 0}
    weights = dict.fromkeys(NAMES, 0.0) | {"accuracy": 3.0}
    block = block_of([Judged("s", 0, {"sft": ""}, (rating,))], ["sft"], weights, 0)
    assert block["models"]["sft"]["overall"]["mean"] == 50.0


@pytest.mark.parametrize(
    ("ranks", "vote"),
    [
        ([(1, 2), (1, 2), (2, 1)], 1 / 3),
        ([(1.5, 1.5), (2, 1)], -1 / 2),
        ([(1, 2), (2, 1)], 0.0),
        ([(3, 1)], -1.0),
    ],
)
def test_the_vote_on_a_prompt_is_wins_minus_losses_per_labeler(ranks, vote):
    rankings = tuple(Ranking(str(i), {"rlhf": a, "sft": b}) for i, (a, b) in enumerate(ranks))
    prompt = Judged("s", 0, {}, (), (), rankings)
    assert vote_of(prompt, "rlhf", "sft") == pytest.approx(vote)
    assert vote_of(prompt, "sft", "rlhf") == pytest.approx(-vote)
    assert vote_of(prompt, "rlhf", "dpo") is None


def test_orders_count_by_the_majority_of_each_prompt():
    def judged(i, *ranks):
        rankings = (Ranking(str(j), {"rlhf": a, "sft": b}) for j, (a, b) in enumerate(ranks))
        return Judged("s", i, dict.fromkeys(MODELS, ""), (), (), tuple(rankings))

    prompts = [
        judged(0, (1, 2), (1, 2), (2, 1)),
        judged(1, (1, 2), (2, 1)),
        judged(2, (1, 2)),
        judged(3, (2, 1), (2, 1), (1, 2)),
    ]
    (pair,) = block_of(prompts, MODELS, WEIGHTS, 0)["pairs"]
    assert (pair["by"], pair["wins"], pair["ties"], pair["losses"]) == ("order", 2, 1, 1)
    assert pair["win_rate"] == 0.625


def test_a_win_is_one_in_both_orders():
    verdicts = [
        ("model", "model"),
        ("model", "other"),
        ("other", "model"),
        ("other", "other"),
        ("tie", "tie"),
        ("model", "tie"),
        ("model", "model"),
    ]
    prompts = [
        Judged("s", i, dict.fromkeys(MODELS, ""), (), (Comparison("rlhf", "sft", a, b),))
        for i, (a, b) in enumerate(verdicts)
    ]
    same = Comparison("rlhf", "sft", "tie", "tie", same=True)
    prompts.append(Judged("s", 9, dict.fromkeys(MODELS, ""), (), (same,)))
    (pair,) = block_of(prompts, MODELS, WEIGHTS, 0)["pairs"]
    assert (pair["wins"], pair["ties"], pair["losses"]) == (2, 5, 1)
    assert pair["win_rate"] == pytest.approx(4.5 / 8)
    assert pair["asked"] == 7 and pair["consistent"] == pytest.approx(4 / 7)
    assert pair["first_preferred"] == pair["second_preferred"] == pytest.approx(1 / 7)


def test_one_prompt_or_only_wins_leave_an_interval():
    ratings = tuple(
        Rating(m, "a", dict.fromkeys(NAMES, p)) for m, p in (("sft", 0.0), ("rlhf", 2.0))
    )
    for n in (1, 20):
        prompts = [Judged("s", i, dict.fromkeys(MODELS, ""), ratings) for i in range(n)]
        block = block_of(prompts, MODELS, WEIGHTS, 0)
        least = 0.025 ** (1 / n)  # the chance of a win at which n wins in a row are that rare
        (pair,) = block["pairs"]
        assert pair["win_rate"] == 1.0 and pair["ci95"] == pytest.approx([least, 1.0])
        assert pair["difference_ci95"] == pytest.approx([100 - 200 * (1 - least), 100.0])
        assert block["models"]["rlhf"]["safety"]["ci95"] == pytest.approx([100 * least, 100.0])
        assert block["models"]["sft"]["overall"]["ci95"] == pytest.approx([0.0, 100 - 100 * least])


def test_a_comparison_as_seen_from_the_other_model():
    asked = Comparison("sft", "rlhf", "model", "tie")
    seen = comparison_of(Judged("s", 0, {}, (), (asked,)), "rlhf", "sft")
    # With RLHF's answer first there was a tie; with SFT's first SFT's won.
    assert seen == Comparison("rlhf", "sft", "tie", "other")
