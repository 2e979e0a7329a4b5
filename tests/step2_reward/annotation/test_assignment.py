"""Who gets what: pure draws and choices."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from step2_reward.annotation.assignment import choose, gold_is_due, next_gold, shown_order


def test_prompts_that_are_begun_come_first():
    assert choose(["a", "b", "c"], {"b": 1, "c": 2}, set(), 3) == "c"
    assert choose(["a", "b", "c"], {"b": 1, "c": 3}, set(), 3) == "b"
    assert choose(["a", "b", "c"], {"b": 1}, {"b"}, 3) == "a"
    assert choose(["a", "b"], {"a": 3}, {"b"}, 3) is None


@given(st.integers(1, 4), st.integers(0, 3), st.integers(1, 12))
def test_one_after_the_other_every_prompt_gets_its_labelers(per_prompt, spare, count):
    """With as many labelers as are needed, or more, in any turn: exactly `per_prompt` each."""
    prompts = [f"p{i}" for i in range(count)]
    labelers = range(per_prompt + spare)
    taken: Counter[str] = Counter()
    mine = {labeler: set() for labeler in labelers}
    moved = True
    while moved:
        moved = False
        for labeler in labelers:
            key = choose(prompts, taken, mine[labeler], per_prompt)
            if key:
                taken[key] += 1
                mine[labeler].add(key)
                moved = True
    assert taken == dict.fromkeys(prompts, per_prompt)


@given(st.integers(0, 1000), st.integers(1, 7))
def test_one_gold_question_in_every_run(seed, every):
    """Answer after answer: after n·every ordinary prompts, n gold questions have come."""
    ordinary = gold = 0
    while ordinary < 6 * every:
        if gold_is_due(ordinary, gold, every, seed, "anna"):
            gold += 1
        else:
            ordinary += 1
            assert gold in (ordinary // every, ordinary // every + 1)


def test_gold_questions_come_at_places_of_each_labelers_own():
    def first(labeler):
        return next(n for n in range(20) if gold_is_due(n, 0, 20, 0, labeler))

    places = {first(f"labeler {i}") for i in range(30)}
    assert len(places) > 8
    gold = [f"g{i}" for i in range(6)]
    assert len({next_gold(gold, set(), 0, f"labeler {i}") for i in range(30)}) > 3
    assert next_gold(gold, set(gold[1:]), 0, "anna") == "g0"
    assert next_gold(gold, set(gold), 0, "anna") is None


def test_every_order_is_shown_about_as_often():
    orders = Counter(tuple(shown_order(3, 0, f"labeler {i}", "key")) for i in range(1200))
    assert len(orders) == 6
    assert all(130 < count < 270 for count in orders.values())  # 200 ± 5.4 deviations


def test_shown_orders_depend_on_labeler_prompt_and_seed_only():
    order = shown_order(8, 1, "anna", "key")
    assert sorted(order) == list(range(8))
    assert order == shown_order(8, 1, "anna", "key")
    others = [(8, 2, "anna", "key"), (8, 1, "ben", "key"), (8, 1, "anna", "yek")]
    assert all(shown_order(*other) != order for other in others)
