"""Which node differs from the others, or has too little: pure functions of all nodes' facts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from common.training.preflight.facts import MISSING, Card, NodeFacts, digest

Value = TypeVar("Value")
FILES_NAMED = 5
LEAST_SHARED_MEMORY = 1.0
"""GiB in /dev/shm."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with one node, and what to do about it."""

    node: str
    text: str

    def __str__(self) -> str:
        return f"{self.node}: {self.text}"


@dataclass(frozen=True)
class Limits:
    """What each node must have at least; GiB."""

    memory: float
    disk: float
    card_share: float
    """Of each card's memory."""


def compare(nodes: Mapping[int, NodeFacts], limits: Limits) -> list[Problem]:
    """What is wrong with which node, in the nodes' order.

    Args:
        nodes: each node's facts by its number, the first being 0. A node is wrong where it differs
            from most others, or, where no value has a majority, from the first.
    """
    by_node: dict[int, list[str]] = {number: [] for number in sorted(nodes)}
    for found in (_code(nodes), _versions(nodes), _data(nodes), _cards(nodes)):
        for number, text in found:
            by_node[number].append(text)
    for number, facts in nodes.items():
        by_node[number].extend(_shortages(facts, limits))
    return [Problem(nodes[n].name, text) for n, texts in by_node.items() for text in texts]


def compare_clocks(
    names: Mapping[int, str], ahead: Mapping[int, float], limit: float
) -> list[Problem]:
    """Nodes whose clock is more than `limit` seconds away from the others'.

    Args:
        names: by number.
        ahead: seconds that a node's clock is ahead of the first's.
    """
    clocks = {0: 0.0, **ahead}
    near = {n: sum(abs(c - other) <= limit for other in clocks.values()) for n, c in clocks.items()}
    right = clocks[max(sorted(near), key=lambda n: near[n])]
    problems = []
    for number, clock in sorted(clocks.items()):
        if abs(clock - right) > limit:
            way = "ahead of" if clock > right else "behind"
            text = f"its clock is {abs(clock - right):.1f} s {way} the others': start NTP there"
            problems.append(Problem(names[number], text))
    return problems


def usual(values: Mapping[int, Value]) -> tuple[Value, bool]:
    """What most nodes have, and whether more than half of them do; else what the first has."""
    value, count = Counter(values.values()).most_common(1)[0]
    if 2 * count > len(values):
        return value, True
    return values[min(values)], False


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells, the first being the head, with columns in line."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ("  ".join(f"{c:{w}}" for c, w in zip(r, widths, strict=True)).rstrip() for r in rows)
    return "\n".join(lines)


def node_row(number: int, facts: NodeFacts, clock: str) -> list[str]:
    """A node's row of the table whose head is `HEAD`."""
    return [
        str(number),
        facts.name,
        digest(facts.code),
        digest(facts.versions),
        digest(facts.data) if facts.data else "none",
        shown_cards(facts.cards),
        f"{facts.memory:.1f}",
        f"{min(facts.disks.values(), default=0.0):.1f}",
        clock,
    ]


HEAD = ["node", "name", "code", "packages", "data", "cards", "GiB free", "on disk", "clock"]


def shown_cards(cards: Sequence[Card]) -> str:
    """ "8 × NVIDIA H100", or "none"."""
    kinds = Counter(card.name for card in cards)
    return ", ".join(f"{count} × {name}" for name, count in kinds.items()) or "none"


def _whose(majority: bool) -> str:
    return "the others have" if majority else "the first node has"


def _code(nodes: Mapping[int, NodeFacts]) -> list[tuple[int, str]]:
    digests = {number: digest(facts.code) for number, facts in nodes.items()}
    right, majority = usual(digests)
    example = nodes[next(n for n, value in digests.items() if value == right)].code
    found = []
    for number, value in digests.items():
        if value == right:
            continue
        here = nodes[number].code
        files = sorted(f for f in {*example, *here} if example.get(f) != here.get(f))
        more = f" and {len(files) - FILES_NAMED} more" if len(files) > FILES_NAMED else ""
        whose = "the others'" if majority else "the first node's"
        found.append(
            (
                number,
                f"its code is not {whose}: {', '.join(files[:FILES_NAMED])}{more} differ; bring "
                "the checkout there to the same state",
            )
        )
    return found


def _versions(nodes: Mapping[int, NodeFacts]) -> list[tuple[int, str]]:
    found = []
    for package in dict.fromkeys(p for facts in nodes.values() for p in facts.versions):
        values = {n: facts.versions.get(package, MISSING) for n, facts in nodes.items()}
        right, majority = usual(values)
        cure = "install the same" if package in ("driver", "python") else "bash launch/setup.sh"
        found += [
            (n, f"{package} is {value}, {_whose(majority)} {right}: {cure} there")
            for n, value in values.items()
            if value != right
        ]
    return found


def _data(nodes: Mapping[int, NodeFacts]) -> list[tuple[int, str]]:
    found = []
    for path in dict.fromkeys(p for facts in nodes.values() for p in facts.data):
        values = {n: facts.data.get(path, MISSING) for n, facts in nodes.items()}
        # A node without the file is the one to name, however many have none.
        there = {n: value for n, value in values.items() if value != MISSING}
        if not there:
            continue  # a name on the hub
        right, majority = usual(there)
        found += [(n, f"{path} is not there; copy it") for n in values if n not in there]
        whose = "the others'" if majority else "the first node's"
        found += [
            (n, f"the content of {path} is not {whose}; copy it anew")
            for n, value in there.items()
            if value != right
        ]
    return found


def _cards(nodes: Mapping[int, NodeFacts]) -> list[tuple[int, str]]:
    values = {number: shown_cards(facts.cards) for number, facts in nodes.items()}
    right, majority = usual(values)
    return [
        (n, f"its cards are: {value}; {_whose(majority)}: {right}. All nodes need the same")
        for n, value in values.items()
        if value != right
    ]


def _shortages(facts: NodeFacts, limits: Limits) -> list[str]:
    found = []
    if facts.elsewhere:
        found.append(
            f"{facts.elsewhere} is not the same folder as on the first node: the run directory "
            "must lie on a file system that all nodes share"
        )
    if facts.memory < limits.memory:
        found.append(
            f"{facts.memory:.1f} GiB of memory are free, {limits.memory:g} are needed: end what "
            "takes it, or lower --free_memory"
        )
    for place, free in facts.disks.items():
        shared = place == "/dev/shm"
        least = LEAST_SHARED_MEMORY if shared else limits.disk
        if free < least:
            cure = (
                "enlarge it (docker: --shm-size)" if shared else "make room, or lower --free_disk"
            )
            found.append(f"{free:.1f} GiB are free in {place}, {least:g} are needed: {cure}")
    for i, card in enumerate(facts.cards):
        if card.free < limits.card_share * card.total:
            found.append(
                f"of card {i}'s {card.total} MiB only {card.free} are free: another process is on "
                "it (nvidia-smi); end it, or lower --free_card"
            )
    return found
