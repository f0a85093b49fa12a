"""Masked language modelling: texts with masks in, the likeliest tokens for every mask out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .contracts import Candidate, FilledText
from .errors import InvalidRequest

if TYPE_CHECKING:
    from .engine import Model
    from .tokens import Encoded

__all__ = ["fill_masks"]

OBJECTIVE = "masked-lm"
COMMON_MASK = "[MASK]"  # accepted from every caller, whatever the model's own mask token is
_MASKS = (COMMON_MASK, "<mask>")


@dataclass(frozen=True, kw_only=True)
class _Masked:
    """A text, its tokens, and the positions of its masks among them."""

    text: str
    encoded: Encoded
    positions: list[int]


@dataclass(frozen=True, kw_only=True)
class _Token:
    """A vocabulary entry. `shown` is what a caller sees, `text` what is written; `joins`: it continues the word before it."""

    shown: str
    text: str
    joins: bool
    spaced: bool


def fill_masks(model: Model, texts: Sequence[str], top_k: int = 5) -> list[FilledText]:
    """For each text, `top_k` candidates for each of its masks, likeliest first, and the text with the likeliest filled in.

    All masks of a text are answered from one pass, each as if the others stayed masked. Special tokens are no candidates.
    Raises InvalidRequest for a model that is not a masked language model, for a text without a mask, and for a text so long
    that a mask lies beyond the model's maximum length.
    """
    mask = _mask_token(model)
    masked = _find_masks(model, [text.replace(COMMON_MASK, mask) for text in texts], mask)
    excluded = [i for i, token in model.tokenizer.get_added_tokens_decoder().items() if token.special]
    found: list[list[list[tuple[int, float]]]] = [[] for _ in texts]
    for indices, logits, _ in model.run([one.encoded for one in masked], output="logits" if "logits" in model.outputs else None):
        for index, rows in zip(indices, logits, strict=True):
            found[index] = [
                _best(rows[position], top_k, excluded, model.tokenizer.get_vocab_size()) for position in masked[index].positions
            ]
    return [_filled(model, mask, one, candidates) for one, candidates in zip(masked, found, strict=True)]


def _mask_token(model: Model) -> str:
    objective = model.bundle.objective
    if objective != OBJECTIVE:
        other = {"text-classification": ", or send the request to `classify`", "no-objective": ", or send the request to `search`"}.get(
            objective, ""
        )
        raise InvalidRequest(
            f"the model's objective is {objective}: it does not fill masks",
            field="model.objective",
            remedy=f"Name a model whose objective is {OBJECTIVE}{other}.",
        )
    for token in (model.bundle.mask_token, *_MASKS):
        if token and model.tokenizer.token_to_id(token) is not None:
            return token
    raise InvalidRequest("the tokenizer has no mask token", field="tokenizer", remedy="Name the tokenizer that the model was trained with.")


def _find_masks(model: Model, texts: Sequence[str], mask: str) -> list[_Masked]:
    mask_id = model.tokenizer.token_to_id(mask)
    masked = []
    for index, (text, encoded) in enumerate(zip(texts, model.encode(texts, offsets=True), strict=True)):
        positions = [position for position, token in enumerate(encoded.ids) if token == mask_id]
        field = f"predict_input.input_text.{index}"
        if encoded.truncated and text.count(mask) > len(positions):
            limit = model.bundle.max_length
            raise InvalidRequest(
                f"a mask lies beyond the model's maximum length of {limit} tokens",
                field=field,
                remedy=f"Shorten the text so that all its masks are within {limit} tokens, or send it in parts.",
            )
        if not positions:
            raise InvalidRequest("the text has no mask", field=field, remedy=f"Put {mask} where a token is to be predicted.")
        masked.append(_Masked(text=text, encoded=encoded, positions=positions))
    return masked


def _best(logits: NDArray[Any], top_k: int, excluded: list[int], vocabulary: int) -> list[tuple[int, float]]:
    """The `top_k` likeliest token ids with their probabilities, of one row of logits (vocabulary,)."""
    values = logits.astype(np.float64)
    if not np.isfinite(values).all():
        raise RuntimeError("the masked language model's output is not finite")
    exponents = np.exp(values - values.max())
    probabilities = exponents / exponents.sum()
    allowed = np.ones(len(probabilities), dtype=bool)
    allowed[[index for index in excluded if index < len(allowed)]] = False
    allowed[vocabulary:] = False  # rows that pad the vocabulary to a round size name no token
    ids = np.flatnonzero(allowed)
    if len(ids) > top_k:
        ids = ids[np.argpartition(-probabilities[ids], top_k - 1)[:top_k]]
    order = np.lexsort((ids, -probabilities[ids]))
    return [(int(index), float(probabilities[index])) for index in ids[order]]


def _filled(model: Model, mask: str, one: _Masked, found: list[list[tuple[int, float]]]) -> FilledText:
    tokens = [[(_token(model, index), probability) for index, probability in candidates] for candidates in found]
    text, end = "", 0
    for position, candidates in zip(one.positions, tokens, strict=True):
        start, stop = one.encoded.offsets[position]
        start = max(start, one.text.find(mask, start, stop))  # some tokenizers count the space before a mask as part of it
        text = _joined(text + one.text[end:start], candidates[0][0])
        end = start + len(mask)
    masks = [[Candidate(token=token.shown, probability=probability) for token, probability in candidates] for candidates in tokens]
    return FilledText(masks=masks, filled=text + one.text[end:], truncated=one.encoded.truncated)


def _joined(before: str, token: _Token) -> str:
    if token.joins:
        before = before.rstrip(" ")
    elif token.spaced and before[-1:].isalnum():
        before += " "
    return before + token.text


def _token(model: Model, index: int) -> _Token:
    """A token as text, by the marks of its kind of vocabulary: `##` continues a word (WordPiece), `Ġ` or `▁` begins one (BPE, Unigram)."""
    from tokenizers import models

    raw = model.tokenizer.id_to_token(index)
    kind = model.tokenizer.model
    if isinstance(kind, models.WordPiece):
        prefix = kind.continuing_subword_prefix
        joins = raw.startswith(prefix) and raw != prefix
        return _Token(shown=raw, text=raw.removeprefix(prefix) if joins else raw, joins=joins, spaced=False)
    if isinstance(kind, models.BPE | models.Unigram):
        text = model.tokenizer.decode([index], skip_special_tokens=False).strip()
        begins = raw.startswith(("Ġ", "▁"))
        return _Token(shown=text, text=text, joins=not begins, spaced=begins)
    return _Token(shown=raw, text=raw, joins=False, spaced=False)
