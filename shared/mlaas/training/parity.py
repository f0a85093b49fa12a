"""Whether the exported graph computes what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import MlaasError
from .batches import Batch

__all__ = ["ROWS", "TOLERANCE", "ParityError", "compare", "sample"]

ROWS = 64
SLICE = 8  # rows compared at once: a language model's logits are large
TOLERANCE = 1e-3  # of the largest logit, or of 1 if that is smaller
AGREEMENT = 0.99  # a tie may fall either way, more may not
SPANS = frozenset({"start_logits", "end_logits"})  # outputs [rows, tokens]: the tokens are what is chosen among


class ParityError(MlaasError):
    """The exported model does not compute what the trained one does; it is not published."""


Inputs = dict[str, torch.Tensor]


def sample(batches: Iterable[Batch]) -> Iterator[Inputs]:
    """Inputs of up to ROWS rows, taken evenly from all `batches`, SLICE rows at a time."""
    kept: Sequence[Batch] = list(batches)
    share, left = -(-ROWS // max(1, len(kept))), ROWS
    for batch in kept:
        take = min(share, left, len(batch.inputs["input_ids"]))
        left -= take
        for start in range(0, take, SLICE):
            yield {name: tensor[start : min(start + SLICE, take)] for name, tensor in batch.inputs.items()}


def compare(model: Any, graph: Path, inputs: Iterable[Inputs], tick: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Rows, largest difference, argmax agreement and tolerance. Raises ParityError beyond the tolerance.

    Both compute in float32 on the CPU; positions that are padding are not compared.
    """
    session = _session(graph)
    outputs = [output.name for output in session.get_outputs()]
    accepted = {each.name for each in session.get_inputs()}
    rows, worst, scale, same, seen = 0, 0.0, 1.0, 0, 0
    model.eval()
    for batch in inputs:
        with torch.inference_mode():
            result = model(**batch)
        found = session.run(outputs, {name: tensor.numpy() for name, tensor in batch.items() if name in accepted})
        real = batch["attention_mask"].numpy().astype(bool)
        for name, ours in zip(outputs, found, strict=True):
            left, right = (_compared(name, values, real) for values in (result[name].numpy(), ours))
            worst = float(np.maximum(worst, np.abs(left - right).max()))  # np.maximum keeps a NaN, max() may lose it
            scale = max(scale, float(np.abs(left).max()))
            same, seen = same + int((left.argmax(-1) == right.argmax(-1)).sum()), seen + len(left)
        rows += len(real)
        tick()
    figures = {"rows": rows, "max_abs_diff": worst, "agreement": same / max(1, seen), "tolerance": TOLERANCE * scale}
    if not (rows and worst <= figures["tolerance"] and figures["agreement"] >= AGREEMENT):
        raise ParityError(
            f"the exported model differs from the trained one by {worst:.2g} in its logits, {figures['tolerance']:.2g} is tolerated; "
            "it was not published",
            remedy="Report this with the versions of torch, optimum-onnx and onnxruntime.",
        )
    return figures


def _compared(name: str, values: np.ndarray[Any, Any], real: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """[n, classes]: one row for each text, or for each token that is not padding."""
    if values.ndim == 3:
        return np.asarray(values[real])
    return np.asarray(np.where(real, values, 0.0)) if name in SPANS else values


def _session(graph: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
