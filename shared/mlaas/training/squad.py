"""Questions with the text that answers them: from SQuAD's JSON, or from rows with a question, a context and answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .. import dataset_files, datasets
from ..contracts import TrainDataset
from ..errors import InvalidRequest
from .rows import hashed
from .spool import Records

__all__ = ["SQUAD", "Question", "Questions", "read_questions"]

SQUAD = (".json",)
Known = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Question:
    """A question, the text to answer it from, and its answers with the character where each begins; none if there is no answer."""

    question: str
    context: str
    answers: Known

    def to_bytes(self) -> bytes:
        """As JSON: equal questions give equal bytes."""
        return json.dumps([self.question, self.context, self.answers]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Question:
        """The reverse of `to_bytes`."""
        question, context, answers = json.loads(content)
        return cls(question, context, tuple((text, start) for text, start in answers))


@dataclass(frozen=True, kw_only=True)
class Questions:
    """Distinct questions in the order of the data, on disk, and how many were dropped: `misplaced` have answers that the context lacks."""

    questions: Sequence[Question]
    dropped_empty: int
    dropped_misplaced: int
    dropped_duplicates: int


def read_questions(table: Path, dataset: TrainDataset, work: Path | None = None) -> Questions:
    """The questions of `table`: SQuAD by the names of its files, else rows. Raises InvalidRequest naming what is wrong."""
    kept = Records(work, Question.to_bytes, Question.from_bytes)
    seen: set[bytes] = set()
    answered = False
    empty = misplaced = duplicates = 0
    for question, context, answers in _squad(table) if _is_squad(table) else _rows(table, dataset):
        placed = _placed(context, answers)
        one = Question(question, context, placed)
        if not question.strip() or not context.strip():
            empty += 1
        elif answers and not placed:
            misplaced += 1
        elif (key := hashed(one.to_bytes().decode())) in seen:
            duplicates += 1
        else:
            seen.add(key)
            kept.append(one)
            answered = answered or bool(placed)
    if len(kept) < 2 or not answered:
        raise InvalidRequest(
            f"the data set has {len(kept)} usable questions, {misplaced} have answers that are not in their texts",
            field="dataset.path",
            remedy="Give questions whose answers are words of their texts, each with the character where it begins.",
        )
    return Questions(questions=kept, dropped_empty=empty, dropped_misplaced=misplaced, dropped_duplicates=duplicates)


def _is_squad(table: Path) -> bool:
    return any(name.lower().endswith(SQUAD) for name in dataset_files.names(table))


def _squad(table: Path) -> Iterator[tuple[str, str, Known]]:
    for file in datasets.files(table, SQUAD):
        try:
            articles = json.loads(file.read_bytes())["data"]
            for article in articles:
                for paragraph in article["paragraphs"]:
                    for asked in paragraph["qas"]:
                        answers = () if asked.get("is_impossible") else _answers(asked["answers"])
                        yield str(asked["question"]), str(paragraph["context"]), answers
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest(
                f"{file.name}: not a JSON file as SQuAD has it",
                field="dataset.path",
                remedy="Give {data: [{paragraphs: [{context, qas: [{question, answers: [{text, answer_start}]}]}]}]}, or rows as JSONL.",
            ) from None


def _rows(table: Path, dataset: TrainDataset) -> Iterator[tuple[str, str, Known]]:
    columns = [dataset.question_column, dataset.context_column, dataset.answers_column]
    for number, row in enumerate(datasets.read(table, columns), start=1):
        question, context, answers = (row[column] for column in columns)
        try:
            known = _answers(json.loads(answers) if isinstance(answers, str) else answers)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise InvalidRequest(
                f"row {number}: the answers cannot be read",
                field="dataset.answers_column",
                remedy="Write them as {text: [...], answer_start: [...]} or as [{text, answer_start}]; an empty list if there is none.",
            ) from None
        yield str(question or ""), str(context or ""), known


def _answers(value: Any) -> Known:
    """Answers as SQuAD's JSON or as Hugging Face's rows have them, each once."""
    if value is None:
        return ()
    pairs: Iterable[tuple[Any, Any]]
    if isinstance(value, dict):
        pairs = zip(value["text"], value["answer_start"], strict=True)
    else:
        pairs = ((one["text"], one["answer_start"]) for one in value)
    return tuple(dict.fromkeys((str(text), int(start)) for text, start in pairs if str(text).strip()))


def _placed(context: str, answers: Known) -> Known:
    """The answers that are in `context` where they say, or where they occur only once."""
    found: list[tuple[str, int]] = []
    for text, start in answers:
        if start >= 0 and context.startswith(text, start):
            found.append((text, start))
        elif context.count(text) == 1:
            found.append((text, context.index(text)))
    return tuple(found)
