"""A tokenizer trained on a corpus, of the kind that an architecture is known with: WordPiece for BERT, byte-level BPE for RoBERTa."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from ..errors import InvalidRequest

__all__ = ["BYTE_LEVEL", "kind_of", "train_tokenizer"]

# Model types that were published with byte-level BPE; all others get BERT's WordPiece, lower-cased and without accents.
BYTE_LEVEL = frozenset({"gpt2", "longformer", "roberta"})
SEEN_TWICE = 2  # a piece that occurs once is noise: BERT's and RoBERTa's vocabularies were made so
CHARACTERS = 1000  # that have a piece of their own, as in BERT
WORDPIECE = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
BPE = {"cls_token": "<s>", "pad_token": "<pad>", "sep_token": "</s>", "unk_token": "<unk>", "mask_token": "<mask>"}


def kind_of(model_type: str) -> str:
    """`wordpiece` or `byte-level-bpe`."""
    return "byte-level-bpe" if model_type in BYTE_LEVEL else "wordpiece"


def train_tokenizer(texts: Sequence[str], model_type: str, vocab_size: int, folder: Path, tick: Callable[[], None]) -> None:
    """Train on `texts` and write tokenizer.json and tokenizer_config.json into `folder`; the same texts give the same files.

    `tick` is called for every text and may raise to cancel. Raises InvalidRequest where the texts give no vocabulary.
    """
    byte_level = model_type in BYTE_LEVEL
    special = BPE if byte_level else WORDPIECE
    for _ in texts:
        tick()
    tokenizer = (_byte_level if byte_level else _wordpiece)(texts, vocab_size)
    if tokenizer.get_vocab_size() <= len(special):
        raise InvalidRequest(
            "the texts give no vocabulary", field="dataset.text_column", remedy="Give more texts, or the column that holds them."
        )
    tokenizer.add_special_tokens(list(special.values()))
    if byte_level:
        tokenizer.add_special_tokens([AddedToken(BPE["mask_token"], lstrip=True)])  # the space before a mask belongs to it
    around = [(special[name], tokenizer.token_to_id(special[name])) for name in ("sep_token", "cls_token")]
    tokenizer.post_processor = processors.RobertaProcessing(*around) if byte_level else processors.BertProcessing(*around)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(special), "utf-8")


def _wordpiece(texts: Sequence[str], size: int) -> Tokenizer:
    """The trainer breaks ties by the numbers of pieces, and numbers those that continue a word as its hash map yields them: so
    that two trainings agree, they are numbered before it begins. As its special tokens they would stay whole in every text, and
    so the tokenizer is made anew from the vocabulary."""
    trained, alphabet = _bert(models.WordPiece(unk_token=WORDPIECE["unk_token"])), _alphabet(texts)
    first = [*WORDPIECE.values(), *(f"##{character}" for character in alphabet)]  # padding is 0, as in BERT
    trainer = trainers.WordPieceTrainer(
        vocab_size=size,
        min_frequency=SEEN_TWICE,
        special_tokens=first,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    trained.train_from_iterator(iter(texts), trainer)
    return _bert(models.WordPiece(trained.get_vocab(), unk_token=WORDPIECE["unk_token"]))


def _bert(model: Any) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _alphabet(texts: Sequence[str]) -> list[str]:
    """The commonest characters of the texts as BERT reads them, sorted."""
    normalizer, seen = normalizers.BertNormalizer(lowercase=True), Counter[str]()
    for text in texts:
        seen.update(normalizer.normalize_str(text))
    common = sorted((character for character in seen if not character.isspace()), key=lambda character: (-seen[character], character))
    return sorted(common[:CHARACTERS])


def _byte_level(texts: Sequence[str], size: int) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        min_frequency=SEEN_TWICE,
        special_tokens=list(BPE.values()),  # in this order, so that padding is 1, as in RoBERTa
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(iter(texts), trainer)
    return tokenizer
