"""Batches: token ids padded to the longest text of the batch, never further."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Batch", "Collator", "by_length", "collator", "encoded"]

CHUNK = 1000  # texts tokenized at once, so that a run can be cancelled in between


@dataclass(frozen=True, kw_only=True)
class Batch:
    """`inputs` are [rows, longest] int64 tensors by name; `targets` [rows, ...]; `tokens` without padding.

    `origins` says of each row what a tally has to know about it, where it has to know anything.
    """

    inputs: dict[str, torch.Tensor]
    targets: torch.Tensor
    tokens: int
    origins: tuple[Any, ...] = ()

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return replace(self, inputs={name: tensor.to(device) for name, tensor in self.inputs.items()}, targets=self.targets.to(device))


@dataclass(frozen=True, kw_only=True)
class Collator:
    """Pads ids. `type_ids` says whether the model reads token_type_ids, all 0 unless they are given."""

    pad_id: int
    type_ids: bool

    def __call__(
        self,
        ids: Sequence[Sequence[int]],
        targets: torch.Tensor | Sequence[Sequence[int]],
        *,
        fill: int = 0,
        types: Sequence[Sequence[int]] | None = None,
        origins: Sequence[Any] = (),
    ) -> Batch:
        """A batch of `ids`; targets given per token are padded with `fill`."""
        inputs = {"input_ids": _padded(ids, self.pad_id), "attention_mask": _padded([[1] * len(row) for row in ids], 0)}
        if self.type_ids:
            inputs["token_type_ids"] = _padded(types, 0) if types is not None else torch.zeros_like(inputs["input_ids"])
        wanted = targets if isinstance(targets, torch.Tensor) else _padded(targets, fill)
        return Batch(inputs=inputs, targets=wanted, tokens=sum(map(len, ids)), origins=tuple(origins))


def collator(config: Any, tokenizer: Any) -> Collator:
    """The collator for a model and its tokenizer."""
    return Collator(
        pad_id=int(tokenizer.pad_token_id), type_ids=getattr(config, "type_vocab_size", 0) >= 1 and config.model_type in READS_TYPES
    )


# Model types whose forward takes token_type_ids.
READS_TYPES = frozenset({"albert", "bert", "camembert", "electra", "roberta", "xlm-roberta"})


def encoded(tokenizer: Any, texts: Iterable[str] | Iterable[tuple[str, str]], max_length: int) -> Iterator[Any]:
    """The `tokenizers.Encoding` of each text or pair of texts, cut at `max_length` tokens; what was cut off is in its `overflowing`."""
    backend = tokenizer.backend_tokenizer
    backend.enable_truncation(max_length)
    try:
        remaining = iter(texts)
        while chunk := list(islice(remaining, CHUNK)):
            yield from backend.encode_batch(chunk)
    finally:
        backend.no_truncation()


def by_length(lengths: Sequence[int] | NDArray[np.int64], size: int) -> Iterator[list[int]]:
    """Indices in batches of at most `size`, longest first, for evaluation: the same each time."""
    order = np.argsort(-np.asarray(lengths), kind="stable")
    for start in range(0, len(order), size):
        yield order[start : start + size].tolist()


def _padded(rows: Iterable[Sequence[int]], fill: int) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row, dtype=torch.long) for row in rows], batch_first=True, padding_value=fill)
