"""Before a run over several nodes: do they fit together? Names the node that does not.

multinode.sh starts it before the first stage. By hand, on every node:

    deepspeed --hostfile hosts --no_ssh --node_rank R --master_addr FIRST_NODE \
      --module common.training.preflight --folder /shared/run --data /data/sft.jsonl

Code 0 with a line per node; 2 with a table of the nodes and what is wrong with which.
"""

import os
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.distributed import DistError

from common.config.arguments import check_range, option
from common.config.parsing import parse_arguments
from common.data.sources import paths_of
from common.errors import UserError
from common.libraries import quiet_libraries
from common.training.ending import leave
from common.training.nodes import Place, node_name
from common.training.preflight.board import Board, failed_nodes
from common.training.preflight.comparison import (
    HEAD,
    Limits,
    Problem,
    compare,
    compare_clocks,
    node_row,
    table,
)
from common.training.preflight.facts import Card, NodeFacts, gather_facts, mark, sees
from common.training.preflight.network import (
    ELEMENTS,
    HUNG,
    Ping,
    all_reduce_check,
    answering,
    backend,
    bus_bandwidth,
    in_time,
    ping,
    unreachable,
)
from common.training.resume.signals import REQUESTS, STOP_CODE, Stopped


@dataclass
class PreflightArguments:
    """What all nodes must have, and how long they wait for one another."""

    folder: str = option(".", "that takes the run, one on all nodes: room is looked for there")
    data: list[str] = option(
        [], "files and folders (or mappings with path) of the same content on all nodes"
    )
    free_memory: float = option(2.0, "GiB of memory that must be free on each node")
    free_disk: float = option(2.0, "GiB that must be free in the folder, and for temporary files")
    free_card: float = option(0.9, "share of each card's memory that must be free")
    clock_skew: float = option(5.0, "seconds that a node's clock may be away from the others'")
    seconds: float = option(120.0, "that the nodes wait for one another, at each step")
    reading_minutes: float = option(30.0, "that reading the data may take")

    def __post_init__(self) -> None:
        check_range(self, 0, "free_memory", "free_disk", "free_card")
        check_range(self, 0, "clock_skew", "seconds", "reading_minutes", above=True)


def preflight(settings: PreflightArguments) -> int:
    """Looks at all nodes; returns the exit code. All ranks call it."""
    place = Place.from_environment()
    host = os.environ.get("MASTER_ADDR", "127.0.0.1")
    port = int(os.environ.get("MASTER_PORT", "29500"))
    board = Board(place, host, port, settings.seconds)
    try:
        board.note(f"rank/{place.rank}", place.node)
        return look(board, settings)
    finally:
        board.leave()


def look(board: Board, settings: PreflightArguments) -> int:
    """The steps, each over what the one before has shown to be there."""
    first_rank, node = board.place.local_rank == 0, board.place.node
    nodes = range(board.place.nodes)
    names = {n: node_name(n) for n in nodes}
    with ExitStack() as open_port:
        if first_rank:
            port = open_port.enter_context(answering())
            board.note(f"door/{node}", [board.own_address(), port])
        doors = board.decided("doors", lambda: board.collect("door", nodes, settings.seconds))
        doors = {int(number): door for number, door in doors.items()}
        if missing := [n for n in nodes if n not in doors]:
            why = (
                f"it did not come to the first node within {settings.seconds:g} s: was the command "
                "started there, and what did it print? Is it up, and does it reach the first node?"
            )
            return tell(board, [Problem(names[n], why_missing(n, why)) for n in missing])
        folder = Path(settings.folder).absolute()
        marked = board.decided("mark", lambda: open_port.enter_context(mark(folder)))
        if "why_not" in marked:
            return tell(board, [Problem(names[0], marked["why_not"])])

        if first_rank:
            board.note(f"facts/{node}", facts_here(names[node], settings, marked))
            pings = {n: asdict(ping(*doors[n])) for n in nodes if n != node}
            board.note(f"pings/{node}", pings)
        problems, shown = board.decided(
            "nodes", lambda: judge(board, settings, names), 60 * settings.reading_minutes
        )
    problems = [Problem(*problem) for problem in problems]
    if not problems:
        seconds, why_not = in_time(lambda: all_reduce_check(board), settings.seconds)
        board.note(f"sum/{board.place.rank}", [seconds, why_not, node])
        problems = board.decided("sums", lambda: judge_sums(board, names))
        problems = [Problem(*problem) for problem in problems]
        if not problems and board.place.rank == 0:
            shown += f"\n{sum_line(board.place.ranks, seconds)}"
    return tell(board, problems, shown)


def facts_here(name: str, settings: PreflightArguments, marked: Mapping[str, str]) -> dict:
    """This node's facts, or `why_not`: whatever goes wrong here is for all to know."""
    try:
        folder = Path(settings.folder).absolute()
        data = paths_of(settings.data)
        return asdict(gather_facts(name, folder, data, shared=sees(folder, marked)))
    except UserError as error:
        return {"why_not": str(error)}
    except Exception as error:
        return {"why_not": f"it could not be looked at: {type(error).__name__}: {error}"}


def why_missing(node: int, otherwise: str) -> str:
    """What is known of a node of which no word has come."""
    if node in failed_nodes():
        return "its part of the preflight failed; what it printed there says why"
    return otherwise


