"""The embedded document store: one SQLite file, safe for many threads and processes of one machine."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import StoreAway
from . import INDEXED, Between, Stored

__all__ = ["SqliteDocuments"]

_BUSY_SECONDS = 15.0


class SqliteDocuments:
    """Documents in the SQLite file at `path`, which is made if it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._local = threading.local()
        self._connections: list[tuple[sqlite3.Connection, threading.Lock]] = []
        self._lock = threading.Lock()

    def insert(self, collection: str, key: str, body: Mapping[str, Any], *, after: int = 0) -> bool:
        with self._connection() as connection:
            cursor = connection.execute(
                "INSERT INTO documents (collection, key, revision, created, body) VALUES (?, ?, 1, ?, ?) ON CONFLICT DO NOTHING",
                (collection, key, max(time.time_ns(), after + 1), json.dumps(body)),
            )
            return cursor.rowcount == 1

    def get(self, collection: str, key: str) -> Stored | None:
        with self._connection() as connection:
            row = connection.execute(
                "SELECT key, revision, created, body FROM documents WHERE collection = ? AND key = ?", (collection, key)
            ).fetchone()
        return _stored(row) if row else None

    def replace(self, collection: str, stored: Stored, body: Mapping[str, Any]) -> bool:
        with self._connection() as connection:
            cursor = connection.execute(
                "UPDATE documents SET body = ?, revision = revision + 1 WHERE collection = ? AND key = ? AND revision = ?",
                (json.dumps(body), collection, stored.key, stored.revision),
            )
            return cursor.rowcount == 1

    def find(self, collection: str, match: Mapping[str, Any], *, limit: int = 100, before: str | None = None) -> list[Stored]:
        where, values = _where(collection, match)
        if before:
            created, _, key = before.partition(":")
            where += " AND (created, key) < (?, ?)"
            values += [int(created), key]
        query = f"SELECT key, revision, created, body FROM documents WHERE {where} ORDER BY created DESC, key DESC LIMIT ?"  # noqa: S608 - fields are checked, values are bound
        with self._connection() as connection:
            return [_stored(row) for row in connection.execute(query, (*values, limit))]

    def count(self, collection: str, match: Mapping[str, Any]) -> int:
        where, values = _where(collection, match)
        with self._connection() as connection:  # every document has a `created`; naming it makes the planner take the field's index
            return int(connection.execute(f"SELECT count(*) FROM documents WHERE {where} AND created > 0", values).fetchone()[0])  # noqa: S608 - as above

    def close(self) -> None:
        with self._lock:
            opened, self._connections = self._connections, []
            self._local = threading.local()  # first: threads that go on take new ones, and do not keep these from being closed
        for connection, used in opened:
            with used:  # closing a connection that another thread works with crashes the process
                connection.close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            connection, used = getattr(self._local, "connection", None) or self._open()
            with used, connection:
                yield connection
        except (sqlite3.OperationalError, sqlite3.DatabaseError, OSError) as error:
            raise StoreAway("the document store cannot be used now") from error

    def _open(self) -> tuple[sqlite3.Connection, threading.Lock]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self._path, timeout=_BUSY_SECONDS, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        with connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS documents (collection TEXT, key TEXT, revision INTEGER NOT NULL, created INTEGER NOT NULL,"
                " body TEXT NOT NULL, PRIMARY KEY (collection, key)) WITHOUT ROWID"
            )
            connection.execute("CREATE INDEX IF NOT EXISTS by_created ON documents (collection, created, key)")
            for field in sorted({field for fields in INDEXED.values() for field in fields}):
                # Of every collection, and in the order of `find`: an index of one collection loses to the primary key.
                column = f"json_extract(body, '$.{_plain(field)}')"
                connection.execute(
                    f"CREATE INDEX IF NOT EXISTS by_{field} ON documents (collection, {column}, created, key) WHERE {column} IS NOT NULL"
                )
        made = (connection, threading.Lock())
        with self._lock:
            self._connections.append(made)
            self._local.connection = made
        return made


def _where(collection: str, match: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """The condition for documents that match, and the values of its question marks."""
    where, values = ["collection = ?"], [collection]
    for field, value in match.items():
        column = f"json_extract(body, '$.{_plain(field)}')"
        if isinstance(value, tuple):
            where.append(f"{column} IN ({', '.join('?' * len(value))})")
            values += value
            continue
        ends = ((">=", value.low), ("<", value.high)) if isinstance(value, Between) else (("=", value),)
        if isinstance(value, Between):
            where.append(f"typeof({column}) = 'text'")
        for sign, end in ends:
            if end is not None:
                where.append(f"{column} {sign} ?")
                values.append(end)
    return " AND ".join(where), values


def _stored(row: tuple[str, int, int, str]) -> Stored:
    return Stored(row[0], row[1], row[2], json.loads(row[3]))


def _plain(field: str) -> str:
    if not field.replace("_", "").replace(".", "").isalnum():
        raise ValueError(f"not a field name: {field}")
    return field
