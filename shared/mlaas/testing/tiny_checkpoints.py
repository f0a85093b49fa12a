"""Tiny, seeded PyTorch checkpoints and a separable task for them, so that tests train for real in seconds. Imports torch."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel

__all__ = ["BIRDS", "STONES", "sentence", "write_checkpoint", "write_rows", "write_tokenizer"]

BIRDS = ("robin", "heron", "swift", "wren", "stork", "raven")
STONES = ("basalt", "granite", "marble", "slate", "quartz", "flint")
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
PIECES = ("the", "old", "and", "near", "town", "by", "##s", "##let", "is")


def write_tokenizer(folder: Path) -> int:
    """A lower-casing WordPiece tokenizer of the words above; the size of its vocabulary."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL, *BIRDS, *STONES, *PIECES))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106 - a token, not a password
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(length=40)  # as sentence-transformers ships it: training must not pad to it
    tokenizer.save(str(folder / "tokenizer.json"))
    return len(vocabulary)


def write_checkpoint(folder: Path, kind: Any = BertModel) -> Path:
    """A `kind` of BERT with 2 layers of 32 in the new folder `folder`."""
    folder.mkdir(parents=True)
    size = write_tokenizer(folder)
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=40,
        hidden_dropout_prob=0.05,
    )
    kind(config).save_pretrained(folder, safe_serialization=True)
    return folder


def sentence(draw: random.Random, words: tuple[str, ...]) -> str:
    """A few of `words` among words that say nothing."""
    return " ".join(["the", *draw.choices(words, k=draw.randint(1, 4)), *draw.choices(("old", "near", "town", "by"), k=draw.randint(1, 5))])


def write_rows(file: Path) -> Path:
    """120 sentences about birds and stones, one of them twice, and an empty one: JSONL with text and label."""
    draw = random.Random(0)  # noqa: S311 - data, not secrets
    rows = [{"text": sentence(draw, words), "label": label} for label, words in (("stone", STONES), ("bird", BIRDS)) for _ in range(60)]
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0], {"text": " ", "label": "bird"}]), "utf-8")
    return file
