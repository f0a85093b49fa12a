"""Whether the exported graph computes what the PyTorch model computes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..errors import MlaasError
from .batches import Batch

__all__ = ["PRESENT", "ROWS", "TOLERANCE", "ParityError", "compare", "computed", "open_session", "sample"]

ROWS = 64
SLICE = 8  # rows compared at once: a language model's logits are large
TOLERANCE = 1e-3  # of the largest logit, or of 1 if that is smaller
AGREEMENT = 0.99  # a tie may fall either way, more may not
PAST, PRESENT = "past_key_values.", "present."  # what a language model has read before, taken and given
SPANS = frozenset({"start_logits", "end_logits"})  # outputs [rows, tokens]: the tokens are what is chosen among


class ParityError(MlaasError):
    """The exported model does not compute what the trained one does; it is not published."""


Inputs = dict[str, torch.Tensor]
Array = np.ndarray[Any, Any]


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
    session = open_session(graph)
    outputs = [output.name for output in session.get_outputs() if not output.name.startswith(PRESENT)]
    rows, worst, scale, same, seen = 0, 0.0, 1.0, 0, 0
    model.eval()
    for batch in inputs:
        with torch.inference_mode():
            result = model(**batch)
        found = computed(session, outputs, {name: tensor.numpy() for name, tensor in batch.items()})
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


def computed(session: Any, outputs: list[str], batch: dict[str, Array]) -> list[Array]:
    """The graph's outputs. One that takes what it has read before gets a batch in two halves, so that this is compared as well."""
    accepted = {each.name: each.shape for each in session.get_inputs()}
    ids = batch["input_ids"]
    batch = {**batch, "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape)}
    past = {name: np.zeros((len(ids), shape[1], 0, shape[3]), np.float32) for name, shape in accepted.items() if name.startswith(PAST)}
    halves = [(0, ids.shape[1] // 2), (ids.shape[1] // 2, ids.shape[1])] if past and ids.shape[1] > 1 else [(0, ids.shape[1])]
    found: list[list[Array]] = []
    for start, end in halves:
        part = {name: values[:, :end] if name == "attention_mask" else values[:, start:end] for name, values in batch.items()}
        names = [*outputs, *(name.replace(PAST, PRESENT) for name in past)]
        computed = session.run(names, {name: values for name, values in {**part, **past}.items() if name in accepted})
        found.append(computed[: len(outputs)])
        past = dict(zip(past, computed[len(outputs) :], strict=True))
    return found[0] if len(found) == 1 else [np.concatenate(parts, axis=1) for parts in zip(*found, strict=True)]


def open_session(graph: Path, providers: Sequence[Any] = ("CPUExecutionProvider",)) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(graph), options, providers=list(providers))