def judge(
    board: Board, settings: PreflightArguments, names: Mapping[int, str]
) -> tuple[list[list[str]], str]:
    """What is wrong with which node, and all nodes as text. On rank 0."""
    minutes = 60 * settings.reading_minutes
    told = board.collect("facts", names, minutes)
    why = f"it did not tell its facts within {settings.reading_minutes:g} minutes"
    problems = [Problem(names[n], why_missing(n, why)) for n in names if n not in told]
    problems += [Problem(names[n], f["why_not"]) for n, f in told.items() if "why_not" in f]
    read = {n: as_facts(f) for n, f in told.items() if "why_not" not in f}
    limits = Limits(settings.free_memory, settings.free_disk, settings.free_card)
    problems += compare(read, limits)
    # A node tries each other for a few seconds, whatever is in the way.
    rows = board.collect("pings", list(read), settings.seconds + 10 * len(names))
    pings = {n: {int(to): Ping(**p) for to, p in row.items()} for n, row in rows.items()}
    problems += unreachable(pings, names)
    reached = {n: p for n, p in pings.get(0, {}).items() if not p.why_not}
    problems += compare_clocks(names, {n: p.ahead for n, p in reached.items()}, settings.clock_skew)
    clocks = {0: "+0.000 s"} | {
        n: f"{p.ahead:+.3f} s, {1000 * p.round_trip:.1f} ms away" for n, p in reached.items()
    }
    rows = [node_row(n, facts, clocks.get(n, "?")) for n, facts in sorted(read.items())]
    return [[p.node, p.text] for p in problems], table([HEAD, *rows])


def as_facts(content: dict) -> NodeFacts:
    """Facts as JSON has them."""
    return NodeFacts(**{**content, "cards": tuple(Card(**card) for card in content["cards"])})


def judge_sums(board: Board, names: Mapping[int, str]) -> list[list[str]]:
    """Ranks whose collective failed, or that did not come out of it. On rank 0."""
    place = board.place
    sums = board.collect("sum", range(place.ranks), board.seconds)
    nodes = board.collect("rank", range(place.ranks), 0.0)
    missing = {
        rank: nodes.get(rank, rank * place.nodes // place.ranks)
        for rank in range(place.ranks)
        if rank not in sums
    }
    # Where a node has failed, the others were not waited for.
    failed = {rank: node for rank, node in missing.items() if node in failed_nodes()}
    return [[p.node, p.text] for p in sum_problems(sums, failed or missing, names, backend())]


def sum_problems(
    sums: Mapping[int, tuple[float, str, int]],
    missing: Mapping[int, int],
    names: Mapping[int, str],
    kind: str,
) -> list[Problem]:
    """Those who are missing first; that others hung, waiting for them, is not worth a word then.

    Args:
        sums: by rank: seconds, why it failed ('' where it did not), its node.
        missing: ranks that told nothing, each with its node.
        names: of the nodes.
        kind: the library.
    """
    by_node: dict[int, list[int]] = {}
    for rank, node in sorted(missing.items()):
        by_node.setdefault(node, []).append(rank)
    gone = [
        Problem(
            names[node],
            f"rank {', '.join(map(str, ranks))} did not come out of the all-reduce by {kind}, nor "
            "tell why: was it killed? What it printed there may say",
        )
        for node, ranks in by_node.items()
    ]
    return gone + [
        Problem(
            names[node],
            f"the all-reduce by {kind} failed on rank {rank}: {why_not}. {kind.upper()}"
            "_SOCKET_IFNAME says which interface it uses (ip -br addr); without it, the node's own "
            "name must not stand for 127.0.0.1 in its /etc/hosts",
        )
        for rank, (_, why_not, node) in sorted(sums.items())
        if why_not and not (gone and why_not.startswith(HUNG))
    ]


def sum_line(ranks: int, seconds: float) -> str:
    """What the collective took."""
    size = 4 * ELEMENTS
    rate = bus_bandwidth(size, ranks, seconds) / 1e9
    return (
        f"all-reduce of {size / 2**20:.0f} MiB over {ranks} ranks by {backend()}: "
        f"{1000 * seconds:.0f} ms, {rate:.2f} GB/s"
    )


def tell(board: Board, problems: list[Problem], shown: str = "") -> int:
    """Prints the outcome, problems on every node, and returns the exit code."""
    if board.place.rank == 0 and shown:
        print("\n".join(f"preflight: {line}" for line in shown.splitlines()), flush=True)
    if board.place.local_rank == 0:
        for problem in problems:
            print(f"preflight: error: {problem}", file=sys.stderr, flush=True)
    return 2 if problems else 0


def main() -> None:
    """The process of one rank."""
    quiet_libraries()
    REQUESTS.install()
    try:
        (settings,) = parse_arguments([PreflightArguments], "preflight")
        code = preflight(settings)
    except Stopped:
        code = STOP_CODE
    except (UserError, DistError) as error:
        if isinstance(error, DistError):
            error = "the first node ended before it said why; what it printed there says more"
        here = node_name(Place.from_environment().node)
        print(f"preflight: error: {Problem(here, str(error))}", file=sys.stderr, flush=True)
        code = 2
    leave(code)


if __name__ == "__main__":
    main()
