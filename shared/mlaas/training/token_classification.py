"""Fine-tuning an encoder to find named entities: a tag for each word, read at the word's first piece.

A word of the data may be several words to the tokenizer ("trans-context-free"). Each of those is trained, because when it
serves the model sees texts, not words: those after the first continue the entity. Figures are over the words of the data.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForTokenClassification

from ..entities import OUTSIDE, iob2, spans, tag_names
from ..windows import Window, windows
from .batches import Batch, Collator, by_length, collator
from .checkpoints import load_model
from .entity_scores import EntityCounts
from .masking import IGNORED
from .objectives import Preparation, Scored, Tally
from .rows import Row
from .sampling import grouped_batches
from .splits import split
from .spool import ID_BYTES, Records, Selected
from .tagged import Sentence, read_sentences

__all__ = ["prepare"]

EVALUATION_BATCH = 32  # sentences


@dataclass(frozen=True)
class Part:
    """The tokens of a window; `targets` are IGNORED but at the places that are read."""

    ids: list[int]
    type_ids: list[int]
    targets: list[int]

    def to_bytes(self) -> bytes:
        """The ids, the types and the targets, in 4 bytes each."""
        return array("i", [*self.ids, *self.type_ids, *self.targets]).tobytes()

    @classmethod
    def from_bytes(cls, content: bytes) -> Part:
        """The reverse of `to_bytes`."""
        numbers = array("i", content).tolist()
        length = len(numbers) // 3
        return cls(numbers[:length], numbers[length : 2 * length], numbers[2 * length :])


@dataclass(frozen=True)
class Tagged:
    """One window of a sentence: `words` says of each place that is read which word of the data it is the first piece of,
    None where it is a further one."""

    part: Part
    words: list[int | None]
    sentence: Sentence


@dataclass(kw_only=True)
class EntityTally(Tally):
    """A tally that also counts entities. The windows of a sentence come in one batch."""

    labels: tuple[str, ...]
    counts: EntityCounts = field(default_factory=EntityCounts)

    def add(self, batch: Batch, scored: Scored) -> None:
        """Count one batch."""
        super().add(batch, scored)
        predicted = iter(scored.logits.argmax(-1).tolist())
        found: dict[int, dict[int, tuple[int, int]]] = {}
        for one in batch.origins:
            tags = found.setdefault(id(one.sentence), {})
            places = [place for place, target in enumerate(one.part.targets) if target != IGNORED]
            for place, word in zip(places, one.words, strict=True):
                inside = min(place, len(one.part.targets) - place)  # of two windows, the one that sees more around the word says what it is
                tag = next(predicted)
                if word is not None:
                    tags[word] = max(tags.get(word, (0, 0)), (inside, tag))
        for one in {id(each.sentence): each.sentence for each in batch.origins}.values():
            tags = found[id(one)]
            self.counts.add(
                one.entities, spans([self.labels[tags[word][1]] if word in tags else OUTSIDE for word in range(len(one.words))])
            )


@dataclass(kw_only=True)
class TokenClassification:
    """The task: see `objectives.Task`."""

    model: Any
    fresh: frozenset[str]
    labels: tuple[str, ...]
    train: Records[Part]
    test: Records[list[Tagged]]
    test_lengths: Sequence[int]
    collate: Collator
    batch_size: int
    seed: int
    dataset: dict[str, Any]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return -(-len(self.train) // self.batch_size)

    @property
    def notes(self) -> dict[str, Any]:
        """How words are tagged."""
        return {"tags": {"scheme": "IOB2", "read_at": "first piece of each word"}}

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Every window once, grouped by length, shuffled by the seed."""
        draw = np.random.default_rng([self.seed, 3, epoch])
        for indices in grouped_batches(np.arange(len(self.train)), _lengths(self.train), self.batch_size, draw):
            yield self._batch([self.train[index] for index in indices.tolist()], ())

    def held_out(self) -> Iterator[Batch]:
        """The held-out sentences, longest first."""
        for indices in by_length(self.test_lengths, EVALUATION_BATCH):
            origins = [one for index in indices for one in self.test[index]]
            yield self._batch([one.part for one in origins], origins)

    def score(self, batch: Batch) -> Scored:
        """Logits [first pieces, tags]."""
        read = batch.targets != IGNORED
        return Scored(self.model(**batch.inputs).logits[read], batch.targets[read])

    def tally(self) -> EntityTally:
        """An empty tally."""
        return EntityTally(labels=self.labels)

    def evaluation(self, tally: EntityTally) -> dict[str, Any]:
        """Loss and accuracy per word piece that is read; precision, recall and F1 of entities, overall and for each type."""
        return {"loss": tally.loss, "accuracy": tally.accuracy, **tally.counts.figures()}

    def _batch(self, rows: Sequence[Part], origins: Sequence[Tagged]) -> Batch:
        return self.collate(
            [one.ids for one in rows], [one.targets for one in rows], fill=IGNORED, types=[one.type_ids for one in rows], origins=origins
        )


