"""Fine-tuning an encoder to mark the answer of a question in a text: where it starts and where it ends."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import AutoModelForQuestionAnswering

from ..answerer import Best
from ..errors import InvalidRequest
from ..windows import Window, windows
from .answer_scores import exact_match, f1
from .batches import Batch, Collator, by_length, collator
from .checkpoints import load_model
from .objectives import Preparation, Scored, Tally
from .rows import Row
from .sampling import grouped_batches
from .splits import split
from .spool import ID_BYTES, Records, Selected
from .squad import Question, read_questions

__all__ = ["prepare"]

EVALUATION_BATCH = 16  # questions
LONGEST_ANSWER = 30  # tokens, as in BERT's script
NOWHERE = 0  # the first token stands for "there is no answer in this window"


@dataclass(frozen=True)
class Asked:
    """One window of a question's context, and the places of the answer's first and last token in it."""

    window: Window
    places: tuple[int, int]
    question: Question


@dataclass(frozen=True)
class Part:
    """What is learnt from a window: its tokens, and the places of the answer's first and last."""

    ids: list[int]
    type_ids: list[int]
    places: tuple[int, int]

    def to_bytes(self) -> bytes:
        """The two places, the ids and the types, in 4 bytes each."""
        return array("i", [*self.places, *self.ids, *self.type_ids]).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Part:
        """The reverse of `to_bytes`."""
        first, last, *numbers = array("i", content).tolist()
        half = len(numbers) // 2
        return cls(numbers[:half], numbers[half:], (first, last))


@dataclass(kw_only=True)
class AnswerTally(Tally):
    """A tally that also compares answers. The windows of a question come in one batch."""

    may_be_none: bool
    exact: float = 0.0
    overlap: float = 0.0
    questions: int = 0

    def add(self, batch: Batch, scored: Scored) -> None:
        """Count one batch."""
        super().add(batch, scored)
        starts, ends = scored.logits.float().cpu().numpy().reshape(2, len(batch.origins), -1)
        best: dict[int, Best] = {}
        for one, start, end in zip(batch.origins, starts, ends, strict=True):
            best.setdefault(id(one.question), Best(LONGEST_ANSWER)).add(one.window, start, end)
        for question in {id(one.question): one.question for one in batch.origins}.values():
            found = best[id(question)]
            none = not found.seen or (self.may_be_none and found.none > found.logit)
            answer, known = "" if none else question.context[found.start : found.end], [text for text, _ in question.answers]
            self.exact += exact_match(answer, known)
            self.overlap += f1(answer, known)
            self.questions += 1


@dataclass(kw_only=True)
class QuestionAnswering:
    """The task: see `objectives.Task`."""

    model: Any
    fresh: frozenset[str]
    train: Records[Part]
    test: Sequence[list[Asked]]
    test_lengths: Sequence[int]
    collate: Collator
    batch_size: int
    seed: int
    may_be_none: bool
    dataset: dict[str, Any]

    labels: tuple[str, ...] = ()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.train) // self.batch_size)

    @property
    def notes(self) -> dict[str, Any]:
        """What an answer is."""
        return {"answers": {"longest_tokens": LONGEST_ANSWER, "may_be_none": self.may_be_none}}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every window once, grouped by length, shuffled by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        for indices in grouped_batches(np.arange(len(self.train)), _lengths(self.train), self.batch_size, draw):
            yield self._batch([self.train[index] for index in indices.tolist()], ())

    def held_out(self) -> Iterator[Batch]:
        """The held-out questions, those with the longest windows first."""
        for indices in by_length(self.test_lengths, EVALUATION_BATCH):
            origins = [one for index in indices for one in self.test[index]]
            yield self._batch([_part(one) for one in origins], origins)

    def score(self, batch: Batch) -> Scored:
        """Logits [2 windows, tokens]: where the answer starts in each window, then where it ends."""
        output = self.model(**batch.inputs)
        logits = torch.cat([output.start_logits, output.end_logits]).float()
        padding = batch.inputs["attention_mask"].repeat(2, 1) == 0  # else the loss would depend on what else is in the batch
        return Scored(logits.masked_fill(padding, torch.finfo(logits.dtype).min), batch.targets.T.flatten())

    def tally(self) -> AnswerTally:
        """An empty tally."""
        return AnswerTally(may_be_none=self.may_be_none)

    def evaluation(self, tally: AnswerTally) -> dict[str, Any]:
        """Loss and accuracy of starts and ends; the exact match and F1 of answers, from 0 to 1."""
        count = max(1, tally.questions)
        figures = {"exact_match": tally.exact / count, "f1": tally.overlap / count, "questions": tally.questions}
        return {"loss": tally.loss, "accuracy": tally.accuracy, **figures}

    def _batch(self, rows: Sequence[Part], origins: Sequence[Asked]) -> Batch:
        return self.collate(
            [one.ids for one in rows], torch.tensor([one.places for one in rows]), types=[one.type_ids for one in rows], origins=origins
        )


