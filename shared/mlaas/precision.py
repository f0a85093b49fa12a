"""Which variant of a model answers: the published graph in float32, or other numbers that are faster and cost accuracy.

`fp32` is what every model has, and what answers unless a request, or the platform's policy, says what accuracy may be lost. The others
are `bf16` (the same graph, computed by OpenVINO in bfloat16), `int8` and `int8-dynamic` (graphs of their own, for CPUs) and `fp16` (one
for GPUs).
What each loses was measured by the training that made it and is in the bundle's manifest; what was not measured is not chosen
for an accuracy. Only the standard library is imported: a bundle is opened while a serving process starts.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .errors import InvalidRequest

__all__ = ["CPU", "CUDA", "NAMES", "OPENVINO", "PUBLISHED", "Variant", "choose", "pinned", "read", "runnable"]

CPU, CUDA, OPENVINO = "CPUExecutionProvider", "CUDAExecutionProvider", "OpenVINOExecutionProvider"
PUBLISHED = "fp32"
FILES = {name: f"variants/model.{name}.onnx" for name in ("int8", "int8-dynamic", "fp16")}
NAMES = (PUBLISHED, "bf16", *FILES)
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A variant, and what it costs and gains.

    `accuracy_loss` is by how much the model's `metric` (a share, 0 to 1) on `rows` held-out rows is less than that of fp32, negative
    where it is more; None where it was not measured. `pace` is texts per second relative to fp32 on the same processor, where measured.
    """

    name: str
    file: str
    metric: str | None = None
    accuracy_loss: float | None = None
    rows: int = 0
    pace: float | None = None

    def table(self) -> dict[str, Any]:
        """As it is in a manifest."""
        return {name: value for name, value in vars(self).items() if value is not None}


def read(entries: object, files: Collection[str]) -> tuple[Variant, ...] | None:
    """The variants of a manifest whose files are `files`; None where they are not as they must be."""
    if not isinstance(entries, list) or not all(isinstance(one, dict) and set(one) <= set(Variant.__annotations__) for one in entries):
        return None
    try:
        found = tuple(Variant(**one) for one in entries)
    except TypeError:
        return None
    return found if all(_sound(one, files) for one in found) and len({one.name for one in found}) == len(found) else None


def _sound(one: Variant, files: Collection[str]) -> bool:
    numbers = [each for each in (one.accuracy_loss, one.pace) if each is not None]
    return (
        one.name in NAMES
        and one.name != PUBLISHED
        and one.file in files
        and all(isinstance(each, int | float) and not isinstance(each, bool) and math.isfinite(each) for each in numbers)
        and type(one.rows) is int
        and (one.metric is None or isinstance(one.metric, str))
    )


def runnable(available: Collection[str], cpu_flags: Collection[str]) -> tuple[str, ...]:
    """The variants that gain speed on this machine, the fastest first as a rule, by ONNX Runtime's providers and the processor's flags."""
    if CUDA in available:
        return ("fp16",)
    bf16 = OPENVINO in available and not BF16_FLAGS.isdisjoint(cpu_flags)
    return (*(["bf16"] if bf16 else []), "int8-dynamic", "int8")


def choose(variants: Sequence[Variant], max_accuracy_loss: float | None, here: Sequence[str]) -> str:
    """The fastest of `here`, as it was measured, that loses at most `max_accuracy_loss`; fp32 where none is faster, or there is no limit.

    What has no measured pace comes before what has; else, and where paces are the same, the order of `here` holds.
    """
    if max_accuracy_loss is None:
        return PUBLISHED
    allowed = {one.name: one for one in variants if one.accuracy_loss is not None and one.accuracy_loss <= max_accuracy_loss}
    faster = [name for name in here if name in allowed and _pace(allowed[name]) > 1]
    return max(faster, key=lambda name: _pace(allowed[name]), default=PUBLISHED)


def _pace(one: Variant) -> float:
    return math.inf if one.pace is None else one.pace


def pinned(name: str, variants: Sequence[Variant], *, bf16: bool, here: Sequence[str]) -> str:
    """`name`, which a request asks for; `bf16` says whether the model is one that OpenVINO computes.

    Raises InvalidRequest where the model has no such variant, or this machine cannot compute it.
    """
    there = {PUBLISHED: True, "bf16": bf16, **{one.name: True for one in variants}}
    if not there.get(name):
        has = ", ".join(each for each in NAMES if there.get(each))
        raise InvalidRequest(
            f"the model has no variant {name}: it has {has}",
            field="variant",
            remedy="Leave `variant` out, or train the model again with `model_save.variants`.",
        )
    needs: Mapping[str, str] = {"bf16": "OpenVINO and a processor that computes in bfloat16", "fp16": "a GPU"}
    if name in needs and name not in here:
        raise InvalidRequest(
            f"the variant {name} needs {needs[name]}, which this function does not have",
            field="variant",
            remedy="Leave `variant` out, or name fp32 or int8.",
        )
    return name
