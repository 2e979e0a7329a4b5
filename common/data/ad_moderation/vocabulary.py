"""The closed world of the embedded domain: policies, phrasings, products, audiences, channels.

Everything that a prompt or an answer can talk about is listed here. Each list has a *seen* part,
which training draws from, and an *unseen* part, which only the `eval_unseen` split uses. Unseen
entries recombine words of seen ones, so that a model which learned the cues, and not only the
strings, can still infer what they mean.
"""

from dataclasses import dataclass
from typing import Literal

Pool = Literal["seen", "unseen"]
"""Which half of the vocabulary is drawn from."""


@dataclass(frozen=True)
class Policy:
    """One advertising policy.

    Attributes:
        name: the official name, as an answer gives it ("the NAME policy").
        reason: verb phrase that says what the ad does wrong ("the ad REASON").
        cues: the reason in any wording: one regular expression per idea; a sentence gives the
            reason when it matches all of them.
        seen_names, unseen_names: other wordings of the category; prompts use them as hints.
        seen, unseen: phrasings that violate the policy.
        allowed: for a conditional policy, the clause that says why the ad is in order.
        allowed_cues: that clause in any wording, as in `cues`.
    """

    name: str
    reason: str
    cues: tuple[str, ...]
    seen_names: tuple[str, ...]
    unseen_names: tuple[str, ...]
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    allowed: str = ""
    allowed_cues: tuple[str, ...] = ()

    def phrases(self, pool: Pool) -> tuple[str, ...]:
        """The phrasings of one half of the vocabulary."""
        return self.seen if pool == "seen" else self.unseen

    def hints(self, pool: Pool) -> tuple[str, ...]:
        """The wordings of the category itself that prompts of that half use."""
        return (self.name, *self.seen_names) if pool == "seen" else self.unseen_names


_PROMISE = r"\b(promis|claim|pledg|guarantee|offer|say|vow)"
_OFFER = r"\b(offer|sell|advertis|promot|show|push|market|give)"
_PEOPLE = r"\b(buy|purchas|order|people|customer|shopper|reader)"
_MAY = r"\b(may|can|allowed|allows|permitted|fine|acceptable|legal|ok|okay)\b"


