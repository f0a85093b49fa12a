"""Texts as token ids: a bundle's tokenizer, opened and set to the model's maximum length."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .bundles import Bundle, not_loadable
from .errors import InvalidRequest
from .ngrams import MODEL_TYPE, NgramTokenizer

if TYPE_CHECKING:
    import tokenizers

__all__ = ["Encoded", "of_ngrams", "open_tokenizer", "pad_id"]

PAD_TOKENS = ("[PAD]", "<pad>")


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """One text as token ids and type ids, special tokens included. `offsets`: the tokens' character ranges, where asked for."""

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int]]
    truncated: bool


def open_tokenizer(path: Path, bundle: Bundle, *, own: bool) -> tokenizers.Tokenizer | NgramTokenizer:
    if of_ngrams(bundle):
        return _open_ngrams(path, bundle, own=own)
    import tokenizers

    try:
        words = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json" if path.is_dir() else path))
    except Exception:  # the library raises no narrower class
        detail, remedy = "its tokenizer.json is missing or damaged", "Save it with `tokenizers` (a fast tokenizer) and publish it anew."
        raise (not_loadable(detail, remedy) if own else _bad_tokenizer(f"the tokenizer cannot be loaded: {detail}", remedy)) from None
    if bundle.max_length <= words.num_special_tokens_to_add(False):
        raise not_loadable("its maximum length leaves no room for a text", "Correct `max_length` in the bundle's manifest.")
    vocabulary = bundle.config.get("vocab_size")
    if not own and isinstance(vocabulary, int) and words.get_vocab_size() > vocabulary:
        raise _bad_tokenizer("the tokenizer has more tokens than the model knows", "Name the tokenizer that the model was trained with.")
    words.no_padding()
    words.enable_truncation(bundle.max_length, stride=0, direction="right")
    return words


def of_ngrams(bundle: Bundle) -> bool:
    return bundle.config.get("model_type") == MODEL_TYPE


def _open_ngrams(path: Path, bundle: Bundle, *, own: bool) -> NgramTokenizer:
    if not own:
        raise _bad_tokenizer("the model reads n-grams and takes no tokenizer", "Leave the tokenizer out.")
    try:
        return NgramTokenizer.open(path, bundle.max_length)
    except (ValueError, KeyError, TypeError, OSError):
        raise not_loadable("its tokenizer.json is missing or damaged", "Train the model again.") from None


def pad_id(words: tokenizers.Tokenizer, bundle: Bundle) -> int:
    configured = bundle.config.get("pad_token_id")
    if isinstance(configured, int) and not isinstance(configured, bool) and configured >= 0:
        return configured
    return next((found for token in PAD_TOKENS if (found := words.token_to_id(token)) is not None), 0)


def _bad_tokenizer(detail: str, remedy: str) -> InvalidRequest:
    return InvalidRequest(detail, field="tokenizer", remedy=remedy)
