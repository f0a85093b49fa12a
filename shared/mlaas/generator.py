"""Text generation: texts in, what a causal language model writes after them out. No torch: a loop around ONNX Runtime."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import timing
from .engine import OUTPUT_BYTES
from .errors import InvalidRequest
from .predictions import GeneratedText, GenerateSettings

if TYPE_CHECKING:
    from .engine import Model

__all__ = ["generate"]

OBJECTIVE = "causal-lm"
ROWS = 16  # texts that are continued together


@dataclass
class _Row:
    """One text while it is continued. `room` is how many tokens may still follow."""

    number: int
    prompt: list[int]
    room: int
    draw: np.random.Generator
    new: list[int] = field(default_factory=list)
    ended: bool = False


def generate(model: Model, texts: Sequence[str], settings: GenerateSettings) -> list[GeneratedText]:
    """What follows each text: at most `max_new_tokens` tokens, and no more than the model's maximum length leaves.

    What a text gets does not depend on the others. Raises InvalidRequest for a model that is no causal language model and for a
    text that fills the model's maximum length.
    """
    if model.bundle.objective != OBJECTIVE:
        raise InvalidRequest(
            f"the model's objective is {model.bundle.objective}: it does not continue texts",
            field="model.objective",
            remedy=f"Name a model whose objective is {OBJECTIVE}.",
        )
    with timing.span("tokenize"):
        rows = [_row(model, number, text, settings) for number, text in enumerate(texts)]
    allowed, ends = _allowed(model), _ends(model)
    with timing.span("infer"):
        for batch in _batches(model, rows):
            _continue(model, batch, settings, allowed, ends)
    return [
        GeneratedText(text=_decoded(model, row, ends), tokens=len(row.new), finish="end" if row.ended else "length")
        for row in sorted(rows, key=lambda row: row.number)
    ]


def _row(model: Model, number: int, text: str, settings: GenerateSettings) -> _Row:
    encoding = model.tokenizer.encode(text)
    limit = model.bundle.max_length
    if encoding.overflowing or len(encoding.ids) >= limit:
        raise InvalidRequest(
            f"the text leaves no room: it and what follows have to fit into {limit} tokens",
            field=f"predict_input.input_text.{number}",
            remedy="Send the end of the text only.",
        )
    ids = list(encoding.ids)
    while ids and encoding.special_tokens_mask[len(ids) - 1] and len(ids) > 1:
        ids.pop()  # the mark of an end, after which nothing would follow
    begin = next((each for name in ("bos_token_id", "eos_token_id") if isinstance(each := model.bundle.config.get(name), int)), None)
    ids = ids or ([begin] if begin is not None else [])
    if not ids:
        raise InvalidRequest("the text is empty", field=f"predict_input.input_text.{number}", remedy="Send the beginning of a text.")
    room = min(settings.max_new_tokens, limit - len(ids))
    return _Row(number=number, prompt=ids, room=room, draw=np.random.default_rng([settings.seed, number]))


def _batches(model: Model, rows: Sequence[_Row]) -> Iterator[list[_Row]]:
    """Texts of the same number of tokens together, so that nothing is padded."""
    by_length: dict[int, list[_Row]] = defaultdict(list)
    for row in rows:
        by_length[len(row.prompt)].append(row)
    for length, group in by_length.items():
        size = max(1, min(ROWS, OUTPUT_BYTES // (4 * length * max(1, model.tokenizer.get_vocab_size()))))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _continue(model: Model, rows: list[_Row], settings: GenerateSettings, allowed: NDArray[np.bool_], ends: frozenset[int]) -> None:
    past = model.empty_past(len(rows))
    while rows:
        logits, past = _next(model, rows, past)
        going = []
        for place, (row, values) in enumerate(zip(rows, logits, strict=True)):
            chosen = _chosen(values, settings, allowed, row.draw)
            row.ended = chosen in ends
            if not row.ended:
                row.new.append(chosen)
            if not row.ended and len(row.new) < row.room:
                going.append(place)
        if len(going) < len(rows):
            rows = [rows[place] for place in going]
            past = {name: values[going] for name, values in past.items()}


def _next(model: Model, rows: Sequence[_Row], past: dict[str, NDArray[Any]]) -> tuple[NDArray[Any], dict[str, NDArray[Any]]]:
    """Logits (rows, vocabulary) of the next token, and what the model has read by then, if it keeps that."""
    whole = np.array([row.prompt + row.new for row in rows], dtype=np.int64)
    read = next((values.shape[2] for values in past.values()), 0)
    given = {
        "input_ids": whole[:, read:],
        "attention_mask": np.ones_like(whole),
        "token_type_ids": np.zeros_like(whole[:, read:]),
        "position_ids": np.broadcast_to(np.arange(read, whole.shape[1]), whole[:, read:].shape),
        **past,
    }
    names = ["logits", *(name.replace("past_key_values.", "present.") for name in past)]
    values = model.session.run(names, {name: given[name] for name in model.inputs})
    return values[0][:, -1], dict(zip(past, values[1:], strict=True))


def _chosen(logits: NDArray[Any], settings: GenerateSettings, allowed: NDArray[np.bool_], draw: np.random.Generator) -> int:
    """The id of the next token, from logits (vocabulary or more,)."""
    values = logits.astype(np.float64)[: len(allowed)]
    if not np.isfinite(values).all():
        raise RuntimeError("the language model's output is not finite")
    values = np.where(allowed[: len(values)], values, -np.inf)
    if settings.top_k == 1:
        return int(values.argmax())
    order = np.argsort(-values, kind="stable")[: settings.top_k]
    scaled = values[order] / settings.temperature
    weights = np.exp(scaled - scaled[0])
    return int(order[draw.choice(len(order), p=weights / weights.sum())])


def _allowed(model: Model) -> NDArray[np.bool_]:
    """Which ids may follow: all but special tokens that are no end, and rows that only pad the vocabulary."""
    allowed = np.ones(model.tokenizer.get_vocab_size(), dtype=bool)
    special = [index for index, token in model.tokenizer.get_added_tokens_decoder().items() if token.special and index < len(allowed)]
    allowed[special] = False
    allowed[[index for index in _ends(model) if index < len(allowed)]] = True
    return allowed


def _ends(model: Model) -> frozenset[int]:
    named = model.bundle.config.get("eos_token_id")
    return frozenset([named] if isinstance(named, int) else named if isinstance(named, list) else [])


def _decoded(model: Model, row: _Row, ends: frozenset[int]) -> str:
    """The new tokens as they read after the prompt: most tokenizers write a token differently at the beginning of a text."""
    before, whole = (model.tokenizer.decode(ids, skip_special_tokens=True) for ids in (row.prompt, row.prompt + row.new))
    return str(whole.removeprefix(before)) if whole.startswith(before) else str(model.tokenizer.decode(row.new))
