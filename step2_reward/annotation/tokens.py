"""Secret links: one per labeler, another for the project page. Who holds the link is let in."""

import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Sequence
from pathlib import Path

from common.errors import UserError
from common.files import write_json, write_text

MOST_NAME = 60
"""Characters of a labeler's name."""


class Tokens:
    """Whom a token belongs to. In memory are hashes only, each compared in constant time."""

    def __init__(self, project: str, labelers: dict[str, str]) -> None:
        """Args:
        project: token of the project page.
        labelers: name -> token.
        """
        self._project = _hash(project)
        self._labelers = {name: _hash(token) for name, token in labelers.items()}

    def is_project(self, token: str) -> bool:
        """Whether this is the project page's token."""
        return hmac.compare_digest(self._project, _hash(token))

    def labeler(self, token: str) -> str | None:
        """The labeler whose token this is; all are compared, whichever it is."""
        given, found = _hash(token), None
        for name, kept in self._labelers.items():
            if hmac.compare_digest(kept, given):
                found = name
        return found


def check_names(names: Sequence[str]) -> None:
    """Refuses labelers' names that cannot be told apart or shown.

    Raises:
        UserError: says which.
    """
    seen: set[str] = set()
    for name in names:
        if not name.strip() or name != name.strip() or not name.isprintable():
            raise UserError(f"labelers: {name!r} is no name; use letters, digits and the like")
        if len(name) > MOST_NAME:
            raise UserError(f"labelers: '{name[:20]}…' is longer than {MOST_NAME} characters")
        if name.casefold() in seen:
            raise UserError(f"labelers: '{name}' is there twice")
        seen.add(name.casefold())


def read_or_make(folder: Path, labelers: Sequence[str]) -> dict[str, str]:
    """Tokens of the labelers, and under "" the project page's, from `tokens.json` in the folder.

    Missing ones are made. To lock a lost link out, take its line out of the file and start anew.
    Only the user may read the file.

    Raises:
        UserError: the file is not as this function writes it.
    """
    path = folder / "tokens.json"
    tokens: dict[str, str] = {}
    if path.is_file():
        try:
            tokens = json.loads(path.read_text(encoding="utf-8"))
            sound = all(isinstance(v, str) and len(v) >= 32 for v in tokens.values())
        except (ValueError, AttributeError):
            sound = False
        if not sound:
            raise UserError(
                f"{path}: not a file of tokens; take it away, and everybody gets a new link"
            )
    missing = [name for name in ("", *labelers) if name not in tokens]
    if missing:
        tokens |= {name: secrets.token_urlsafe(32) for name in missing}
        with _private():
            write_json(path, tokens)
    return {name: tokens[name] for name in ("", *labelers)}


def write_links(folder: Path, address: str, tokens: dict[str, str]) -> Path:
    """`links.txt`: what to send to whom. The secret stands behind #, which no browser sends on.

    Returns:
        The file; only the user may read it.
    """
    lines = [f"project page\t{address}/project#{tokens['']}"]
    lines += [f"{name}\t{address}/#{token}" for name, token in tokens.items() if name]
    path = folder / "links.txt"
    with _private():
        write_text(path, "\n".join(lines) + "\n")
    return path


class _private:  # noqa: N801
    """Files made inside can be read by their owner only."""

    def __enter__(self) -> None:
        self._before = os.umask(0o077)

    def __exit__(self, *_: object) -> None:
        os.umask(self._before)


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
