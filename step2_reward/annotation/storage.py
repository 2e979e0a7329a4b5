"""The labeling project's database: SQLite, where every acknowledged answer is on the disk.

WAL and `synchronous=FULL`: a commit returns when the log has been synced, so a server killed the
moment after loses nothing, and one killed before leaves nothing half. Each answer is one
transaction, and its id is unique: a page that had no reply may send it again.
"""

import json
import sqlite3
import threading
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import UserError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS project (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS desks (
    item TEXT NOT NULL,
    labeler TEXT NOT NULL,
    shown TEXT NOT NULL,        -- JSON: number of the response at each place of the page
    begun REAL NOT NULL,
    until REAL NOT NULL,        -- the place is free again from then on, unless answered
    answered INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (item, labeler)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS answers (
    answer_id TEXT PRIMARY KEY,
    item TEXT NOT NULL,
    labeler TEXT NOT NULL,
    revision INTEGER NOT NULL,  -- 1 is the first answer; later ones correct it, all are kept
    content TEXT NOT NULL,      -- JSON, see answers.content_of
    begun REAL NOT NULL,
    saved REAL NOT NULL,
    UNIQUE (item, labeler, revision)
);
CREATE INDEX IF NOT EXISTS answers_of_labeler ON answers (labeler, saved);
CREATE INDEX IF NOT EXISTS open_desks ON desks (labeler, until) WHERE NOT answered;
"""


class NotYours(Exception):
    """The labeler has no place at this prompt (any longer)."""


class OtherContent(Exception):
    """An answer with this id was saved before, and was another one."""


@dataclass(frozen=True)
class Desk:
    """A labeler's place at a prompt."""

    item: str
    labeler: str
    shown: tuple[int, ...]
    begun: float
    until: float
    answered: bool


@dataclass(frozen=True)
class Saved:
    """An answer that is in the database; times are seconds since 1970."""

    item: str
    labeler: str
    revision: int
    content: dict[str, Any]
    begun: float
    saved: float


class Storage:
    """One connection, used by one thread at a time; SQLite itself keeps out other processes.

    Who has answered what is kept in memory as well, for it is asked at every prompt: one process
    alone may save (`annotate.py` holds a lock), others only read.
    """

    def __init__(self, path: Path) -> None:
        """Opens the database, or makes it.

        Raises:
            UserError: the file is no database of ours, or the disk refuses.
        """
        self._lock = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Transactions are begun by hand: the module's own ways differ between versions.
            self._db = sqlite3.connect(
                path, timeout=30, isolation_level=None, check_same_thread=False
            )
            path.chmod(0o600)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.executescript(_SCHEMA)
            done = self._db.execute("SELECT labeler, item FROM desks WHERE answered").fetchall()
        except (sqlite3.Error, OSError) as error:  # the latter: the file is another user's
            raise UserError(f"{path}: the database cannot be opened: {error}") from None
        self._answered = Counter(item for _, item in done)
        self._answered_by: dict[str, set[str]] = defaultdict(set)
        for labeler, item in done:
            self._answered_by[labeler].add(item)

    def close(self) -> None:
        """Ends the connection; what was acknowledged is on the disk already."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk may have ended it
                    self._db.execute("ROLLBACK")
                raise

    def note(self, name: str, value: str) -> str:
        """Keeps a fact of the project when there is none of this name; returns the one kept."""
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO project VALUES (?, ?)", (name, value))
            return db.execute("SELECT value FROM project WHERE name = ?", (name,)).fetchone()[0]

    def read_note(self, name: str) -> str | None:
        """A fact of the project; None when there is none of this name."""
        with self._lock:
            row = self._db.execute("SELECT value FROM project WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def change_note(self, name: str, value: str) -> str | None:
        """Keeps a fact of the project in place of the one before, and returns that."""
        before = self.read_note(name)
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO project VALUES (?, ?)", (name, value))
        return before

    def open_desks(self, labeler: str, now: float) -> list[Desk]:
        """What a labeler is at work on: neither answered nor timed out, the oldest first.

        It is one prompt, but for gold questions that have been withdrawn or given back since.
        """
        with self._lock:
            rows = self._db.execute(
                "SELECT * FROM desks WHERE labeler = ? AND NOT answered AND until > ? "
                "ORDER BY begun",
                (labeler, now),
            ).fetchall()
        return [_desk(row) for row in rows]

    def clear_desks(self, labelers: Collection[str]) -> None:
        """Gives back what others than these have begun and not answered."""
        with self._transaction() as db:
            db.execute(
                "UPDATE desks SET until = 0 WHERE NOT answered "
                "AND labeler NOT IN (SELECT value FROM json_each(?))",
                (json.dumps(list(labelers)),),
            )

    def desk(self, item: str, labeler: str) -> Desk | None:
        """The place that a labeler has, or had, at a prompt."""
        with self._lock:
            row = self._db.execute(
                "SELECT * FROM desks WHERE item = ? AND labeler = ?", (item, labeler)
            ).fetchone()
        return _desk(row) if row else None

    def labelers(self) -> list[str]:
        """Everybody who has answered anything, by name."""
        with self._lock:
            return sorted(name for name, items in self._answered_by.items() if items)

    def answered_by(self, labeler: str) -> set[str]:
        """Keys of the prompts that a labeler has answered."""
        with self._lock:
            return set(self._answered_by[labeler])

    def taken(self, now: float, but: str = "") -> dict[str, int]:
        """Places per prompt that are answered, or on the desk of a labeler other than `but`."""
        with self._lock:
            rows = self._db.execute(
                "SELECT item, COUNT(*) FROM desks "
                "WHERE NOT answered AND until > ? AND labeler != ? GROUP BY item",
                (now, but),
            ).fetchall()
            taken = dict(self._answered)
        for item, desks in rows:
            taken[item] = taken.get(item, 0) + desks
        return taken

    def times_answered(self, item: str) -> int:
        """Places at a prompt that are answered."""
        with self._lock:
            return self._answered[item]

    def take(
        self,
        item: str,
        labeler: str,
        shown: list[int],
        now: float,
        until: float,
        places: int | None,
    ) -> Desk | None:
        """Gives a labeler a place at a prompt, if one of its `places` is free (None: no limit).

        Who comes back after the time ran out sees the same order as before.
        """
        with self._transaction() as db:
            if not _has_place(db, item, labeler, now, places):
                return None
            db.execute(
                "INSERT INTO desks VALUES (?, ?, ?, ?, ?, 0) ON CONFLICT (item, labeler) "
                "DO UPDATE SET begun = excluded.begun, until = excluded.until WHERE NOT answered",
                (item, labeler, json.dumps(shown), now, until),
            )
            row = db.execute(
                "SELECT * FROM desks WHERE item = ? AND labeler = ?", (item, labeler)
            ).fetchone()
        return _desk(row)

    def extend(self, item: str, labeler: str, now: float, until: float) -> bool:
        """Keeps the place of a labeler who is still at work; False when it has timed out."""
        with self._transaction() as db:
            changed = db.execute(
                "UPDATE desks SET until = ? "
                "WHERE item = ? AND labeler = ? AND (answered OR until > ?)",
                (until, item, labeler, now),
            )
            return changed.rowcount == 1

    def save(
        self,
        answer_id: str,
        item: str,
        labeler: str,
        content: dict[str, Any],
        now: float,
        places: int | None,
    ) -> tuple[Saved, bool]:
        """Makes an answer durable. An id that is known already changes nothing.

        Whose time ran out may still answer as long as nobody else has got the place.

        Args:
            places: that the prompt has (None: no limit).

        Returns:
            (the answer as it is in the database, whether it is new).

        Raises:
            NotYours: the prompt was never given to this labeler, or to another one meanwhile.
            OtherContent: the id was used for something else.
        """
        with self._transaction() as db:
            row = db.execute(
                "SELECT item, labeler, revision, content, begun, saved FROM answers "
                "WHERE answer_id = ?",
                (answer_id,),
            ).fetchone()
            if row:
                before = _saved(row)
                if (before.item, before.labeler, before.content) != (item, labeler, content):
                    raise OtherContent
                return before, False
            desk = db.execute(
                "SELECT begun, answered FROM desks WHERE item = ? AND labeler = ?", (item, labeler)
            ).fetchone()
            if not desk or not (desk[1] or _has_place(db, item, labeler, now, places)):
                raise NotYours
            (revision,) = db.execute(
                "SELECT COALESCE(MAX(revision), 0) + 1 FROM answers WHERE item = ? AND labeler = ?",
                (item, labeler),
            ).fetchone()
            values = (item, labeler, revision, json.dumps(content), desk[0], now)
            db.execute("INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", (answer_id, *values))
            db.execute(
                "UPDATE desks SET answered = 1 WHERE item = ? AND labeler = ?", (item, labeler)
            )
        with self._lock:  # behind the commit: what failed is not counted
            if item not in self._answered_by[labeler]:
                self._answered_by[labeler].add(item)
                self._answered[item] += 1
        return _saved(values), True

    def answers(self) -> list[Saved]:
        """The last revision of every answer, oldest first."""
        return self._last_revisions("TRUE")

    def answers_before(self, labeler: str, saved: float, item: str, most: int) -> list[Saved]:
        """The last revisions of a labeler's answers, newest first, from a place in that list on.

        Args:
            saved, item: of the answer behind which they begin; infinity: at the newest.
            most: so many at most.
        """
        with self._lock:
            rows = self._db.execute(
                "SELECT item, labeler, revision, content, begun, saved FROM answers AS a "
                "WHERE labeler = ? AND (saved, item) < (?, ?) AND NOT EXISTS (SELECT 1 FROM "
                "answers WHERE item = a.item AND labeler = a.labeler AND revision > a.revision) "
                "ORDER BY saved DESC, item DESC LIMIT ?",
                (labeler, saved, item, most),
            ).fetchall()
        return [_saved(row) for row in rows]

    def answers_since(self, number: int) -> tuple[int, list[Saved]]:
        """All revisions that came after a number, in their order; and the number to go on with.

        Args:
            number: as this returned it before; 0: from the first on.
        """
        with self._lock:
            rows = self._db.execute(
                "SELECT rowid, item, labeler, revision, content, begun, saved FROM answers "
                "WHERE rowid > ? ORDER BY rowid",
                (number,),
            ).fetchall()
        return (rows[-1][0] if rows else number), [_saved(row[1:]) for row in rows]

    def answer(self, item: str, labeler: str) -> Saved | None:
        """The last revision of a labeler's answer to a prompt."""
        found = self._last_revisions("item = ? AND labeler = ?", item, labeler)
        return found[0] if found else None

    def _last_revisions(self, condition: str, *values: str) -> list[Saved]:
        with self._lock:
            # Beside MAX() SQLite gives the other columns of that very row.
            rows = self._db.execute(
                "SELECT item, labeler, MAX(revision), content, begun, saved FROM answers "
                f"WHERE {condition} GROUP BY item, labeler ORDER BY saved",
                values,
            ).fetchall()
        return [_saved(row) for row in rows]


def _has_place(
    db: sqlite3.Connection, item: str, labeler: str, now: float, places: int | None
) -> bool:
    """Whether others leave a place at a prompt: by answers, and by desks not timed out."""
    if places is None:
        return True
    (others,) = db.execute(
        "SELECT COUNT(*) FROM desks WHERE item = ? AND labeler != ? AND (answered OR until > ?)",
        (item, labeler, now),
    ).fetchone()
    return others < places


def _desk(row: tuple[Any, ...]) -> Desk:
    item, labeler, shown, begun, until, answered = row
    return Desk(item, labeler, tuple(json.loads(shown)), begun, until, bool(answered))


def _saved(row: tuple[Any, ...]) -> Saved:
    item, labeler, revision, content, begun, saved = row
    return Saved(item, labeler, revision, json.loads(content), begun, saved)
