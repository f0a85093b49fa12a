"""Synthetic vectors that resemble embeddings of texts, documents to go with them, and what is really nearest.

A topic is a point of a space of 48 dimensions whose spread falls from one to the next, as the principal components of sentence embeddings
do; there are 2,000 topics, some a hundred times as frequent as others. A vector is a topic and as much of its own, turned into 384
dimensions, with noise of a quarter of its length in all of them, and normalised. A query is a vector that was drawn in the same way and is
no member, with more noise added. All is made in chunks, each from the seed and its own number.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["DIMENSION", "TOLD", "K", "documents", "make", "nearest", "queries", "vectors"]

DIMENSION, K = 384, 10
TOLD = "synthetic: 2,000 topics of uneven size in 48 dimensions of falling spread, turned into 384, noise of 0.25, normalised"
_LATENT, _TOPICS, _CHUNK = 48, 2000, 16_384
_NOISE, _PERTURBED = 0.25, 0.15
_WORDS, _VOCABULARY = 12, 20_000
_CATEGORIES = ("hep-ph", "hep-ex", "hep-th", "astro-ph", "nucl-ex", "physics", "cs", "math")

Vectors = NDArray[np.float32]


class _Topics:
    def __init__(self, seed: int) -> None:
        draw = np.random.default_rng([seed, 0])
        self.spread = ((1.0 + np.arange(_LATENT)) ** -0.5).astype(np.float32)
        self.centres = draw.standard_normal((_TOPICS, _LATENT), dtype=np.float32) * self.spread
        self.turn = np.linalg.qr(draw.standard_normal((DIMENSION, _LATENT)))[0].T.astype(np.float32)
        weights = 1.0 / (np.arange(_TOPICS) + 20.0)
        self.weights = weights / weights.sum()

    def drawn(self, draw: np.random.Generator, count: int) -> Vectors:
        topic = draw.choice(_TOPICS, count, p=self.weights)
        own = draw.standard_normal((count, _LATENT), dtype=np.float32) * self.spread
        return _noisy(draw, _unit((self.centres[topic] + own) @ self.turn), _NOISE)


def make(file: Path, count: int, seed: int) -> None:
    """Write `count` vectors to `file` (npy, float32)."""
    topics = _Topics(seed)
    held = np.lib.format.open_memmap(file, mode="w+", dtype=np.float32, shape=(count, DIMENSION))
    for number, first in enumerate(range(0, count, _CHUNK)):
        held[first : first + _CHUNK] = topics.drawn(np.random.default_rng([seed, 1, number]), min(_CHUNK, count - first))
    held.flush()


def queries(count: int, seed: int, part: int) -> Vectors:
    """Perturbed vectors (count, DIMENSION) that are no members; each `part` gives others."""
    draw = np.random.default_rng([seed, 2, part])
    return _noisy(draw, _Topics(seed).drawn(draw, count), _PERTURBED)


def vectors(file: Path) -> Vectors:
    """What `make` wrote, memory-mapped."""
    held: Vectors = np.load(file, mmap_mode="r")
    return held


def nearest(held: Vectors, asked: Vectors) -> NDArray[np.int64]:
    """The rows of the K nearest of `held` to each query, by an exact search (FAISS, chunk by chunk)."""
    import faiss

    heap = faiss.ResultHeap(len(asked), K)
    for first in range(0, len(held), _CHUNK):
        squares, rows = faiss.knn(asked, np.ascontiguousarray(held[first : first + _CHUNK]), K)
        heap.add_result(squares, rows + first)
    heap.finalize()
    found: NDArray[np.int64] = heap.I
    return found


def documents(count: int, seed: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Id, text of 12 made-up words, and metadata of each row."""
    draw = np.random.default_rng([seed, 3])
    words = np.array(["".join(draw.choice(list("abcdefghilmnoprstu"), draw.integers(3, 10))) for _ in range(_VOCABULARY)])
    for first in range(0, count, _CHUNK):
        for row, chosen in enumerate(words[draw.zipf(1.3, (min(_CHUNK, count - first), _WORDS)) % _VOCABULARY], first):
            yield f"doc-{row}", " ".join(chosen), {"year": 1990 + row % 35, "category": _CATEGORIES[row % len(_CATEGORIES)]}


def _unit(given: Vectors) -> Vectors:
    return given / np.linalg.norm(given, axis=1, keepdims=True)


def _noisy(draw: np.random.Generator, given: Vectors, noise: float) -> Vectors:
    return _unit(given + noise * _unit(draw.standard_normal(given.shape, dtype=np.float32)))
