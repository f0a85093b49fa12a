"""Sentences whose words carry tags: from CoNLL files, or from rows with words and tags."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import dataset_files, datasets
from ..contracts import TrainDataset
from ..entities import Span, spans
from ..errors import InvalidRequest
from .rows import hashed
from .spool import Records

__all__ = ["CONLL", "Sentence", "Sentences", "read_sentences"]

CONLL = (".conll", ".txt", ".iob", ".iob2", ".bio", ".conll.gz", ".txt.gz")
DOCUMENT = "-DOCSTART-"


@dataclass(frozen=True)
class Sentence:
    """Words and the entities among them."""

    words: tuple[str, ...]
    entities: tuple[Span, ...]

    def to_bytes(self) -> bytes:
        """As JSON: equal sentences give equal bytes."""
        return json.dumps([self.words, [(span.start, span.end, span.label) for span in self.entities]]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Sentence:
        """The reverse of `to_bytes`."""
        words, entities = json.loads(content)
        return cls(tuple(words), tuple(Span(*each) for each in entities))


@dataclass(frozen=True, kw_only=True)
class Sentences:
    """Distinct sentences in the order of the data, on disk, and how many were dropped."""

    sentences: Sequence[Sentence]
    dropped_empty: int
    dropped_duplicates: int


def read_sentences(table: Path, dataset: TrainDataset, work: Path | None = None) -> Sentences:
    """The tagged sentences of `table`: CoNLL by the names of its files, else rows. Raises InvalidRequest naming what is wrong."""
    kept = Records(work, Sentence.to_bytes, Sentence.from_bytes)
    seen: set[bytes] = set()
    tagged = False
    empty = duplicates = 0
    for words, tags in _conll(table) if _is_conll(table) else _rows(datasets.read(table, _columns(dataset)), dataset):
        sentence = Sentence(words, tuple(spans(tags)))
        if not words:
            empty += 1
        elif (key := hashed(sentence.to_bytes().decode())) in seen:
            duplicates += 1
        else:
            seen.add(key)
            kept.append(sentence)
            tagged = tagged or bool(sentence.entities)
    if len(kept) < 2 or not tagged:
        raise InvalidRequest(
            "the data set has no entities to learn" if kept else "the data set has no sentences",
            field="dataset.path",
            remedy="Give sentences whose words are tagged, e.g. B-Task, I-Task, O: a CoNLL file, or rows with words and tags.",
        )
    return Sentences(sentences=kept, dropped_empty=empty, dropped_duplicates=duplicates)


def _is_conll(table: Path) -> bool:
    names = dataset_files.names(table)
    return any(name.lower().endswith(CONLL) for name in names) and not any(name.lower().endswith(datasets.EXTENSIONS) for name in names)


def _conll(table: Path) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """A word on each line, its tag in the last column, and an empty line after each sentence."""
    for file in datasets.files(table, CONLL):
        words: list[str] = []
        tags: list[str] = []
        width = 0
        for number, line in datasets.lines(file):
            columns = line.split()
            if not columns:
                if words:
                    yield tuple(words), tuple(tags)
                words, tags = [], []
                continue
            if columns[0] == DOCUMENT or (columns[0].startswith("#") and len(columns) != width):
                continue
            width = width or len(columns)
            if len(columns) != width or width < 2:
                raise datasets.malformed(
                    file,
                    number,
                    f"it has {len(columns)} columns",
                    "Give each word a line with the same columns: the word first, its tag last.",
                )
            words.append(columns[0])
            tags.append(columns[-1])
        if words:
            yield tuple(words), tuple(tags)


def _columns(dataset: TrainDataset) -> list[str]:
    return [dataset.tokens_column, dataset.tags_column]


def _rows(rows: Iterable[dict[str, Any]], dataset: TrainDataset) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    for number, row in enumerate(rows, start=1):
        words, tags = (_list(row[column]) for column in _columns(dataset))
        if len(words) != len(tags):
            raise InvalidRequest(
                f"row {number} has {len(words)} words and {len(tags)} tags", field="dataset.tags_column", remedy="Give each word one tag."
            )
        if any(tag.lstrip("-").isdigit() for tag in tags):
            raise InvalidRequest(
                f"row {number} has numbers as tags", field="dataset.tags_column", remedy="Write the tags' names, e.g. B-Task, I-Task, O."
            )
        yield tuple(words), tuple(tags)


def _list(value: Any) -> list[str]:
    """A list as it is, a text cut at its spaces. A word with a space in it, or an empty one, would not be found again: spaces go."""
    items = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
    return ["".join(str(item).split()) or "_" for item in items]
