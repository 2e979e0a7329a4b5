"""Random ads: a product, one harmless benefit, and no, one or two claims that break a policy."""

import random
from dataclasses import dataclass

from common.data.ad_moderation import vocabulary as words
from common.data.ad_moderation.vocabulary import Pool

TWO_VIOLATIONS_SHARE = 0.22
"""Share of the violating ads that carry two violations, of different policies."""

CONDITIONAL_SHARE = 0.22
"""Share of violations that belong to a conditional policy (who or where decides)."""

ALLOWED_SHARE = 0.46
"""Share of clean ads with a claim of a conditional policy that is in order here."""

DISTRACTOR_SHARE = 0.10
"""Share of ads with one violation that also carry a claim which is in order here."""

PIECES = (
    "{product}: {pieces}.",
    "{product}, {pieces}!",
    "Try {product}: {pieces}.",
)


@dataclass(frozen=True)
class Claim:
    """A phrase of the ad and the policy that governs it."""

    policy: str
    phrase: str


@dataclass(frozen=True)
class Ad:
    """An ad and what is true of it.

    Attributes:
        text: the ad itself, without quotation marks.
        product: brand and noun, as the ad has it.
        benefit: the harmless claim, which a rewrite keeps.
        violations: the claims that break a policy, in the ad's order (0 to 2).
        allowed: claims of conditional policies that are in order in this ad (0 or 1).
    """

    text: str
    product: str
    benefit: str
    audience: str
    channel: str
    violations: tuple[Claim, ...]
    allowed: tuple[Claim, ...]


def breaks(policy: str, audience: str, channel: str) -> bool:
    """Whether a phrasing of a policy breaks it for this audience on this channel."""
    if policy == words.ALCOHOL.name:
        return audience in words.YOUNG
    if policy == words.GAMBLING.name:
        return channel in words.FAMILY_CHANNELS
    return True


def _policy(rng: random.Random, *, conditional: bool, but: tuple[str, ...] = ()) -> str:
    names = [
        name
        for name in words.POLICIES
        if (name in words.CONDITIONAL) == conditional and name not in but
    ]
    return rng.choice(names)


def _allowed_claim(rng: random.Random, pool: Pool) -> Claim:
    name = _policy(rng, conditional=True)
    return Claim(name, rng.choice(words.POLICIES[name].phrases(pool)))


def _violations(rng: random.Random, pool: Pool) -> tuple[Claim, ...]:
    name = _policy(rng, conditional=rng.random() < CONDITIONAL_SHARE)
    names = [name]
    if rng.random() < TWO_VIOLATIONS_SHARE:
        names.append(_policy(rng, conditional=False, but=(name,)))
    return tuple(Claim(name, rng.choice(words.POLICIES[name].phrases(pool))) for name in names)


def draw_product(rng: random.Random, pool: Pool) -> str:
    """A brand and a noun, such as "Mora hand soap"."""
    return rng.choice(words.PRODUCTS[pool])


def draw_ad(rng: random.Random, pool: Pool, *, clean: bool) -> Ad:
    """An ad from one half of the vocabulary, with (`clean=False`) or without a violation."""
    violations = () if clean else _violations(rng, pool)
    extra = ALLOWED_SHARE if clean else DISTRACTOR_SHARE if len(violations) == 1 else 0.0
    allowed = (_allowed_claim(rng, pool),) if rng.random() < extra else ()
    broken = {claim.policy for claim in violations}
    allowed = tuple(claim for claim in allowed if claim.policy not in broken)
    fine = {claim.policy for claim in allowed}

    audiences, channels = words.AUDIENCES, words.CHANNELS
    if words.ALCOHOL.name in broken | fine:
        audiences = words.YOUNG if words.ALCOHOL.name in broken else words.GROWN
    if words.GAMBLING.name in broken | fine:
        channels = words.FAMILY_CHANNELS if words.GAMBLING.name in broken else words.OTHER_CHANNELS

    product = draw_product(rng, pool)
    benefit = rng.choice(words.BENEFITS[pool])
    claims = list(violations)
    rng.shuffle(claims)
    pieces = [benefit, *(claim.phrase for claim in (*claims, *allowed))]
    rng.shuffle(pieces)
    layout = rng.choice(PIECES)
    in_order = sorted(violations, key=lambda claim: pieces.index(claim.phrase))
    return Ad(
        text=layout.format(product=product, pieces=", ".join(pieces)),
        product=product,
        benefit=benefit,
        audience=rng.choice(audiences),
        channel=rng.choice(channels),
        violations=tuple(in_order),
        allowed=allowed,
    )
