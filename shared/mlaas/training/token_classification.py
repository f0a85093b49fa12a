"""Fine-tuning an encoder to find named entities: a tag for each word, read at the word's first piece.

A word of the data may be several words to the tokenizer ("trans-context-free"). Each of those is trained, because when it
serves the model sees texts, not words: those after the first continue the entity. Figures are over the words of the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from transformers import AutoModelForTokenClassification

from ..entities import OUTSIDE, iob2, spans, tag_names
from ..windows import Window, windows
from .batches import Batch, Collator, collator
from .checkpoints import load_model
from .entity_scores import EntityCounts
from .masking import IGNORED
from .objectives import Preparation, Scored, Tally
from .rows import Row, split
from .sampling import grouped_batches
from .tagged import Sentence, read_sentences

__all__ = ["prepare"]

EVALUATION_BATCH = 32  # sentences


@dataclass(frozen=True)
class Tagged:
    """One window of a sentence: `targets` are IGNORED but at the places that are read, and `words` says of each of those which
    word of the data it is the first piece of, None where it is a further one."""

    window: Window
    targets: list[int]
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
            places = [place for place, target in enumerate(one.targets) if target != IGNORED]
            for place, word in zip(places, one.words, strict=True):
                inside = min(place, len(one.targets) - place)  # of two windows, the one that sees more around the word says what it is
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
    train: Sequence[Tagged]
    test: Sequence[Sequence[Tagged]]
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
        lengths = [len(one.targets) for one in self.train]
        for indices in grouped_batches(np.arange(len(self.train)), lengths, self.batch_size, draw):
            yield self._batch([self.train[index] for index in indices.tolist()])

    def held_out(self) -> Iterator[Batch]:
        """The held-out sentences, longest first."""
        order = sorted(self.test, key=lambda parts: -len(parts[0].targets))
        for start in range(0, len(order), EVALUATION_BATCH):
            yield self._batch([one for parts in order[start : start + EVALUATION_BATCH] for one in parts])

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

    def _batch(self, rows: Sequence[Tagged]) -> Batch:
        return self.collate(
            [one.window.ids for one in rows],
            [one.targets for one in rows],
            fill=IGNORED,
            types=[one.window.type_ids for one in rows],
            origins=rows,
        )


def prepare(preparation: Preparation) -> TokenClassification:
    """Read and split the sentences, and load the model with a new head."""
    request, checkpoint = preparation.request, preparation.checkpoint
    read = read_sentences(preparation.table, request.dataset)
    labels = tag_names(span.label for one in read.sentences for span in one.entities)
    rows = [Row(" ".join(one.words)) for one in read.sentences]
    sides = split(rows, request.dataset.train_test_split, request.model_train.seed)
    train, test = ([_tagged(read.sentences[index], labels, preparation) for index in side] for side in sides)
    loaded = load_model(
        AutoModelForTokenClassification,
        checkpoint,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
    )
    windows_of_all = [one for parts in train for one in parts]
    return TokenClassification(
        model=loaded.model,
        fresh=loaded.fresh,
        labels=labels,
        train=windows_of_all,
        test=[parts for parts in test if parts],
        collate=collator(checkpoint.config, checkpoint.tokenizer),
        batch_size=request.model_train.batch_size,
        seed=request.model_train.seed,
        dataset={
            "samples_train": len(train),
            "samples_test": len(test),
            "tokens": sum(len(one.targets) for one in windows_of_all),
            "dropped_empty": read.dropped_empty,
            "dropped_duplicates": read.dropped_duplicates,
            "windows_train": len(windows_of_all),
            "entities_train": sum(len(read.sentences[index].entities) for index in sides[0]),
            "classes": len(labels),
        },
    )


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
    return Tagged(window, targets, words, sentence)
