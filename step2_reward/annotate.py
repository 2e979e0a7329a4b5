"""A web page on which people rank samples, and the export of what they ranked (paper §3.2, §4.1).

Not a stage that ends by itself: it serves until it is stopped, and the same command goes on.
"""

import ipaddress
import re
import secrets
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from common.config.arguments import check_range, option
from common.config.parsing import parse_arguments
from common.errors import UserError
from common.files import take_lock
from step2_reward.annotation.changes import gold_file_of, say_changes
from step2_reward.annotation.export import check_export, write_export
from step2_reward.annotation.items import read_items
from step2_reward.annotation.project import Project, Rules
from step2_reward.annotation.server import build_app, listen, serve
from step2_reward.annotation.storage import Storage
from step2_reward.annotation.tokens import Tokens, check_names, read_or_make, write_links

EVERY_ADDRESS = {"0.0.0.0": "192.0.2.1", "::": "2001:db8::1"}
"""Hosts that stand for all addresses of this machine, by which nobody finds it; and for each an
address outside (RFC 5737, RFC 3849: nobody's)."""


@dataclass
class AnnotateArguments:
    """A labeling project."""

    HARMLESS: ClassVar = ("run", "host", "port", "allow_remote", "address", "export")

    run: str = option("runs/default", "folder of the run; the project lives in RUN/annotate")
    seed: int = option(0, "the order of responses on each labeler's page derives from it")
    samples: str = option("", "file of samples; by default RUN/sample/samples.jsonl")
    labelers: list[str] = option([], "names of the people who label; each gets a personal link")
    labelers_per_prompt: int = option(3, "different people who rank each prompt (paper: 3)")
    lease_minutes: float = option(
        30.0, "a prompt that was opened and then left alone so long goes to somebody else"
    )
    gold: str = option("", "file of gold questions: samples with a known order in `orders`")
    gold_every: int = option(10, "ordinary prompts per gold question, for each labeler")
    ask_ratings: bool = option(
        False, "ratings on the eight criteria are wanted: the page opens their boxes"
    )
    host: str = option("127.0.0.1", "address to listen on; another than loopback: allow_remote")
    port: int = option(8765, "port to listen on; 0 takes any that is free")
    allow_remote: bool = option(False, "let other machines connect; read the warning")
    address: str = option(
        "", "where labelers find the page, when a proxy stands before it: https://label.example.org"
    )
    export: str = option("", "write the rankings so far to this file, and end (no server)")

    def __post_init__(self) -> None:
        check_range(self, 1, "labelers_per_prompt", "gold_every")
        check_range(self, 0, "lease_minutes", above=True)
        check_range(self, 0, "port")
        if not self.run:
            raise UserError("run is empty, but must name a folder")
        check_names(self.labelers)
        if not self.export and not self.labelers:
            raise UserError("labelers names nobody; name them: --labelers anna ben carla")
        if self.address and not re.fullmatch(r"https?://[\w.-]+(:\d+)?", self.address):
            raise UserError(
                f"address is {self.address}, but must be like https://label.example.org, without a "
                "path"
            )
        if not self.allow_remote and not is_loopback(self.host):
            raise UserError(
                f"host is {self.host}, which other machines can reach; if that is meant, add "
                "--allow_remote true; safer is an SSH tunnel or a proxy with TLS to 127.0.0.1"
            )


