"""How much memory a run will need, said before it starts.

Weights, gradients and AdamW's two moments: 4 bytes each for every parameter that is trained (mixed precision keeps all of
them in fp32). Activations of one encoder layer, for b rows of s tokens, hidden size h, feed-forward size f, a heads and k
keys that each token attends to (k = s; attention_window + 1 for Longformer), after Korthikanti et al. 2022, "Reducing
Activation Recomputation in Large Transformer Models", equation 1 and the list that leads to it, with the sizes of the elements
(e bytes) kept apart from those of the dropout masks (1 byte) and with f in place of 4h:

    s b ((8 h + 2 f) e + 2 h)  +  a s k b (2 e + 1)

which is the paper's s b h (34 + 5 a s / h) for e = 2, f = 4 h, k = s. With gradient checkpointing each layer keeps its
input only, and one layer at a time all; the backward pass needs the size of BACKWARD layers more. The output layer of a
language model adds logits and their gradient, in fp32. bench/training_memory.py compares this with measured peaks.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from ..contracts import ModelTrain
from ..errors import InvalidRequest
from .checkpoints import drawn
from .memory import available
from .optimization import Compute

__all__ = ["Estimate", "Shape", "check", "estimate", "parameters"]

TOO_FAR = 1.5  # beyond this share of what there is a run is refused: the formula is within some tens of percent
WORD = 4  # bytes of fp32
LIBRARIES = 850_000_000  # bytes that torch, transformers and onnx themselves take, measured
# Layers whose gradients are alive at the peak of the backward pass, with what the allocator holds back: measured, bench/training_memory.py.
BACKWARD = 2
MASKED = 0.15  # of the tokens get logits, at most
LANGUAGE_MODELS = {"masked-lm": MASKED, "causal-lm": 1.0}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """What runs at once: rows of a batch, and tokens of the longest."""

    rows: int
    tokens: int


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Bytes by what they are for; `available` is what there is, None where that cannot be found out."""

    weights: int
    gradients: int
    optimizer: int
    activations: int
    logits: int
    libraries: int
    available: int | None
    processes: int = 1

    @property
    def needed(self) -> int:
        """All together."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits + self.libraries

    def of(self, processes: int) -> Estimate:
        """What as many processes need together of the same memory."""
        each = ("weights", "gradients", "optimizer", "activations", "logits", "libraries")
        return replace(self, **{name: processes * getattr(self, name) for name in each}, processes=processes)

    def figures(self) -> dict[str, Any]:
        """For the task document."""
        figures: dict[str, Any] = {"needed": self.needed, "available": self.available, "activations": self.activations + self.logits}
        if self.available is not None and self.needed > self.available:
            figures["warning"] = "the run may need more memory than there is"
        return {name: value for name, value in figures.items() if value is not None}


def parameters(auto: Any, config: Any) -> int:
    """How many parameters a model of `config` has; nothing is allocated. Raises InvalidRequest where `config` makes none."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in drawn(auto, config).parameters())


def estimate(config: Any, total: int, trained: int, shape: Shape, settings: ModelTrain, compute: Compute, objective: str) -> Estimate:
    """The need of a run with `total` parameters, `trained` of them trained."""
    keeps_best = settings.keep == "best" or (settings.early_stopping is not None and settings.keep is None)
    element = WORD if compute.dtype == torch.float32 else 2
    one = layer_activations(config, shape, element)
    layers = _size(config, "num_hidden_layers", "n_layers", "n_layer")
    hidden = _size(config, "hidden_size", "dim", "n_embd")
    inputs = shape.rows * shape.tokens * hidden * element
    alive = 1 if settings.gradient_checkpointing else layers
    predicted = LANGUAGE_MODELS.get(objective, 0.0) * shape.rows * shape.tokens
    return Estimate(
        weights=WORD * (total + trained * keeps_best) + (total * element if element < WORD else 0),  # autocast keeps a copy of its own
        gradients=WORD * trained,
        optimizer=2 * WORD * trained,
        activations=(BACKWARD + alive) * one + inputs * (layers if settings.gradient_checkpointing else 1),
        logits=int(3 * WORD * predicted * int(getattr(config, "vocab_size", 0))),
        libraries=LIBRARIES if compute.where.type == "cpu" else 0,
        available=there_is(compute.where),
    )


def layer_activations(config: Any, shape: Shape, element: int) -> int:
    """Bytes that one layer keeps for its gradient."""
    hidden = _size(config, "hidden_size", "dim", "n_embd")
    feed_forward = _size(config, "intermediate_size", "hidden_dim", "n_inner") or 4 * hidden
    heads = _size(config, "num_attention_heads", "n_heads", "n_head")
    window = getattr(config, "attention_window", None)
    keys = min(shape.tokens, max(window) + 1 if isinstance(window, list) else window + 1) if window else shape.tokens
    per_token = (8 * hidden + 2 * feed_forward) * element + 2 * hidden + heads * keys * (2 * element + 1)
    return shape.rows * shape.tokens * per_token


def check(found: Estimate) -> None:
    """Raise InvalidRequest if the run cannot fit by far: it would be killed after the work of preparing it."""
    if found.available is None or found.needed <= TOO_FAR * found.available:
        return
    movable = found.activations + found.logits
    small = movable > found.needed - found.available
    raise InvalidRequest(
        f"the run needs about {found.needed / 1e9:.1f} GB of memory and there are {found.available / 1e9:.1f} GB",
        field="model_train.batch_size" if small else "model.path",
        remedy="Lower `batch_size` (with `gradient_accumulation` the step stays the same) or `max_length`, or set `gradient_checkpointing`."
        if small
        else "Give the job more memory, give a smaller model, or train adapters with `model_train.lora`.",
    )


def there_is(where: torch.device) -> int | None:
    """Bytes that a run may take on the device where it computes."""
    return int(torch.cuda.mem_get_info(where)[0]) if where.type == "cuda" else available()


def _size(config: Any, *names: str) -> int:
    return next((int(value) for name in names if (value := getattr(config, name, None)) is not None), 0)
