"""The vocabulary keeps its promises: sizes, halves that do not mix, reasons that do not overlap."""

import re
from itertools import combinations

import pytest

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.ads import breaks
from common.data.ad_moderation.reading import gives_reason, read

POLICIES = list(words.POLICIES.values())


def test_there_is_enough_of_everything():
    assert len(POLICIES) >= 8
    for policy in POLICIES:
        assert len(policy.seen) >= 8, policy.name
        assert len(policy.unseen) >= 3, policy.name
        assert policy.unseen_names, policy.name


def test_no_phrase_belongs_to_two_policies_or_contains_another():
    phrases = [phrase for policy in POLICIES for phrase in (*policy.seen, *policy.unseen)]
    phrases += [phrase for pool in words.TRUE_PRICES.values() for phrase in pool]
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


def test_price_phrases_are_right_or_wrong_by_arithmetic():
    for phrases, wrong in (
        (words.PRICES.seen + words.PRICES.unseen, True),
        (words.TRUE_PRICES["seen"] + words.TRUE_PRICES["unseen"], False),
    ):
        for phrase in phrases:
            was, now, saving = map(int, re.findall(r"\d+", phrase))
            assert (was - now != saving) == wrong
            assert breaks("price claims", phrase, "adults", "apps") == wrong


@pytest.mark.parametrize(
    ("policy", "audience", "channel", "violates"),
    [
        ("alcohol", "teens", "apps", True),
        ("alcohol", "adults", "radio", False),
        ("gambling", "adults", "radio", True),
        ("gambling", "teens", "apps", False),
        ("privacy", "adults", "apps", True),
    ],
)
def test_audience_decides_about_alcohol_and_channel_about_gambling(
    policy, audience, channel, violates
):
    assert breaks(policy, "any", audience, channel) == violates


@pytest.mark.parametrize("world", [words.BRANDS, words.NOUNS, words.BENEFITS])
def test_seen_and_unseen_words_are_disjoint_and_unseen_ones_are_recombined(world):
    assert not set(world["seen"]) & set(world["unseen"])
    starts = {word[:2] for word in world["seen"]}
    ends = {word[-2:] for word in world["seen"]}
    assert all(word[:2] in starts and word[-2:] in ends for word in world["unseen"])