def main(settings: AnnotateArguments) -> None:
    """Serves the project, or exports it; the arguments' docstring says what each does."""
    folder = Path(settings.run) / "annotate"
    samples = settings.samples or str(Path(settings.run) / "sample" / "samples.jsonl")
    database = folder / "labels.sqlite"
    if settings.export and not database.is_file():
        raise UserError(f"{database}: there is no labeling project in this run to export")
    items = read_items(Path(samples))
    gold = read_items(Path(settings.gold), gold=True) if settings.gold else []
    storage = Storage(database)
    if settings.export:
        reads = [samples, settings.gold, gold_file_of(storage)]
        check_export(storage, Path(settings.export), Path(settings.run), reads)
    else:
        lock = take_lock(folder / ".lock")
    rules = Rules(
        settings.labelers_per_prompt,
        settings.lease_minutes * 60,
        settings.gold_every,
        settings.seed,
        settings.ask_ratings,
    )
    project = Project(items, gold, storage, rules)
    if settings.export:
        say(write_export(project, Path(settings.export)))
        return
    say_team(settings, project.storage)
    listener = listen(settings.host, settings.port)
    say_changes(project, str(Path(settings.gold).resolve()) if settings.gold else "", say)
    if project.left_out:
        say(
            f"{project.left_out} of the prompts are gold questions too: they are asked as such "
            "only, and are not in the export"
        )
    address = address_of(settings, listener.getsockname()[1])
    tokens = read_or_make(folder, settings.labelers)
    links = write_links(folder, address, tokens)
    app = build_app(
        project,
        Tokens(tokens[""], {name: token for name, token in tokens.items() if name}),
        settings.labelers,
        project.storage.note("identity", secrets.token_hex(4)),
    )
    if not is_loopback(settings.host):
        say(
            "WARNING: other machines can reach this page, and links and answers travel in the "
            "clear; put a proxy with TLS before it unless you trust the whole network"
        )
    say(f"{len(project.samples)} prompts, {len(project.gold)} gold questions, at {address}")
    say(f"everybody's personal link, and the project page's: {links}")
    say("stop with Ctrl-C; the same command goes on")
    # The first look at a large project takes seconds: nobody need wait for it.
    threading.Thread(target=app.state.figures.now, daemon=True).start()
    try:
        serve(app, listener, address, remote=settings.allow_remote)
    finally:
        project.storage.close()
        lock.close()


def say_team(settings: AnnotateArguments, storage: Storage) -> None:
    """Checks that there are people enough, and gives back what those who left had begun.

    Who has left counts: some prompts have their answer already.

    Raises:
        UserError: too few people, or one whose name is written in another way than before, who
            would get the same prompts again.
    """
    names, before = settings.labelers, storage.labelers()
    known = {name.casefold(): name for name in before}
    for name in names:
        if known.get(name.casefold(), name) != name:
            raise UserError(
                f"labelers names '{name}', but '{known[name.casefold()]}' has answered here; write "
                "the name as it was"
            )
    gone = [name for name in before if name not in names]
    if len(names) + len(gone) < settings.labelers_per_prompt:
        raise UserError(
            f"labelers names {len(names)} people, but {settings.labelers_per_prompt} rank each "
            "prompt; name as many (--labelers anna ben carla), or lower --labelers_per_prompt"
        )
    storage.clear_desks(names)
    if gone:
        say(f"without a link from now on, though they have answered: {', '.join(gone)}")
    if len(names) < settings.labelers_per_prompt:
        say(
            f"WARNING: {settings.labelers_per_prompt} rank each prompt, and {len(names)} have a "
            "link: prompts that none of those who left has ranked stay incomplete until somebody "
            "joins"
        )


def address_of(settings: AnnotateArguments, port: int) -> str:
    """Where labelers find the page."""
    host = settings.host
    if host in EVERY_ADDRESS:
        host = own_address(EVERY_ADDRESS[host]) or host
    return settings.address or f"http://{f'[{host}]' if ':' in host else host}:{port}"


def own_address(outside: str) -> str | None:
    """This machine's address as seen from the network; None when there is no way out.

    Args:
        outside: an address that the way out is looked up for; nothing is sent there.
    """
    family = socket.AF_INET6 if ":" in outside else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as way_out:
            way_out.connect((outside, 9))
            return way_out.getsockname()[0]
    except OSError:
        return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect there."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def say(text: str) -> None:
    """One line on the terminal."""
    print(f"annotate: {text}", flush=True)


if __name__ == "__main__":
    try:
        main(*parse_arguments((AnnotateArguments,), "annotate"))
    except UserError as error:
        print(f"annotate: error: {error}", file=sys.stderr)
        sys.exit(2)