def prepare(preparation: Preparation) -> QuestionAnswering:
    """Read and split the questions, those of one context on one side, and load the model with a new head."""
    request, checkpoint = preparation.request, preparation.checkpoint
    read = read_questions(preparation.table, request.dataset, preparation.work)
    usable = Records(preparation.work, _packed, _unpacked)
    usable.extend(parts for question in read.questions if (parts := _asked(question, preparation)))
    if len(usable) < 2:
        raise InvalidRequest(
            f"the questions leave no room for their texts within {preparation.max_length} tokens",
            field="model_train.max_length",
            remedy="Raise `max_length`, or give a model that takes longer texts.",
        )
    sides = split((Row(parts[0].question.context) for parts in usable), request.dataset.train_test_split, request.model_train.seed)
    fitted, held_out = (Selected(usable, side) for side in sides)
    train = Records(preparation.work, Part.to_bytes, Part.from_bytes)
    train.extend(_part(one) for parts in fitted for one in parts)
    may_be_none = not all(one.answers for one in read.questions)
    loaded = load_model(AutoModelForQuestionAnswering, checkpoint)
    loaded.model.config.no_answer = may_be_none  # read where it is served
    return QuestionAnswering(
        model=loaded.model,
        fresh=loaded.fresh,
        train=train,
        test=held_out,
        test_lengths=array("i", [len(parts[0].window.ids) for parts in held_out]),
        collate=collator(checkpoint.config, checkpoint.tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        may_be_none=may_be_none,
        dataset={
            "samples_train": len(fitted),
            "samples_test": len(held_out),
            "tokens": int(_lengths(train).sum()),
            "dropped_empty": read.dropped_empty,
            "dropped_duplicates": read.dropped_duplicates,
            "dropped_misplaced": read.dropped_misplaced,
            "dropped_long_questions": len(read.questions) - len(usable),
            "unanswerable": sum(not one.answers for one in read.questions),
            "windows_train": len(train),
            "classes": 0,
        },
    )


def _lengths(parts: Records[Part]) -> NDArray[np.int64]:
    """Tokens of each part: its record holds two numbers for each, and two places."""
    return parts.sizes // (2 * ID_BYTES) - 1


def _part(one: Asked) -> Part:
    return Part(one.window.ids, one.window.type_ids, one.places)


def _packed(parts: list[Asked]) -> bytes:
    """The windows of one question as JSON."""
    return json.dumps([parts[0].question.to_bytes().decode(), [[vars(one.window), one.places] for one in parts]]).encode()


def _unpacked(content: bytes) -> list[Asked]:
    asked, parts = json.loads(content)
    question = Question.from_bytes(asked)
    return [Asked(Window(**window), (first, last), question) for window, (first, last) in parts]


def _asked(question: Question, preparation: Preparation) -> list[Asked]:
    """The windows of a question's context; none where the question leaves no room for it."""
    preparation.tick()
    tokenizer = preparation.checkpoint.tokenizer.backend_tokenizer
    try:
        parts = windows(tokenizer, question.context, preparation.max_length, before=question.question)
    except InvalidRequest:
        return []
    return [Asked(part, _places(part, question), question) for part in parts]


def _places(window: Window, question: Question) -> tuple[int, int]:
    """The tokens that the first answer starts and ends with, where the window holds all of it."""
    for text, start in question.answers[:1]:
        end = start + len(text)
        inside = [place for place, offset in enumerate(window.offsets) if offset and offset[0] < end and offset[1] > start]
        if inside and (window.offsets[inside[0]] or (end, 0))[0] <= start and (window.offsets[inside[-1]] or (0, 0))[1] >= end:
            return inside[0], inside[-1]
    return NOWHERE, NOWHERE