def prepare(preparation: Preparation) -> TokenClassification:
    """Read and split the sentences, and load the model with a new head."""
    request, checkpoint = preparation.request, preparation.checkpoint
    read = read_sentences(preparation.table, request.dataset, preparation.work)
    labels = tag_names(span.label for one in read.sentences for span in one.entities)
    sides = split((Row(" ".join(one.words)) for one in read.sentences), request.dataset.train_test_split, request.model_train.seed)
    fitted, held_out = (Selected(read.sentences, side) for side in sides)
    train = Records(preparation.work, Part.to_bytes, Part.from_bytes)
    for sentence in fitted:
        train.extend(one.part for one in _tagged(sentence, labels, preparation))
    test, test_lengths = Records(preparation.work, _packed, _unpacked), array("i")
    for sentence in held_out:
        if parts := _tagged(sentence, labels, preparation):
            test.append(parts)
            test_lengths.append(len(parts[0].part.targets))
    loaded = load_model(
        AutoModelForTokenClassification,
        checkpoint,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    return TokenClassification(
        model=loaded.model,
        fresh=loaded.fresh,
        labels=labels,
        train=train,
        test=test,
        test_lengths=test_lengths,
        collate=collator(checkpoint.config, checkpoint.tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        dataset={
            "samples_train": len(fitted),
            "samples_test": len(held_out),
            "tokens": int(_lengths(train).sum()),
            "dropped_empty": read.dropped_empty,
            "dropped_duplicates": read.dropped_duplicates,
            "windows_train": len(train),
            "entities_train": sum(len(one.entities) for one in fitted),
            "classes": len(labels),
        },
    )


def _lengths(parts: Records[Part]) -> NDArray[np.int64]:
    """Tokens of each part: its record holds three numbers for each."""
    return parts.sizes // (3 * ID_BYTES)


def _packed(parts: list[Tagged]) -> bytes:
    """The windows of one sentence as JSON."""
    return json.dumps([parts[0].sentence.to_bytes().decode(), [[*vars(one.part).values(), one.words] for one in parts]]).encode()


def _unpacked(content: bytes) -> list[Tagged]:
    sentence, parts = json.loads(content)
    shared = Sentence.from_bytes(sentence)
    return [Tagged(Part(*numbers), words, shared) for *numbers, words in parts]


def _tagged(sentence: Sentence, labels: tuple[str, ...], preparation: Preparation) -> list[Tagged]:
    """The windows of a sentence that have a place to learn from."""
    number = {label: index for index, label in enumerate(labels)}
    tags = iob2(sentence.entities, len(sentence.words))
    classes = [(number[tag], number[tag.replace("B-", "I-", 1)]) for tag in tags]
    text = " ".join(sentence.words)
    parts = windows(preparation.checkpoint.tokenizer.backend_tokenizer, text, preparation.max_length)
    owners = [word for word, each in enumerate(sentence.words) for _ in range(len(each) + 1)]
    preparation.tick()
    return [one for one in (_targets(part, text, owners, classes, sentence) for part in parts) if one.words]


def _targets(window: Window, text: str, owners: Sequence[int], classes: Sequence[tuple[int, int]], sentence: Sentence) -> Tagged:
    """`owners` says for each character whose it is, `classes` of each word the tag of its beginning and of what continues it."""
    targets, words = [IGNORED] * len(window.ids), []
    seen: int | None = None
    for place, (offset, word) in enumerate(zip(window.offsets, window.words, strict=True)):
        if offset is None or word is None or word == (window.words[place - 1] if place else None):
            continue
        begins = offset[0] + (text[offset[0]] == " ")  # a byte-level tokenizer counts the space before a word as the word's
        owner = owners[min(begins, len(owners) - 1)]
        targets[place] = classes[owner][owner == seen]
        words.append(None if owner == seen else owner)
        seen = owner
    return Tagged(Part(window.ids, window.type_ids, targets), words, sentence)
