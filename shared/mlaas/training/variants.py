"""Smaller variants of an exported graph, and what each costs and gains: bytes, texts per second, figures on held-out rows."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .batches import Batch
from .objectives import Scored, Tally, Task
from .parity import PRESENT, computed, open_session

__all__ = ["FOLDER", "make", "measure"]

FOLDER = "variants"
ROWS = 256  # held-out rows that are looked at, as far as SECONDS allow
SECONDS = 10.0  # of the served graph's computing
OUTPUT_BYTES = 256 * 1024**2  # of one call: a language model gives a number for each token and each of its vocabulary

log = logging.getLogger("mlaas")


@dataclass(kw_only=True)
class Served:
    """A graph in the place of a task's model: it takes and gives what that does, and counts its texts and seconds."""

    session: Any
    texts: int = 0
    seconds: float = 0.0

    def __call__(self, **inputs: torch.Tensor) -> SimpleNamespace:
        """The graph's outputs by name."""
        names = [output.name for output in self.session.get_outputs() if not output.name.startswith(PRESENT)]
        feed = {name: tensor.numpy() for name, tensor in inputs.items()}
        started = time.perf_counter()
        found = computed(self.session, names, feed)
        self.seconds += time.perf_counter() - started
        self.texts += len(feed["input_ids"])
        return SimpleNamespace(**{name: torch.from_numpy(values).float() for name, values in zip(names, found, strict=True)})


@dataclass(kw_only=True)
class Candidate:
    """A variant while it is measured, beside the graph that is served."""

    name: str
    file: str
    model: Served
    tally: Tally
    cosines: list[torch.Tensor] = field(default_factory=list)
    same: int = 0
    count: int = 0

    def add(self, batch: Batch, scored: Scored, served: Scored) -> None:
        """Count one batch. Logits [n, choices], or vectors where those are what is served."""
        self.tally.add(batch, scored)
        ours, theirs = (getattr(each, "first", each.logits).float() for each in (scored, served))
        self.cosines.append(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1))
        self.same += int((scored.logits.argmax(-1) == served.logits.argmax(-1)).sum())
        self.count += len(scored.logits)


def make(folder: Path, kinds: Sequence[str]) -> dict[str, str]:
    """Write the variants `kinds` (int8, fp16) of the graph in `folder`; each name with its file, relative to `folder`.

    One that cannot be made of this graph is left out, with a line in the log: it must not cost the training.
    """
    made: dict[str, str] = {}
    for kind in dict.fromkeys(kinds):
        file = f"{FOLDER}/model.{kind}.onnx"
        (folder / FOLDER).mkdir(exist_ok=True)
        try:
            {"int8": _int8, "fp16": _fp16}[kind](folder / "model.onnx", folder / file)
            open_session(folder / file)
        except _failures():
            (folder / file).unlink(missing_ok=True)
            log.warning("variant.not_made", extra={"fields": {"variant": kind}})
            continue
        made[kind] = file
    return made


def measure(task: Task, folder: Path, made: dict[str, str], tick: Callable[[], None] = lambda: None) -> list[dict[str, Any]]:
    """Figures of the served graph and of the variants in `made`, on the same held-out rows; the served one, `fp32`, first.

    `texts_per_second` is the graph's alone, from token ids to logits, on the CPU.
    """
    files = {"fp32": "model.onnx", **made}
    all_of = [
        Candidate(name=name, file=file, model=Served(session=open_session(folder / file)), tally=task.tally())
        for name, file in files.items()
    ]
    trained = task.model
    try:
        width = _width(all_of[0].model.session, trained.config)
        for number, batch in enumerate(part for one in _chosen(list(task.held_out())) for part in _fitting(one, width)):
            if number == 0:
                _look(task, all_of, batch, count=False)  # the first time a graph sees a shape it is slower
            _look(task, all_of, batch, count=True)
            tick()
            if all_of[0].model.seconds > SECONDS:
                break
    finally:
        task.model = trained
    return [_figures(task, each, folder, all_of[0]) for each in all_of]


def _look(task: Task, all_of: Sequence[Candidate], batch: Batch, *, count: bool) -> None:
    served: Scored | None = None
    for each in all_of:
        task.model = each.model
        scored = task.score(batch)
        served = served or scored
        if count:
            each.add(batch, scored, served)
        else:
            each.model.texts, each.model.seconds = 0, 0.0


def _figures(task: Task, one: Candidate, folder: Path, served: Candidate) -> dict[str, Any]:
    found = {name: value for name, value in task.evaluation(one.tally).items() if isinstance(value, int | float)}
    figures = {
        "variant": one.name,
        "file": one.file,
        "served": one is served,
        "bytes": sum(each.stat().st_size for each in folder.glob(f"{one.file}*")),  # large graphs keep their weights beside
        "texts": one.model.texts,
        "texts_per_second": round(one.model.texts / one.model.seconds, 1) if one.model.seconds else None,
        "metrics": {name: value for name, value in found.items() if math.isfinite(value)},  # fp16 may overflow
    }
    if one is not served:
        cosine = float(torch.cat(one.cosines).mean())
        figures |= {"cosine": round(cosine, 6) if math.isfinite(cosine) else None, "agreement": round(one.same / max(1, one.count), 6)}
    return figures


def _chosen(batches: Sequence[Batch]) -> list[Batch]:
    """Batches of ROWS rows or little more, evenly from all: they are sorted by length."""
    rows = sum(len(batch.inputs["input_ids"]) for batch in batches)
    every = max(1, rows // ROWS)
    return list(batches[every // 2 :: every] or batches[:1])


def _width(session: Any, config: Any) -> int:
    """Numbers that the graph gives for each token, or for each text, at the most."""
    shapes = [output.shape for output in session.get_outputs() if not output.name.startswith(PRESENT)]
    unknown = getattr(config, "vocab_size", 1)
    return max((shape[-1] if isinstance(shape[-1], int) else unknown for shape in shapes if len(shape) == 3), default=1)


def _fitting(batch: Batch, width: int) -> Iterator[Batch]:
    """`batch` in parts whose output takes OUTPUT_BYTES at the most, or one row; whole where its rows do not stand for themselves."""
    rows, tokens = batch.inputs["input_ids"].shape
    size = max(1, OUTPUT_BYTES // (tokens * width * 4))
    if size >= rows or len(batch.targets) != rows:
        yield batch
        return
    for start in range(0, rows, size):
        part = slice(start, start + size)
        inputs = {name: tensor[part] for name, tensor in batch.inputs.items()}
        tokens = int(inputs["attention_mask"].sum())
        yield Batch(inputs=inputs, targets=batch.targets[part], tokens=tokens, origins=batch.origins[part])


def _int8(graph: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    noisy = logging.getLogger()
    before, noisy.level = noisy.level, max(noisy.level, logging.ERROR)  # it advises on the root logger
    try:
        quantize_dynamic(graph, target, weight_type=QuantType.QInt8)
    finally:
        noisy.level = before


def _fp16(graph: Path, target: Path) -> None:
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(graph), keep_io_types=True), target)


def _failures() -> tuple[type[Exception], ...]:
    """What the libraries raise for a graph that they cannot handle."""
    from google.protobuf.message import Error  # type: ignore[import-untyped]
    from onnx.checker import ValidationError
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    ours = (state.Fail, state.InvalidGraph, state.InvalidArgument, state.NotImplemented, state.RuntimeException)
    return (*ours, Error, ValidationError, ValueError, KeyError, TypeError, RuntimeError, AttributeError, IndexError)
