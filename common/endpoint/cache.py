"""Every answer that a judge gave, on the disk before it is used: nothing is paid for twice."""

import hashlib
import json
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError

_TABLES = """
CREATE TABLE IF NOT EXISTS requests (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, sent TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE IF NOT EXISTS answers (
    key TEXT PRIMARY KEY, tokens INTEGER NOT NULL, answer TEXT NOT NULL, request TEXT NOT NULL);
-- Before every request costs are summed, which should read no answers.
CREATE INDEX IF NOT EXISTS costs ON answers (tokens);
"""


@dataclass(frozen=True)
class Spent:
    """What the answers in a cache have cost, tries that failed included."""

    requests: int
    tokens: int
    """Of prompts and answers, as the endpoint counts them; 0 for what it does not."""


def key_of(url: str, body: dict[str, Any]) -> str:
    """Under what an answer is found again: the endpoint, the model, the messages, the settings."""
    text = json.dumps([url, body], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class AnswerCache:
    """An SQLite file of requests that were sent and of the answers that came; safe in threads.

    Each is a transaction of its own and on the disk before the call returns. It holds no keys of
    APIs: they are in no body.
    """

    def __init__(self, path: Path) -> None:
        """Raises:
        UserError: the file is no such cache, or is in use by another process for long.
        """
        self.path = path
        self._lock = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._file = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
        except sqlite3.OperationalError as error:
            raise _refusal(path, error) from None
        try:
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=FULL")
            self._file.executescript(_TABLES)
            self.spent()
        except sqlite3.DatabaseError as error:
            self._file.close()
            raise _refusal(path, error) from None

    def close(self) -> None:
        """Lets go of the file."""
        self._file.close()

    def find(self, key: str) -> str | None:
        """The answer under this key."""
        row = self._run("SELECT answer FROM answers WHERE key = ?", key)
        return row[0] if row else None

    def note_request(self, key: str) -> None:
        """Notes that a request goes out: it may cost something even if no answer comes."""
        self._run("INSERT INTO requests (key) VALUES (?)", key)

    def keep(self, key: str, url: str, body: dict[str, Any], answer: str, tokens: int) -> None:
        """Keeps an answer, with what was asked.

        One that is there already, and was of no use, is laid aside: it counts among the costs.
        """
        request = json.dumps({"endpoint": url, **body})
        aside = "UPDATE answers SET key = key || ' laid aside ' || hex(randomblob(8)) WHERE key = ?"
        self._run(aside, key)
        self._run("INSERT INTO answers VALUES (?, ?, ?, ?)", key, tokens, answer, request)

    def spent(self) -> Spent:
        """Of all that the file holds, whichever command asked for it, also one at work now."""
        (requests,) = self._run("SELECT coalesce(max(id), 0) FROM requests")  # none is ever deleted
        (tokens,) = self._run("SELECT coalesce(sum(tokens), 0) FROM answers")
        return Spent(requests, tokens)

    def _run(self, statement: str, *values: Any) -> Any:  # noqa: ANN401
        with self._lock:
            return self._file.execute(statement, values).fetchone()


def _refusal(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path}: is no cache of answers that can be read ({error}); move it away, or name another "
        "with --cache"
    )
