"""A fitted scikit-learn pipeline as an ONNX graph: the numbers of n-grams in, logits out. And whether it computes the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MlaasError
from ..ngrams import NgramTokenizer

__all__ = ["PipelineParityError", "compare", "write_graph"]

ROWS = 5000  # texts compared at the most
SLICE = 64  # texts compared at once
TOLERANCE = 1e-4  # of a probability
AGREEMENT = 0.999  # of the labels; a tree's threshold may fall between a number and its rounding
OPSET = 17  # old enough for every ONNX Runtime that is in use
MISSING = "nodes_missing_value_tracks_true"
SMALLEST = 1e-30  # a probability of 0 has no logarithm


class PipelineParityError(MlaasError):
    """The exported model does not compute what the trained one does; it is not published."""


def write_graph(steps: Sequence[Any], features: int, folder: Path) -> None:
    """Write model.onnx: `input_ids` (batch, length) of n-grams numbered from 1 to `features`; `logits` are logarithms of probabilities.

    skl2onnx converts the fitted `steps`; a TfIdfVectorizer node before them counts, and a logarithm damps.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.pipeline import Pipeline

    pipeline = Pipeline([(f"step{number}", step) for number, step in enumerate(steps)])
    converted = convert_sklearn(
        pipeline,
        initial_types=[("counts", FloatTensorType([None, features]))],
        options={id(steps[-1]): {"zipmap": False}},
        target_opset={"": OPSET, "ai.onnx.ml": 3},
        custom_conversion_functions={HistGradientBoostingClassifier: _trees},
    )
    (folder / "model.onnx").write_bytes(_framed(converted, features).SerializeToString())


class _Integers:
    """A container of skl2onnx that takes the booleans among a node's numbers for integers: onnx refuses them."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *arguments: Any, **attributes: Any) -> Any:
        plain = {name: list(map(int, value)) if name == MISSING else value for name, value in attributes.items()}
        return self._container.add_node(*arguments, **plain)


def _trees(scope: Any, operator: Any, container: Any) -> None:
    """The conversion of skl2onnx 1.20 itself."""
    from skl2onnx.operator_converters.random_forest import convert_sklearn_random_forest_classifier

    convert_sklearn_random_forest_classifier(scope, operator, _Integers(container))


def _framed(converted: Any, features: int) -> Any:
    """The converted graph between counting and logarithm."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    graph, constants = converted.graph, {"one": 1.0, "smallest": SMALLEST}
    numbers = list(range(1, features + 1))
    count = helper.make_node(
        "TfIdfVectorizer", ["input_ids"], ["occurs"], mode="TF", min_gram_length=1, max_gram_length=1, max_skip_count=0,
        ngram_counts=[0], ngram_indexes=list(range(features)), pool_int64s=numbers,
    )  # fmt: skip
    damp = [helper.make_node("Add", ["occurs", "one"], ["more"]), helper.make_node("Log", ["more"], ["counts"])]
    probabilities = graph.output[1].name
    logits = [helper.make_node("Max", [probabilities, "smallest"], ["positive"]), helper.make_node("Log", ["positive"], ["logits"])]
    width = graph.output[1].type.tensor_type.shape.dim[1].dim_value or "labels"
    made = helper.make_graph(
        [count, *damp, *graph.node, *logits],
        "ngrams",
        [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["batch", "length"])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", width])],
        [*graph.initializer, *(numpy_helper.from_array(np.array(value, np.float32), name) for name, value in constants.items())],
    )
    model = helper.make_model(made, opset_imports=list(converted.opset_import), ir_version=8)
    onnx.checker.check_model(model)
    return model


def compare(
    graph: Path, texts: Sequence[str], expected: NDArray[np.float64], tokenizer: NgramTokenizer, tick: Callable[[], None]
) -> dict[str, Any]:
    """Rows, largest difference of a probability, and agreement of the labels, between the graph and scikit-learn's `expected`.

    Raises PipelineParityError beyond the tolerance.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    texts = texts[:ROWS]
    worst, same, off = 0.0, 0, 0
    for start in range(0, len(texts), SLICE):
        ids = [one.ids for one in tokenizer.encode_batch(texts[start : start + SLICE])]
        padded = np.zeros((len(ids), max(map(len, ids))), dtype=np.int64)
        for row, numbers in enumerate(ids):
            padded[row, : len(numbers)] = numbers
        (logits,) = session.run(["logits"], {"input_ids": padded})
        theirs, ours = expected[start : start + len(ids)], np.exp(logits.astype(np.float64))
        difference = np.abs(theirs - ours).max(axis=1)
        worst = float(np.maximum(worst, difference.max()))  # np.maximum keeps a NaN, max() may lose it
        off += int((~(difference <= TOLERANCE)).sum())
        same += int((theirs.argmax(axis=1) == ours.argmax(axis=1)).sum())
        tick()
    figures = {"rows": len(texts), "max_abs_diff": worst, "agreement": same / len(texts), "tolerance": TOLERANCE, "beyond_tolerance": off}
    if figures["agreement"] < AGREEMENT or off > (1 - AGREEMENT) * len(texts):
        raise PipelineParityError(
            f"the exported model differs from the trained one by {worst:.2g} in its probabilities; it was not published",
            remedy="Report this with the versions of scikit-learn, skl2onnx and onnxruntime.",
        )
    return figures
