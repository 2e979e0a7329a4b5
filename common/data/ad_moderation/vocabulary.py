"""The closed world of the embedded domain: policies, phrasings, products, audiences, channels.

Everything that a prompt or an answer can talk about is listed here. Each list has a *seen* part,
which training draws from, and an *unseen* part, which only the `eval_unseen` split uses. Unseen
entries recombine words (or syllables) of seen ones, so that a model which learned the cues, and not
only the strings, can still infer what they mean.
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


def _price(was: int, now: int, saving: int) -> str:
    return f"was {was}, now {now}, save {saving}"


WAS_PRICES = range(5, 13)
SAVINGS = range(1, 5)


def _prices(pool: Pool, errors: tuple[int, ...]) -> tuple[str, ...]:
    """Price phrases whose stated saving is off by one of `errors`; unseen: reserved (was, now)."""
    return tuple(
        _price(was, was - saving, saving + error)
        for was in WAS_PRICES
        for saving in SAVINGS
        if ((was + 2 * saving) % 6 == 0) == (pool == "unseen")
        for error in errors
        if saving + error > 0
    )


TRUE_PRICES: dict[Pool, tuple[str, ...]] = {
    "seen": _prices("seen", (0,)),
    "unseen": _prices("unseen", (0,)),
}
"""Price phrases in which the stated saving is right: the same form as the violating ones."""

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
    seen=(
        "cures all pain",
        "heals any wound",
        "ends every illness",
        "cures bad knees",
        "heals sore backs",
        "stops all disease",
        "cures the flu",
        "replaces your pills",
        "no doctor needed",
    ),
    unseen=("cures every illness", "heals bad knees", "stops any pain"),
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
    seen=(
        "earn cash fast",
        "get rich at home",
        "double your money",
        "make big profits",
        "earn while you sleep",
        "quit your job rich",
        "cash every single day",
        "sure profits for life",
        "money grows overnight",
    ),
    unseen=("earn big profits", "double your cash", "get rich overnight"),
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
    seen=(
        "the best on earth",
        "works every time",
        "100% perfect",
        "never ever fails",
        "beats all others",
        "the greatest ever made",
        "simply cannot fail",
        "perfect for everyone",
        "works like magic",
    ),
    unseen=("the best ever made", "100% magic", "works for everyone"),
)
URGENCY = Policy(
    name="false urgency",
    reason="rushes people into buying",
    cues=(r"\b(rush|hurr|pressur|hast)", _PEOPLE),
    seen_names=("false rush",),
    unseen_names=("rush and urgency",),
    seen=(
        "buy now or never",
        "last chance today",
        "only minutes left",
        "hurry while it lasts",
        "ends this very hour",
        "act before midnight",
        "order at once",
        "last day to buy",
        "just two left",
    ),
    unseen=("last minutes to order", "act now or never", "hurry before midnight"),
)
BODY = Policy(
    name="body shaming",
    reason="shames people for their looks",
    cues=(
        r"\b(sham|mock|insult|humiliat|belittl|feel bad)",
        r"\b(look|bod|appear|weight|shape|skin)",
    ),
    seen_names=("looks shaming",),
    unseen_names=("shaming of looks", "shaming of the body"),
    seen=(
        "hide that ugly belly",
        "fix your fat face",
        "nobody loves wrinkles",
        "stop looking so old",
        "thin people win",
        "lose your awful belly",
        "your skin looks gross",
        "be thin or alone",
        "cover those ugly scars",
    ),
    unseen=("hide those ugly wrinkles", "fix your awful skin", "stop looking fat"),
)
DISCRIMINATION = Policy(
    name="discrimination",
    reason="shuts out a group of people",
    cues=(r"\b(shut|exclu|keep|reject|turn|bar|ban)", r"\b(group|people|person|some|other|who)"),
    seen_names=("shut out groups",),
    unseen_names=("shut out people",),
    seen=(
        "only for real men",
        "no women please",
        "not for foreigners",
        "locals only",
        "keep immigrants out",
        "no old folks allowed",
        "for one faith only",
        "not for the poor",
        "no wheelchairs allowed",
    ),
    unseen=("only for locals", "no foreigners allowed", "not for old folks"),
)
PRIVACY = Policy(
    name="privacy",
    reason="uses private data without consent",
    cues=(
        r"\b(us|tak|collect|shar|sell|read|spi|gather)",
        r"\b(private|personal|data|information)\b",
        r"\b(consent|permission|ask|leave|agree)",
    ),
    seen_names=("private data use",),
    unseen_names=("private data privacy", "use of private data"),
    seen=(
        "we read your mail",
        "we track your phone",
        "your secrets are ours",
        "we know where you live",
        "we sell your photos",
        "we scan your messages",
        "we watch your screen",
        "your contacts become ours",
        "we save every call",
    ),
    unseen=("we sell your secrets", "we read your messages", "we track every call"),
)
FEAR = Policy(
    name="fear appeals",
    reason="scares people into buying",
    cues=(r"\b(scar|fright|threat|terrif|panic|afraid)", _PEOPLE),
    seen_names=("scare words",),
    unseen_names=("fear words", "scare appeals"),
    seen=(
        "or your family suffers",
        "thieves are coming tonight",
        "you will die without it",
        "danger waits at home",
        "be very afraid",
        "your house will burn",
        "do not risk death",
        "or lose your children",
        "killers are near you",
    ),
    unseen=("danger waits tonight", "or your house suffers", "thieves are near you"),
)
COSTS = Policy(
    name="hidden costs",
    reason="hides what the buyer must pay",
    cues=(r"\b(hid|conceal|bur|secret|disguis)", r"\b(pay|cost|fee|charge|price)"),
    seen_names=("secret fees",),
    unseen_names=("hidden fees", "secret costs"),
    seen=(
        "free until we charge",
        "no price shown",
        "fees come later",
        "free but pay shipping",
        "we bill you afterwards",
        "small print fees apply",
        "charges start silently",
        "free with extra charges",
        "pay more later",
    ),
    unseen=("free but fees apply", "we charge you later", "charges come afterwards"),
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
    seen=(
        "free beer inside",
        "comes with strong wine",
        "win a whisky bottle",
        "a shot of rum",
        "enjoy with cold beer",
        "vodka for every party",
        "taste our new gin",
        "wine with every order",
        "a cocktail on us",
    ),
    unseen=("free wine inside", "comes with cold beer", "win a rum bottle"),
    allowed="alcohol may be offered to adults",
    allowed_cues=(r"\b(alcohol|drink|beer|wine|liquor)", r"\b(adult|grown|old enough)", _MAY),
)
GAMBLING = Policy(
    name="gambling",
    reason="offers betting on a family channel",
    cues=(_OFFER, r"\b(bet|gambl|wager|casino)", r"\b(famil|everyone|children)"),
    seen_names=("betting offers",),
    unseen_names=("gambling offers",),
    seen=(
        "bet and win",
        "spin our lucky wheel",
        "play poker for cash",
        "join the casino",
        "place your bets",
        "try the slot machine",
        "win at roulette",
        "bet on the match",
        "roll dice for cash",
    ),
    unseen=("spin and win", "bet on the wheel", "play dice for cash"),
    allowed="betting may be offered on this channel",
    allowed_cues=(r"\b(bet|gambl|wager|casino)", r"\b(channel|app|website|email|magazine)", _MAY),
)
PRICES = Policy(
    name="price claims",
    reason="states a saving that the prices do not give",
    cues=(
        r"\b(sav|discount|reduc)",
        r"\b(price|number|sum|figure|amount)",
        r"(\bnot\b|n't\b|\b(wrong|false|differ|mismatch|cannot))",
    ),
    seen_names=("false savings",),
    unseen_names=("false prices",),
    seen=_prices("seen", (-2, -1, 1, 2)),
    unseen=_prices("unseen", (-2, -1, 1, 2)),
    allowed="the saving matches the prices",
    allowed_cues=(
        r"\b(sav|discount|reduc)",
        r"\b(price|number|sum|figure|amount)",
        r"\b(match|fit|agree|right|correct|equal|true)",
    ),
)

POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        HEALTH,
        INCOME,
        EXAGGERATION,
        URGENCY,
        BODY,
        DISCRIMINATION,
        PRIVACY,
        FEAR,
        COSTS,
        ALCOHOL,
        GAMBLING,
        PRICES,
    )
}
CONDITIONAL = tuple(name for name, policy in POLICIES.items() if policy.allowed)
"""Policies whose phrasings are in order elsewhere: another audience, channel, or other numbers."""

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

BRAND_STARTS = ("Ze", "Lu", "Mo", "Ka", "Ri", "To", "Va", "Ne")
BRAND_ENDS = ("no", "ra", "lix", "vo", "mi", "dan", "sol", "pex")
_BRANDS = [
    (start + end, (2 * i + j) % 5 == 0)
    for i, start in enumerate(BRAND_STARTS)
    for j, end in enumerate(BRAND_ENDS)
]
BRANDS: dict[Pool, tuple[str, ...]] = {
    "seen": tuple(brand for brand, reserved in _BRANDS if not reserved),
    "unseen": tuple(brand for brand, reserved in _BRANDS if reserved),
}
_NOUN_PARTS = (
    (("hand", "face", "hair", "skin"), ("gel", "cream", "soap", "oil")),
    (("herb", "oat", "fruit", "nut"), ("bar", "tea", "mix", "snack")),
)
_NOUNS = [
    (f"{what} {form}", i == j)
    for whats, forms in _NOUN_PARTS
    for i, what in enumerate(whats)
    for j, form in enumerate(forms)
]
NOUNS: dict[Pool, tuple[str, ...]] = {
    "seen": tuple(noun for noun, reserved in _NOUNS if not reserved),
    "unseen": tuple(noun for noun, reserved in _NOUNS if reserved),
}
_BENEFITS = [
    (f"{adjective} {noun}", (i + j) % 5 == 0)
    for i, adjective in enumerate(
        ("soft", "fresh", "light", "warm", "mild", "clean", "sweet", "smooth")
    )
    for j, noun in enumerate(("scent", "feel", "taste", "touch", "finish", "texture"))
]
BENEFITS: dict[Pool, tuple[str, ...]] = {
    "seen": tuple(benefit for benefit, reserved in _BENEFITS if not reserved),
    "unseen": tuple(benefit for benefit, reserved in _BENEFITS if reserved),
}
