"""What one node is: its code, its packages, its data, its cards, and what it has free."""

import contextlib
import hashlib
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from common.training.resume.identity import content_hashes
from common.training.versions import package_versions

ROOT = Path(__file__).parents[3]
SOURCES = ("common", "launch", "step1_sft", "step2_reward", "step3_rlhf")
SUFFIXES = (".py", ".sh", ".json", ".yaml", ".sbatch")
GIB = 2**30
MISSING = "missing"
"""Stands for the hash of what is not on a node's disk."""
SECONDS_TO_SHOW = 5.0
"""A file system of several nodes may take so long to show one what another has written."""


@dataclass(frozen=True)
class Card:
    """One GPU as `nvidia-smi` shows it; memory in MiB."""

    name: str
    free: int
    total: int


@dataclass(frozen=True)
class NodeFacts:
    """One node. Hashes are hexadecimal, sizes in GiB."""

    name: str
    """As the hostfile has it."""
    code: dict[str, str] = field(default_factory=dict)
    """Source file, relative to the checkout -> hash."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package -> version; the cards' driver is among them."""
    data: dict[str, str] = field(default_factory=dict)
    """File or folder -> hash of its content, or `MISSING`."""
    cards: tuple[Card, ...] = ()
    memory: float = 0.0
    """Free memory."""
    disks: dict[str, float] = field(default_factory=dict)
    """Folder -> room on its file system."""
    elsewhere: str = ""
    """The folder that takes the run, where it is not the first node's."""


def gather_facts(name: str, folder: Path, data: Sequence[str], *, shared: bool = True) -> NodeFacts:
    """Looks at this node.

    Args:
        name: this node's, for the result.
        folder: takes the run; room is looked for there and in the folder of temporary files.
        data: files and folders; names that are on no node's disk are taken for the hub's.
        shared: whether the folder is the first node's.
    """
    import psutil

    cards, driver = read_cards()
    places = dict.fromkeys([str(folder)] * shared + [tempfile.gettempdir()])
    if cards and Path("/dev/shm").is_dir():
        places["/dev/shm"] = None  # NCCL's ranks of one node meet there; containers have 64 MiB
    return NodeFacts(
        name,
        code=code_hashes(ROOT),
        versions={**package_versions(), **driver},
        data=data_hashes(data),
        cards=cards,
        memory=psutil.virtual_memory().available / GIB,
        disks={place: shutil.disk_usage(place).free / GIB for place in places},
        elsewhere="" if shared else str(folder),
    )


@contextlib.contextmanager
def mark(folder: Path) -> Iterator[dict[str, str]]:
    """Leaves a small file in the folder for the other nodes to find; yields what `sees` needs.

    Where it cannot be written, `why_not` is yielded instead.
    """
    file, content = folder / f".preflight-{secrets.token_hex(8)}", secrets.token_hex(8)
    try:
        try:
            file.write_text(content)
        except OSError as error:
            why_not = f"nothing can be written into {folder} ({error.strerror}): is it there?"
            yield {"why_not": why_not}
        else:
            yield {"name": file.name, "content": content}
    finally:
        with contextlib.suppress(OSError):
            file.unlink()


def sees(folder: Path, marked: Mapping[str, str]) -> bool:
    """Whether the first node's `mark` is in this node's folder of the same name."""
    deadline = time.monotonic() + SECONDS_TO_SHOW
    while True:
        with contextlib.suppress(OSError, UnicodeDecodeError):
            if (folder / marked["name"]).read_text() == marked["content"]:
                return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)


def code_hashes(root: Path) -> dict[str, str]:
    """Every source file below `root` -> the first 16 digits of its SHA-256.

    Read from the disk: a checkout on a node need not be a git one.
    """
    files = sorted(
        file
        for folder in SOURCES
        for file in (root / folder).rglob("*")
        if file.suffix in SUFFIXES and file.is_file()
    )
    return {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for file in files
    }


def data_hashes(paths: Sequence[str]) -> dict[str, str]:
    """Path -> hash of its content, or `MISSING`.

    All of it is read: the run's own notes of what was read before are in a folder that the nodes
    share, and another node's file may be as long and as old.
    """
    with tempfile.TemporaryDirectory() as nothing_noted:
        found = content_hashes(paths, Path(nothing_noted))
    return {path: MISSING if digest == "hub" else digest for path, digest in found.items()}


def digest(hashes: dict[str, str]) -> str:
    """Eight digits for all of them."""
    lines = "".join(f"{name} {value}\n" for name, value in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:8]


def read_cards() -> tuple[tuple[Card, ...], dict[str, str]]:
    """This node's GPUs and the versions that belong to them; nothing where there are none."""
    query = ["--query-gpu=name,memory.free,memory.total,driver_version"]
    try:
        shown = subprocess.run(
            ["nvidia-smi", *query, "--format=csv,noheader,nounits"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return (), {}
    cards, driver = parse_cards(shown)
    if not cards:
        return (), {}
    import torch

    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.cuda.is_available() else MISSING
    return cards, {"driver": driver, "cuda": torch.version.cuda or MISSING, "nccl": nccl}


def parse_cards(shown: str) -> tuple[tuple[Card, ...], str]:
    """The cards, and the driver's version, in `nvidia-smi`'s lines "name, free, total, driver"."""
    rows = [[part.strip() for part in line.split(",")] for line in shown.splitlines()]
    rows = [row for row in rows if len(row) == 4 and row[1].isdigit() and row[2].isdigit()]
    return tuple(Card(r[0], int(r[1]), int(r[2])) for r in rows), rows[0][3] if rows else ""
