"""A model that answers on the provider that loaded fastest moves to a faster one, if that one gives the same answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from . import precision

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["GPU_PADDING", "MARGIN", "SAME", "move", "token_budget"]

log = logging.getLogger(__name__)

GPU_PADDING = 256  # tokens that a GPU computes in the time of a call
SAME = 1e-3  # what answers in one variant may differ by, whatever provider computes them
MARGIN = 1e-4  # what those to the probes may: rounding in float32 makes a hundredth of it, bfloat16 or TF32 many times as much
BROKEN = 0.1  # what no variant's answers differ by: OpenVINO has mixed up the inputs of graphs that do not use all of theirs
SENTENCE = "The experiment measures the decay of a neutral particle near Frascati, Italy (2015). "
PROBE_TOKENS, VARIANT_PROBE_TOKENS = 1024, 128  # of the longest probe, and of that to another variant


def token_budget(provider: str) -> int:
    """Tokens of one batch where nothing else is set: a processor gains nothing by more, and holds their intermediate values."""
    return 16384 if provider == precision.CUDA else 1024


def move(model: Any, open_session: Callable[[], onnxruntime.InferenceSession], variant: str) -> bool:
    """Open another session for `model`, an engine.Model, and have it answer the requests from then on; whether it does.

    It does not where it cannot be opened, where it gives no numbers, or where it computes the variant that the model computes
    now and its answers (probabilities, or vectors of length 1) to probe texts differ by more than MARGIN. Requests that have begun
    end on the session that they began with. Another `variant` is one that requests allowed, and says so in their answers; it may
    differ by less than BROKEN.
    """
    longest, margin = (PROBE_TOKENS, MARGIN) if variant == model.variant else (VARIANT_PROBE_TOKENS, BROKEN)
    try:
        session = open_session()
        difference = _difference(model, session, longest)
    except Exception as error:  # whatever it is: the model answers as before
        log.warning("engine.not_moved", extra={"fields": {"model": model.bundle.digest, "error": type(error).__name__}})
        return False
    fields = {"model": model.bundle.digest, "provider": session.get_providers()[0], "variant": variant, "difference": difference}
    if not difference <= margin:
        log.warning("engine.not_moved", extra={"fields": fields})
        return False
    moved = model.on(session, variant)
    model.batcher.parallel = 1
    if moved.provider == precision.CUDA:
        model.batcher.padding = GPU_PADDING
    model.faster.append(moved)
    log.info("engine.moved", extra={"fields": fields})
    return True


def _difference(model: Any, session: onnxruntime.InferenceSession, longest: int) -> float:
    """The largest between the answers of the model's own session and another; NaN where one gives no numbers."""
    worst = 0.0
    for batch in _probes(model, longest):
        feed, mask = model._feed(batch)
        ours, theirs = (each.run(list(model.outputs), feed) for each in (model.session, session))
        for name, left, right in zip(model.outputs, ours, theirs, strict=True):
            apart = np.abs(_answer(name, left) - _answer(name, right))
            if apart.shape[:2] == mask.shape:
                apart = apart[mask.astype(bool)]  # what stands at padding is nobody's answer
            worst = float(np.maximum(worst, apart.max()))
    return worst


def _probes(model: Any, longest: int) -> Iterator[Any]:
    """Batches of encoded texts: the shortest, one of as many tokens as the model reads (or `longest`), and several lengths, padded."""
    sentence = len(model.encode([SENTENCE])[0].ids)
    most = max(1, min(model.bundle.max_length, longest) // sentence)
    yield model.encode(["A"])
    yield model.encode([SENTENCE * most])
    yield model.encode([SENTENCE[: 9 * number] for number in range(1, 9)])


def _answer(output: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of logits, and vectors scaled to length 1: what a caller gets, as far as the graph's outputs tell."""
    numbers = values.astype(np.float64)
    if "logits" in output:
        exponents = np.exp(numbers - numbers.max(axis=-1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
    return np.asarray(numbers / np.maximum(np.linalg.norm(numbers, axis=-1, keepdims=True), 1e-12))
