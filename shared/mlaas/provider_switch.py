"""A model that answers on the provider that loaded fastest moves to a faster one, if that one gives the same answers."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime

__all__ = ["DEVICE_PADDING", "SAME", "move"]

log = logging.getLogger(__name__)

DEVICE_PADDING = 256  # tokens that an accelerator computes in the time of a call
SAME = 1e-3  # what answers may differ by when a model moves to a faster provider
PROBES = ("A", "The experiment measures the decay of a neutral particle.", "word " * 60)


def move(model: Any, open_session: Callable[[], onnxruntime.InferenceSession]) -> bool:
    """Open another session for `model`, an engine.Model, and have it compute from then on; whether it does.

    It does not where it cannot be opened, or where its answers (probabilities, or vectors of length 1) to a few short texts differ
    by more than SAME.
    """
    try:
        session = open_session()
        difference = _difference(model, session)
    except Exception as error:  # whatever it is: the model answers as before
        log.warning("engine.not_moved", extra={"fields": {"model": model.bundle.digest, "error": type(error).__name__}})
        return False
    fields = {"model": model.bundle.digest, "provider": session.get_providers()[0], "difference": difference}
    if not difference <= SAME:
        log.warning("engine.not_moved", extra={"fields": fields})
        return False
    model.batcher.parallel, model.batcher.padding = 1, DEVICE_PADDING
    model.faster.append(session)
    log.info("engine.moved", extra={"fields": fields})
    return True


def _difference(model: Any, session: onnxruntime.InferenceSession) -> float:
    """The largest between the answers of the model's own session and another; NaN where one gives no numbers."""
    worst = 0.0
    for one in model.encode(PROBES):
        feed, _ = model._feed([one])  # by itself: nothing is padded
        ours, theirs = (each.run(list(model.outputs), feed) for each in (model.session, session))
        for name, left, right in zip(model.outputs, ours, theirs, strict=True):
            worst = float(np.maximum(worst, np.abs(_answer(name, left) - _answer(name, right)).max()))
    return worst


def _answer(output: str, values: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities of logits, and vectors scaled to length 1: what a caller gets, as far as the graph's outputs tell."""
    numbers = values.astype(np.float64)
    if "logits" in output:
        exponents = np.exp(numbers - numbers.max(axis=-1, keepdims=True))
        return np.asarray(exponents / exponents.sum(axis=-1, keepdims=True))
    return np.asarray(numbers / np.maximum(np.linalg.norm(numbers, axis=-1, keepdims=True), 1e-12))
