"""Smaller graphs of an exported one: int8, calibrated or dynamic, for CPUs, and half precision, for GPUs.

int8 is static: weights and activations of the layers are 8 bits wide, and the ranges of the activations are those that training rows
had (MinMax: of the calibrations that ONNX Runtime has it needs the least memory, and on a classifier none was better). Weights are
scaled for each output, and use 7 bits: with 8, processors without VNNI add up to more than 16 bits hold, and would answer otherwise
than the one that measured. Layers that narrow stay in float32: behind an activation function a few numbers are far larger than the
others, and leave those no steps. Dynamic int8 finds the ranges of each batch while it computes, and so needs no rows: which of the two is
faster and loses less depends on the model and the processor, so a training may make and measure both.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from .batches import Batch
from .parity import PAST

__all__ = ["ROWS", "failures", "fp16", "int8", "int8_dynamic", "narrowing", "sampled"]

ROWS, PER_BATCH, SLICE = 256, 16, 8  # training rows that ranges are taken from, at most so many of one batch, and fed at once
LAYERS = ("MatMul", "Gemm")


def sampled(batches: Iterable[Batch]) -> Iterator[dict[str, np.ndarray[Any, Any]]]:
    """Inputs of up to ROWS rows of the first of `batches`, SLICE rows at a time."""
    left = ROWS
    for batch in batches:
        take = min(PER_BATCH, left, len(batch.inputs["input_ids"]))
        for start in range(0, take, SLICE):
            yield {name: tensor[start : min(start + SLICE, take)].numpy() for name, tensor in batch.inputs.items()}
        left -= take
        if not left:
            return


def int8(graph: Path, target: Path, rows: Iterable[dict[str, np.ndarray[Any, Any]]]) -> None:
    """Write `graph` with layers in int8 to `target`; `rows` are inputs [rows, length] that ranges are taken from."""
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    with _quietly():
        quantize_static(
            graph,
            target,
            _Rows(graph, rows),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=[*LAYERS, "Gather"],  # Gather: the embedding of tokens, a third of a small model
            nodes_to_exclude=narrowing(graph),
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            extra_options={"MatMulConstBOnly": True},
        )


def int8_dynamic(graph: Path, target: Path) -> None:
    """Write `graph` with weights in int8 to `target`, scaled for each output and with 7 bits, as `int8` does."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quietly():
        quantize_dynamic(graph, target, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)


def narrowing(graph: Path) -> list[str]:
    """The names of the layers of a graph that give fewer numbers than they take."""
    import onnx

    model = onnx.load(graph, load_external_data=False).graph
    shapes = {each.name: tuple(each.dims) for each in model.initializer}
    found = []
    for node in model.node:
        shape = shapes.get(node.input[1], ()) if node.op_type in LAYERS else ()
        if len(shape) == 2:
            turned = any(each.name == "transB" and each.i for each in node.attribute)
            taken, given = reversed(shape) if turned else shape
            found += [node.name] if given < taken and node.name else []
    return found


def fp16(graph: Path, target: Path) -> None:
    """Write `graph` in half precision to `target`; its inputs and outputs stay as they are."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=True), target)


class _Rows:
    """The rows as ONNX Runtime's calibration asks for them: `get_next` gives inputs of `graph`, None at the end."""

    def __init__(self, graph: Path, rows: Iterable[dict[str, np.ndarray[Any, Any]]]) -> None:
        import onnx

        inputs = onnx.load(graph, load_external_data=False).graph.input
        self._shapes = {each.name: [dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in inputs}
        self._rows = iter(rows)

    def get_next(self) -> dict[str, np.ndarray[Any, Any]] | None:
        if (batch := next(self._rows, None)) is None:
            return None
        ids = batch["input_ids"]
        given = {**batch, "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape)}
        past = {
            name: np.zeros((len(ids), shape[1], 0, shape[3]), np.float32) for name, shape in self._shapes.items() if name.startswith(PAST)
        }
        return {name: values for name, values in {**given, **past}.items() if name in self._shapes}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The library advises on the root logger, and prints."""
    noisy = logging.getLogger()
    before, noisy.level = noisy.level, max(noisy.level, logging.ERROR)
    try:
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        noisy.level = before


def failures() -> tuple[type[Exception], ...]:
    """What the libraries raise for a graph that they cannot handle."""
    from google.protobuf.message import Error  # type: ignore[import-untyped]
    from onnx.checker import ValidationError
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    ours = (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented, state.RuntimeException)
    return (*ours, Error, ValidationError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError)
