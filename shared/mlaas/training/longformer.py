"""Longformer's attention (Beltagy et al. 2020) in a form that ONNX can express for every length.

transformers' own code loops over chunks in Python, so a traced graph holds as many as the example had, and gives wrong results
for any other length. Here the text is cut into blocks of half a window, each of which attends to itself and its two
neighbours under a band mask: the same numbers (the parity check compares with transformers' own code), with shapes that
stay open. Memory grows with the length, not with its square. Padding to the window happens inside, block by block.

Global attention is that of the first token, where the model uses any: so transformers does it for classification.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch.nn.functional import pad

__all__ = ["exportable", "onnx_inputs"]

Tensor = torch.Tensor


@contextmanager
def exportable(model: Any) -> Iterator[None]:
    """Within, the attention of `model` is the one below if it is a Longformer; afterwards it is as it was."""
    if model.config.model_type != "longformer":
        yield
        return
    from transformers.models.longformer.modeling_longformer import LongformerSelfAttention

    changed = [module for module in model.modules() if isinstance(module, LongformerSelfAttention)]
    try:
        for module in changed:
            module.forward = MethodType(_attend, module)
        model.base_model._pad_to_window_size = _unpadded
        yield
    finally:
        for module in changed:
            del module.forward
        model.base_model.__dict__.pop("_pad_to_window_size", None)


def onnx_inputs(settings: Any) -> Any:
    """optimum's `settings` for exporting, with the inputs that a text encoder has: it asks for a global attention mask as well,
    which nothing that serves would know how to fill."""

    class TextInputs(type(settings)):  # type: ignore[misc]
        @property
        def inputs(self) -> dict[str, dict[int, str]]:
            return {name: axes for name, axes in super().inputs.items() if name in ("input_ids", "attention_mask")}

    settings.__class__ = TextInputs
    return settings


def _unpadded(**given: Any) -> tuple[Any, ...]:
    names = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "inputs_embeds")
    return (0, *(given[name] for name in names))


def _attend(
    self: Any,
    hidden_states: Tensor,
    attention_mask: Tensor,
    layer_head_mask: Tensor | None = None,
    is_index_masked: Tensor | None = None,
    is_index_global_attn: Tensor | None = None,
    is_global_attn: bool = False,
    output_attentions: bool = False,
) -> tuple[Tensor]:
    """Hidden states [rows, tokens, hidden]; `attention_mask` [rows, tokens] is negative for padding and positive for global tokens."""
    block, length = self.one_sided_attn_window_size, hidden_states.shape[1]
    query, key, value = (_heads(self, layer(hidden_states)) for layer in (self.query, self.key, self.value))
    query = query / math.sqrt(self.head_dim)
    whole = (length + block) // block * block  # the length, padded to blocks
    near = (attention_mask == 0).to(query.dtype)[:, None, :, None]
    usable = _neighbours(near, block, whole).transpose(-1, -2) * _band(block, query)  # [rows, 1, blocks, block, 3 block]
    asked = _blocks(query, block, whole)
    scores = asked @ _neighbours(key, block, whole).transpose(-1, -2)
    scores = torch.where(usable > 0, scores, torch.full_like(scores, torch.finfo(scores.dtype).min))
    if is_global_attn:
        scores = torch.cat([asked @ key[:, :, None, :1].transpose(-1, -2), scores], dim=-1)
    shares = scores.softmax(-1)
    found = shares[..., -3 * block :] @ _neighbours(value, block, whole)
    if is_global_attn:
        found = found + shares[..., :1] * value[:, :, None, :1]
    found = found.reshape(found.shape[0], self.num_heads, -1, self.head_dim)[:, :, :length]
    result = _joined(self, found) * (attention_mask >= 0).to(query.dtype)[..., None]
    if is_global_attn:
        result = torch.cat([_first(self, hidden_states, attention_mask), result[:, 1:]], dim=1)
    return (result,)


def _first(self: Any, hidden: Tensor, attention_mask: Tensor) -> Tensor:
    """The first token's attention to all others, [rows, 1, hidden]."""
    query = _heads(self, self.query_global(hidden[:, :1])) / math.sqrt(self.head_dim)
    key, value = _heads(self, self.key_global(hidden)), _heads(self, self.value_global(hidden))
    scores = query @ key.transpose(-1, -2)
    padding = (attention_mask < 0)[:, None, None, :]
    scores = scores.masked_fill(padding, torch.finfo(scores.dtype).min)
    return _joined(self, scores.softmax(-1) @ value)


def _heads(self: Any, values: Tensor) -> Tensor:
    return values.reshape(values.shape[0], -1, self.num_heads, self.head_dim).transpose(1, 2)


def _joined(self: Any, values: Tensor) -> Tensor:
    return values.transpose(1, 2).reshape(values.shape[0], -1, self.embed_dim)


def _blocks(values: Tensor, block: int, whole: int) -> Tensor:
    """[rows, heads, tokens, size] as [rows, heads, blocks, block, size]."""
    return _cut(pad(values, (0, 0, 0, block))[:, :, :whole], block)


def _neighbours(values: Tensor, block: int, whole: int) -> Tensor:
    """Each block with the one before and the one after it: [rows, heads, blocks, 3 block, size]; zeros beyond the ends."""
    padded = _cut(pad(values, (0, 0, block, 2 * block))[:, :, : whole + 2 * block], block)
    return torch.cat([padded[:, :, :-2], padded[:, :, 1:-1], padded[:, :, 2:]], dim=3)


def _cut(values: Tensor, block: int) -> Tensor:
    """`unflatten` would write the number of rows of the traced example into the graph."""
    return values.reshape(values.shape[0], values.shape[1], -1, block, values.shape[3])


def _band(block: int, like: Tensor) -> Tensor:
    """1 where a token of the middle block sees one of the three: at most `block` tokens before or after it."""
    distance = torch.arange(3 * block)[None] - torch.arange(block)[:, None]
    return ((distance >= 0) & (distance <= 2 * block)).to(like.dtype)
