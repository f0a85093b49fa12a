"""Variants of an exported graph, and what each costs and gains: bytes, texts per second, figures on held-out rows."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from .. import precision, sessions
from ..precision import PUBLISHED, Variant
from . import quantization
from .batches import Batch
from .objectives import Scored, Tally, Task
from .parity import PRESENT, computed, open_session

__all__ = ["make", "measure", "measured"]

ROWS = 4096  # held-out rows that are looked at, as far as SECONDS allow
SECONDS, ALONE = 60.0, 10.0  # of the served graph's computing, and where there is nothing to compare it with
FILLED = -1e30  # less than this is what a task puts where nothing can be chosen
GOLDEN = (math.sqrt(5) - 1) / 2
# The figure that a variant's loss is told in; for all others accuracy.
METRICS = {"token-classification": "f1", "question-answering": "exact_match", "sentence-embedding": "mrr"}
NOT_HERE = "not measured here: it needs OpenVINO and a processor that computes in bfloat16"
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
        values = (getattr(each, "first", each.logits).float() for each in (scored, served))
        ours, theirs = (each.masked_fill(each < FILLED, 0.0) for each in values)
        self.cosines.append(torch.nn.functional.cosine_similarity(ours, theirs, dim=-1))
        self.same += int((scored.logits.argmax(-1) == served.logits.argmax(-1)).sum())
        self.count += len(scored.logits)


def make(folder: Path, kinds: Sequence[str], training: Callable[[], Iterable[Batch]]) -> dict[str, str]:
    """Write the variants `kinds` (of `precision.NAMES`, not fp32) of the graph in `folder`; each name with its file, relative to `folder`.

    `training` gives training batches, which ranges are taken from. bf16 is the graph itself. One that cannot be made of this graph is
    left out, with a line in the log: it must not cost the training.
    """
    made: dict[str, str] = {}
    graph = folder / "model.onnx"
    makers: dict[str, Callable[[Path], None]] = {
        "int8": lambda target: quantization.int8(graph, target, quantization.sampled(training())),
        "int8-dynamic": lambda target: quantization.int8_dynamic(graph, target),
        "fp16": lambda target: quantization.fp16(graph, target),
    }
    for kind in dict.fromkeys(kinds):
        if kind not in makers:
            made[kind] = graph.name
            continue
        file = precision.FILES[kind]
        (folder / file).parent.mkdir(exist_ok=True)
        try:
            makers[kind](folder / file)
            open_session(folder / file)
        except quantization.failures():
            (folder / file).unlink(missing_ok=True)
            log.warning("variant.not_made", extra={"fields": {"variant": kind}})
            continue
        made[kind] = file
    return made


def measure(
    task: Task, objective: str, folder: Path, made: dict[str, str], tick: Callable[[], None] = lambda: None
) -> list[dict[str, Any]]:
    """Figures of the served graph and of the variants in `made`, on the same held-out rows; the served one, `fp32`, first.

    `texts_per_second` is the graph's alone, from token ids to logits, on the CPU. `accuracy_loss` is None where the variant could
    not be computed on this machine, or gave no numbers.
    """
    files = {PUBLISHED: "model.onnx", **made}
    opened = {name: session for name, file in files.items() if (session := _session(name, folder / file))}
    all_of = [Candidate(name=name, file=files[name], model=Served(session=session), tally=task.tally()) for name, session in opened.items()]
    trained = task.model
    try:
        width = _width(all_of[0].model.session, trained.config)
        for number, batch in enumerate(part for one in _chosen(task) for part in _fitting(one, width)):
            if number == 0:
                _look(task, all_of, batch, count=False)  # the first time a graph sees a shape it is slower
            _look(task, all_of, batch, count=True)
            tick()
            if all_of[0].model.seconds > (SECONDS if made else ALONE):
                break
    finally:
        task.model = trained
    metric = METRICS.get(objective, "accuracy")
    served = _figures(task, all_of[0], folder)
    compared = {each.name: _compared(_figures(task, each, folder), each, served, metric) for each in all_of[1:]}
    return [{**served, "metric": metric}, *(compared.get(name) or _unmeasured(name, files[name]) for name in made)]


def measured(figures: Sequence[Mapping[str, Any]]) -> list[Variant]:
    """What the manifest says of the variants that have these figures."""
    paces = {one["variant"]: one["texts_per_second"] for one in figures}
    found = []
    for one in figures:
        if one["served"]:
            continue
        name, loss, pace = one["variant"], one["accuracy_loss"], one["texts_per_second"]
        known = {"metric": one["metric"], "accuracy_loss": loss, "rows": one["texts"]} if loss is not None else {}
        # Half precision is for GPUs: how fast a CPU computes it says nothing.
        timed = {"pace": round(pace / paces[PUBLISHED], 2)} if pace and paces[PUBLISHED] and name != "fp16" else {}
        found.append(Variant(name=name, file=one["file"], **known, **timed))
    return found


def _session(name: str, graph: Path) -> Any:
    """The session that measures a variant; None for bf16 where this machine does not compute it."""
    if name != "bf16":
        return open_session(graph)
    import onnxruntime

    candidates = sessions.providers(onnxruntime.get_available_providers(), sessions.cpu_flags(), name)
    return open_session(graph, candidates) if candidates else None


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


def _figures(task: Task, one: Candidate, folder: Path) -> dict[str, Any]:
    found = {name: value for name, value in task.evaluation(one.tally).items() if isinstance(value, int | float)}
    return {
        "variant": one.name,
        "file": one.file,
        "served": one.name == PUBLISHED,
        "bytes": sum(each.stat().st_size for each in folder.glob(f"{one.file}*")),  # large graphs keep their weights beside
        "texts": one.model.texts,
        "texts_per_second": round(one.model.texts / one.model.seconds, 1) if one.model.seconds else None,
        "provider": one.model.session.get_providers()[0],
        "metrics": {name: value for name, value in found.items() if math.isfinite(value)},  # fp16 may overflow
    }


def _compared(figures: dict[str, Any], one: Candidate, served: Mapping[str, Any], metric: str) -> dict[str, Any]:
    cosine = float(torch.cat(one.cosines).mean())
    ours, reference = figures["metrics"].get(metric), served["metrics"].get(metric)
    sound = math.isfinite(cosine) and ours is not None and reference is not None
    return figures | {
        "metric": metric,
        "accuracy_loss": round(reference - ours, 6) if sound and ours is not None and reference is not None else None,
        "cosine": round(cosine, 6) if math.isfinite(cosine) else None,
        "agreement": round(one.same / max(1, one.count), 6),
    }


def _unmeasured(name: str, file: str) -> dict[str, Any]:
    empty: dict[str, Any] = {
        "served": False,
        "bytes": None,
        "texts": 0,
        "texts_per_second": None,
        "provider": None,
        "metrics": {},
        "accuracy_loss": None,
    }
    return {"variant": name, "file": file, **empty, "note": NOT_HERE}


def _chosen(task: Task) -> list[Batch]:
    """Held-out batches of ROWS rows or little more, evenly from all: they are sorted by length. So is every beginning of what is given."""
    batches = rows = 0
    for batch in task.held_out():
        batches, rows = batches + 1, rows + len(batch.inputs["input_ids"])
    every = max(1, rows // ROWS)
    chosen = [batch for number, batch in enumerate(task.held_out()) if number % every == min(every // 2, batches - 1)]
    return [chosen[place] for place in sorted(range(len(chosen)), key=lambda place: place * GOLDEN % 1)]


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
