"""The vocabulary keeps its promises: sizes, halves that do not mix, reasons that do not overlap."""

import re
from collections import Counter
from itertools import combinations

import pytest

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.ads import breaks
from common.data.ad_moderation.reading import gives_reason, read

POLICIES = list(words.POLICIES.values())


def test_there_is_enough_of_everything():
    assert len(POLICIES) >= 8
    for policy in POLICIES:
        assert len(policy.seen) >= 6, policy.name
        assert len(policy.unseen) >= 3, policy.name
        assert policy.unseen_names, policy.name


def test_no_phrase_belongs_to_two_policies_or_contains_another():
    phrases = [phrase for policy in POLICIES for phrase in (*policy.seen, *policy.unseen)]
    phrases += [benefit for pool in words.BENEFITS.values() for benefit in pool]
    for first, second in combinations(phrases, 2):
        assert not re.search(rf"\b{re.escape(first)}\b", second), (first, second)
        assert not re.search(rf"\b{re.escape(second)}\b", first), (first, second)


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_unseen_phrases_share_their_words_with_seen_ones(policy):
    known = {word for phrase in policy.seen for word in phrase.split()}
    for phrase in policy.unseen:
        shared = [word for word in phrase.split() if word in known]
        assert len(shared) >= len(phrase.split()) / 2, phrase
        assert phrase not in policy.seen


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.name)
def test_a_reason_is_read_as_its_own_policy_and_as_no_other(policy):
    reading = read(f"The ad {policy.reason}.")
    assert [p.name for p in POLICIES if gives_reason(reading, p.cues)] == [policy.name]
    if policy.allowed:
        reading = read(f"{policy.allowed.capitalize()}.")
        assert not any(gives_reason(reading, p.cues) for p in POLICIES)
        fine = [p.name for p in POLICIES if p.allowed and gives_reason(reading, p.allowed_cues)]
        assert fine == [policy.name]


@pytest.mark.parametrize(
    ("policy", "audience", "channel", "violates"),
    [
        ("alcohol", "teens", "apps", True),
        ("alcohol", "adults", "radio", False),
        ("gambling", "adults", "radio", True),
        ("gambling", "teens", "apps", False),
        ("hidden costs", "adults", "apps", True),
    ],
)
def test_audience_decides_about_alcohol_and_channel_about_gambling(
    policy, audience, channel, violates
):
    assert breaks(policy, audience, channel) == violates


def test_products_are_all_brands_with_all_nouns_in_two_halves():
    seen, unseen = (set(words.PRODUCTS[pool]) for pool in ("seen", "unseen"))
    assert len(seen) == len(words.PRODUCTS["seen"]) and len(unseen) == len(words.PRODUCTS["unseen"])
    assert not seen & unseen
    assert seen | unseen == {f"{brand} {noun}" for brand in words.BRANDS for noun in words.NOUNS}
    assert len(seen | unseen) == 20 * 18
    assert 0.1 <= len(unseen) / len(seen | unseen) <= 0.3


@pytest.mark.parametrize("world", [words.PRODUCTS, words.BENEFITS], ids=["products", "benefits"])
def test_unseen_combinations_are_of_words_that_occur_in_several_seen_ones(world):
    assert not set(world["seen"]) & set(world["unseen"])
    uses = Counter(part for item in world["seen"] for part in item.split(" ", 1))
    for item in world["unseen"]:
        for part in item.split(" ", 1):  # brand and noun, or adjective and noun
            assert uses[part] >= 3, (item, part)