def _phrasings(heads: tuple[str, ...], tails: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Every head with every tail: two thirds seen, one third unseen, each word seen twice."""
    both: dict[str, list[str]] = {"seen": [], "unseen": []}
    for i, head in enumerate(heads):
        for j, tail in enumerate(tails):
            both["seen" if (i + j) % 3 else "unseen"].append(f"{head} {tail}")
    return {pool: tuple(phrases) for pool, phrases in both.items()}


HEALTH = Policy(
    name="health claims",
    reason="promises a cure that no one can prove",
    cues=(
        _PROMISE,
        r"\b(cure|heal|remed|treat|medic)",
        r"\b(prov|proof|eviden|show|guarantee|back)",
    ),
    seen_names=("medical promises",),
    unseen_names=("health promises", "medical claims"),
    **_phrasings(("cures", "heals", "ends"), ("bad knees", "all pain", "every illness")),
)
INCOME = Policy(
    name="income claims",
    reason="promises money that no one can guarantee",
    cues=(
        _PROMISE,
        r"\b(money|income|profit|earn|rich|cash|wealth)",
        r"\b(guarantee|sure|certain|prov|assur|real)",
    ),
    seen_names=("money promises",),
    unseen_names=("income promises", "money claims"),
    **_phrasings(("earn", "make", "get"), ("easy cash", "big profits", "fast money")),
)
EXAGGERATION = Policy(
    name="exaggerated claims",
    reason="overstates what the product can do",
    cues=(
        r"\b(overstat|exaggerat|oversell|inflat|overclaim)",
        r"\b(product|it|do|does|goods|effect)",
    ),
    seen_names=("overstated words",),
    unseen_names=("exaggerated words", "overstated claims"),
    **_phrasings(
        ("the best", "the finest", "the greatest"), ("on earth", "ever made", "of all time")
    ),
)
URGENCY = Policy(
    name="false urgency",
    reason="rushes people into buying",
    cues=(r"\b(rush|hurr|pressur|hast)", _PEOPLE),
    seen_names=("false rush",),
    unseen_names=("rush and urgency",),
    **_phrasings(("order", "buy", "act"), ("before midnight", "at once", "now or never")),
)
DISCRIMINATION = Policy(
    name="discrimination",
    reason="shuts out a group of people",
    cues=(r"\b(shut|exclu|keep|reject|turn|bar|ban)", r"\b(group|people|person|some|other|who)"),
    seen_names=("shut out groups",),
    unseen_names=("shut out people",),
    **_phrasings(
        ("no foreigners", "no women", "no old folks"), ("please", "allowed", "wanted here")
    ),
)
COSTS = Policy(
    name="hidden costs",
    reason="hides what the buyer must pay",
    cues=(r"\b(hid|conceal|bur|secret|disguis)", r"\b(pay|cost|fee|charge|price)"),
    seen_names=("secret fees",),
    unseen_names=("hidden fees", "secret costs"),
    **_phrasings(
        ("fees", "charges", "extra costs"), ("apply afterwards", "come later", "stay hidden")
    ),
)
ALCOHOL = Policy(
    name="alcohol",
    reason="offers alcohol to young people",
    cues=(
        _OFFER,
        r"\b(alcohol|drink|beer|wine|liquor)",
        r"\b(young|teen|child|minor|kid|underage|student|pupil|youth)",
    ),
    seen_names=("drinks for the young",),
    unseen_names=("alcohol for the young",),
    **_phrasings(
        ("free beer", "cold wine", "strong rum"), ("for all", "inside", "with every order")
    ),
    allowed="alcohol may be offered to adults",
    allowed_cues=(r"\b(alcohol|drink|beer|wine|liquor)", r"\b(adult|grown|old enough)", _MAY),
)
GAMBLING = Policy(
    name="gambling",
    reason="offers betting on a family channel",
    cues=(_OFFER, r"\b(bet|gambl|wager|casino)", r"\b(famil|everyone|children)"),
    seen_names=("betting offers",),
    unseen_names=("gambling offers",),
    **_phrasings(("bet", "gamble", "play dice"), ("for cash", "and win", "every day")),
    allowed="betting may be offered on this channel",
    allowed_cues=(r"\b(bet|gambl|wager|casino)", r"\b(channel|app|website|email|magazine)", _MAY),
)
POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        HEALTH,
        INCOME,
        EXAGGERATION,
        URGENCY,
        DISCRIMINATION,
        COSTS,
        ALCOHOL,
        GAMBLING,
    )
}
CONDITIONAL = tuple(name for name, policy in POLICIES.items() if policy.allowed)
"""Policies whose phrasings are in order elsewhere: another audience or channel."""

CLEAN_REASON = "its claims are modest and can be checked"
CLEAN_CUES = (
    r"\b(claim|word|statement|say)",
    r"\b(modest|fair|plain|honest|true|mild|check|harmless|accura)",
)

YOUNG = ("children", "teens", "pupils", "students")
GROWN = ("adults", "parents", "seniors", "workers")
AUDIENCES = YOUNG + GROWN
FAMILY_CHANNELS = ("radio", "television", "posters", "buses")
OTHER_CHANNELS = ("apps", "websites", "email", "magazines")
CHANNELS = FAMILY_CHANNELS + OTHER_CHANNELS

BRAND_ENDS = ("no", "ra", "lix", "vo", "dan")
BRANDS = tuple(f"{start}{end}" for start in ("Ze", "Lu", "Mo", "Ka") for end in BRAND_ENDS)
_KINDS = (
    (("hand", "face", "hair"), ("gel", "cream", "soap")),
    (("herb", "oat", "nut"), ("bar", "tea", "mix")),
)
NOUNS = tuple(f"{what} {form}" for whats, forms in _KINDS for what in whats for form in forms)
PRODUCTS: dict[Pool, tuple[str, ...]] = {
    pool: tuple(
        f"{brand} {noun}"
        for i, brand in enumerate(BRANDS)
        for j, noun in enumerate(NOUNS)
        if ((i + j) % 5 == 0) == (pool == "unseen")
    )
    for pool in ("seen", "unseen")
}
"""Brand and noun, such as "Mora hand soap". Every word of an unseen product is known, from other
products: a model that copies can name it, a model that memorized the pairs cannot."""
BENEFITS: dict[Pool, tuple[str, ...]] = {
    pool: tuple(
        f"{adjective} {noun}"
        for i, adjective in enumerate(("soft", "fresh", "light", "warm", "mild"))
        for j, noun in enumerate(("scent", "feel", "taste", "touch", "finish"))
        if ((i + j) % 5 == 0) == (pool == "unseen")
    )
    for pool in ("seen", "unseen")
}
