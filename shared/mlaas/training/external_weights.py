"""A graph's weights in a file beside it, which ONNX Runtime maps into memory instead of reading and copying it."""

from __future__ import annotations

from pathlib import Path

import onnx

__all__ = ["FILE", "put_beside"]

FILE = "model.onnx_data"  # as Hugging Face's exporters call it
SMALL = 16 * 1024**2  # a smaller graph is read as fast in one file
TENSOR_BYTES = 1024  # smaller tensors stay in the graph: shapes are computed from some of them


def put_beside(graph: Path, small: int = SMALL) -> bool:
    """Move the weights of `graph`, a file of at least `small` bytes, into FILE beside it; whether they were moved.

    A graph that has weights beside it already stays as it is.
    """
    weights = graph.with_name(FILE)
    if weights.exists() or graph.stat().st_size < small:
        return False
    model = onnx.load(graph)
    onnx.save(model, graph, save_as_external_data=True, all_tensors_to_one_file=True, location=FILE, size_threshold=TENSOR_BYTES)
    return True
