"""The documents of a segment: an SQLite file with their ids, texts and metadata, the metadata's fields and the texts' words."""

from __future__ import annotations

import json
import math
import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidRequest

__all__ = ["DOCUMENTS", "FIELD_CHARACTERS", "Document", "Rows", "plain", "writing"]

DOCUMENTS = "documents.sqlite"
FIELD_CHARACTERS = 256  # of a metadata value are compared by a filter
_DEPTH = 4
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")
_TABLES = """
CREATE TABLE documents (row INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, text TEXT NOT NULL, metadata TEXT NOT NULL);
CREATE TABLE fields (field TEXT NOT NULL, value NOT NULL, row INTEGER NOT NULL, PRIMARY KEY (field, value, row)) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5(text, content='documents', content_rowid='row', tokenize='unicode61 remove_diacritics 2');
CREATE TEMP TABLE unsorted (field, value, row);
"""
_INDEXES = """
INSERT INTO fields SELECT DISTINCT field, value, row FROM unsorted ORDER BY field, value, row;
INSERT INTO words (words) VALUES ('rebuild');
INSERT INTO words (words) VALUES ('optimize');
"""


@dataclass(frozen=True)
class Document:
    """What is indexed: an id, the text that is embedded, and metadata that JSON can hold."""

    id: str
    text: str
    metadata: Mapping[str, Any]


class Rows:
    """A new file of documents; rows count from 0 in the order in which they are added."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self.count = 0

    def add(self, batch: Sequence[Document]) -> None:
        """Add documents. Raises InvalidRequest for an id that is there already."""
        for row, document in enumerate(batch, self.count):
            metadata = plain(document.metadata)
            values = (row, document.id, document.text, json.dumps(metadata, ensure_ascii=False))
            try:
                self._database.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", values)
            except sqlite3.IntegrityError:
                raise InvalidRequest(
                    f"two documents have the id {document.id[:100]!r}",
                    field="dataset.loader_kwargs.id_column",
                    remedy="Name a column whose values are all different, or leave it out to number the rows.",
                ) from None
            found = ((field, value, row) for field, value in _fields(metadata))
            self._database.executemany("INSERT INTO unsorted VALUES (?, ?, ?)", found)
        self.count += len(batch)


@contextmanager
def writing(path: Path) -> Iterator[Rows]:
    """A new file of documents at `path`, complete when the block ends without an error."""
    database = sqlite3.connect(path, isolation_level=None)
    try:
        # A build that is killed leaves no manifest, so the database needs no journal of its own.
        database.executescript(f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; {_TABLES} BEGIN;")
        yield Rows(database)
        database.executescript(f"BEGIN; {_INDEXES} COMMIT")  # it commits what is open first
    finally:
        database.close()


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numbers that are not finite become null, anything unknown (a date, a decimal) its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | bool | int) else str(value)


def _fields(value: Any, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """What filters see of metadata: `a.b` for what is nested, each item of a list, and a number also where it came as text."""
    if isinstance(value, dict) and depth < _DEPTH:
        for key, item in value.items():
            yield from _fields(item, f"{name}.{key}" if name else key, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _fields(item, name, depth + 1) if not isinstance(item, list | dict) else ()
    elif isinstance(value, str):
        yield name, value[:FIELD_CHARACTERS]
        if _NUMBER.fullmatch(value):  # CSV has no numbers
            yield name, float(value) if "." in value else int(value)
    elif isinstance(value, int | float) and (isinstance(value, float) or abs(value) < 2**63):
        yield name, value
