"""Lexical search: documents that share words with a text, ranked by BM25 (SQLite FTS5)."""

from __future__ import annotations

import re
import sqlite3
import unicodedata

from .filters import Filter
from .segment import Segment

__all__ = ["ranked"]

_WORD = re.compile(r"\w+")
_WORDS = 64
# A word in more than this part of the documents ranks none of them before another, and costs most of the time.
_COMMON = 0.2


def ranked(segment: Segment, text: str, limit: int, condition: Filter | None) -> list[tuple[float, int]]:
    """At most `limit` rows with words of `text`, best first: FTS5's rank (lower is better) and the row."""
    segment.require("words", "hybrid")
    connection, allowed = segment.connection(), segment.allowed(condition)
    words = _telling(connection, _words(text), segment.record.count)
    if not words:
        return []
    query = " OR ".join(f'"{word}"' for word in words)  # quoted, nothing in a text is a query's syntax
    found: list[tuple[float, int]] = []
    for row, rank in connection.execute("SELECT rowid, rank FROM words WHERE words MATCH ? ORDER BY rank, rowid", (query,)):
        if allowed is None or (0 <= row < len(allowed) and allowed[row]):
            found.append((rank, row))
        if len(found) == limit:
            break
    return found


def _words(text: str) -> list[str]:
    """The words of a text as FTS5's tokenizer folds them: without case and accents."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    return list(dict.fromkeys(part for word in _WORD.findall(plain.lower()) for part in word.split("_") if part))[: 4 * _WORDS]


def _telling(connection: sqlite3.Connection, words: list[str], count: int) -> list[str]:
    """The rarest words that occur, without those that most documents have, unless there is nothing else."""
    connection.execute("CREATE VIRTUAL TABLE IF NOT EXISTS temp.vocabulary USING fts5vocab(main, words, row)")
    frequency = {}
    for word in words:
        found = connection.execute("SELECT doc FROM temp.vocabulary WHERE term = ?", (word,)).fetchone()
        if found:
            frequency[word] = found[0]
    rarest = sorted(frequency, key=lambda word: frequency[word])[:_WORDS]
    return [word for word in rarest if frequency[word] <= max(_COMMON * count, 1)] or rarest[:1]
