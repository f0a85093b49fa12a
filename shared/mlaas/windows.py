"""Long texts as overlapping windows that fit a model, the same for training and for serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InvalidRequest

if TYPE_CHECKING:
    import tokenizers

__all__ = ["OVERLAP", "Window", "windows"]

OVERLAP = 128  # tokens that neighbouring windows share, as BERT's SQuAD script has it (doc_stride)


@dataclass(frozen=True, kw_only=True)
class Window:
    """One window's tokens, special ones included.

    `offsets` are the character ranges in the text and `words` the numbers of its words, as the tokenizer splits them; both are
    None for a token that is not of the text: a special one, or one of the question before it.
    """

    ids: list[int]
    type_ids: list[int]
    offsets: list[tuple[int, int] | None]
    words: list[int | None]


def windows(tokenizer: tokenizers.Tokenizer, text: str, max_length: int, *, before: str | None = None) -> list[Window]:
    """The windows of `text`, each of at most `max_length` tokens and with `before`, a question, in front of it.

    One window where everything fits, and at least one. Neighbours share OVERLAP tokens, or half of a window's room where that is
    less. Raises InvalidRequest where `before` leaves no room for the text. The tokenizer may cut texts or not.
    """
    whole = _whole(tokenizer, text)
    question = None if before is None else _whole(tokenizer, before)
    room = max_length - tokenizer.num_special_tokens_to_add(question is not None) - (len(question.ids) if question else 0)
    if room < 2:
        raise InvalidRequest(
            f"a question of {len(question.ids) if question else 0} tokens leaves no room for its text within {max_length}",
            remedy="Shorten the question, or use a model that takes longer texts.",
        )
    whole.truncate(room, stride=min(OVERLAP, room // 2))
    parts = [whole, *whole.overflowing]
    side = 0 if question is None else 1
    return [_window(tokenizer.post_process(question or part, part if question else None, True), side) for part in parts]


def _whole(tokenizer: tokenizers.Tokenizer, text: str) -> tokenizers.Encoding:
    """All tokens of a text, without special ones: what a tokenizer that truncates cuts off lies in consecutive pieces."""
    from tokenizers import Encoding

    first = tokenizer.encode(text, add_special_tokens=False)
    return Encoding.merge([first, *first.overflowing], growing_offsets=False) if first.overflowing else first


def _window(encoding: tokenizers.Encoding, side: int) -> Window:
    of_text: Sequence[bool] = [each == side for each in encoding.sequence_ids]
    return Window(
        ids=encoding.ids,
        type_ids=encoding.type_ids,
        offsets=[each if own else None for each, own in zip(encoding.offsets, of_text, strict=True)],
        words=[each if own else None for each, own in zip(encoding.word_ids, of_text, strict=True)],
    )
