"""Hand-written ads with known ground truth."""

from common.data.ad_moderation.ads import Ad, Claim
from common.data.ad_moderation.tasks import make_task

HEALTH = ("health claims", "cures all pain")
URGENCY = ("false urgency", "order at once")
COSTS = ("hidden costs", "fees come later")
ALCOHOL = ("alcohol", "free beer inside")
GAMBLING = ("gambling", "bet and win")

QUESTIONS = {
    "policy": "Which policy does it break? Quote the words and say why.",
    "compliance": "May it run? Name the policy and the reason.",
    "rewrite": "Fix this ad. Name the broken policy and the reason.",
}


def task(name, violations=(), allowed=(), audience="teens", channel="radio"):
    """A task on an ad for "Zevo hand gel" with a "fresh scent" and the claims given."""
    phrases = [phrase for _, phrase in (*violations, *allowed)]
    ad = Ad(
        text=f"Zevo hand gel: {', '.join(['fresh scent', *phrases])}.",
        product="Zevo hand gel",
        benefit="fresh scent",
        audience=audience,
        channel=channel,
        violations=tuple(Claim(*claim) for claim in violations),
        allowed=tuple(Claim(*claim) for claim in allowed),
    )
    return make_task(name, ad, QUESTIONS[name])
