"""What a run does before its first step, alike on every rank: the data, the model, and whether they fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from ..contracts import ModelTrain, TrainRequest
from ..errors import InvalidRequest
from . import adapters, estimate
from .checkpoints import Checkpoint
from .export import check_exportable
from .objectives import Preparation, Task, prepare
from .optimization import Compute
from .progress import Meter
from .spool import check_room
from .starting_point import Sources, max_length, starting_point
from .supported import check, check_columns, check_data, check_metric, check_processes, check_scratch, check_variants

__all__ = ["Prepared", "check_request", "memory_errors", "prepared", "repeatable"]

LOOKED_AT = 8  # batches of held-out rows, longest first, whose length stands for that of the training rows


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A task with its model, ready to be trained. `adapter` is what the provenance says of the model's adapters."""

    task: Task
    checkpoint: Checkpoint
    max_length: int
    adapter: dict[str, Any]


def check_request(request: TrainRequest) -> None:
    """Raise InvalidRequest for what can be seen from the request alone."""
    check(str(request.model.objective))
    check_columns(request)
    check_data(request)
    check_metric(request)
    check_scratch(request)
    check_variants(request)
    check_processes(request)


def prepared(
    request: TrainRequest, sources: Sources, meter: Meter, computing: Compute, work: Path, ranks: tuple[int, int] = (1, 1)
) -> Prepared:
    """Open the checkpoint, read the data, load the model, and see that a run fits. Raises InvalidRequest.

    The rows are kept in the folder `work`. `ranks` says how many processes share the batches, and how many of them this machine's memory.
    """
    size, here = ranks
    _check_rows(request.model_train, size)
    work.mkdir(parents=True, exist_ok=True)
    checkpoint = starting_point(request, sources, meter, work)
    check_exportable(checkpoint.config, str(request.model.objective))
    longest = max_length(request, checkpoint)
    _check_weights(checkpoint.config, request.model_train, computing, here)
    check_room(work, sources.table)
    task = prepare(Preparation(request=request, checkpoint=checkpoint, table=sources.table, max_length=longest, tick=meter.tick, work=work))
    adapter = _fitted_out(task, request.model_train)
    _check_memory(task, request, computing, meter, ranks)
    return Prepared(task=task, checkpoint=checkpoint, max_length=longest, adapter=adapter)


def _check_rows(settings: ModelTrain, ranks: int) -> None:
    if ranks > settings.batch_size:
        raise InvalidRequest(
            f"{ranks} processes cannot share a batch of {settings.batch_size} rows",
            field="model_train.batch_size",
            remedy=f"Raise `batch_size`, which is that of all processes together, to {ranks} or more, or start fewer of them.",
        )


def _fitted_out(task: Task, settings: ModelTrain) -> dict[str, Any]:
    """Give the model its adapters and its way of keeping activations; what the provenance says of them."""
    found = {"lora": adapters.attach(task.model, settings.lora, task.fresh)} if settings.lora else {}
    if settings.gradient_checkpointing:
        if not task.model.supports_gradient_checkpointing:
            raise InvalidRequest(
                f"a model of type {task.model.config.model_type} cannot recompute its activations",
                field="model_train.gradient_checkpointing",
                remedy="Leave it out, and lower `batch_size` with `gradient_accumulation` instead.",
            )
        task.model.gradient_checkpointing_enable({"use_reentrant": False})
    return found


def _check_weights(config: Any, settings: ModelTrain, computing: Compute, here: int) -> None:
    """Refuse a model whose weights alone do not fit, before they are loaded."""
    total = estimate.parameters(AutoModel, config)
    trained = total if settings.lora is None else 0
    one = estimate.estimate(config, total, trained, estimate.Shape(rows=0, tokens=0), settings, computing, "")
    estimate.check(_together(one, computing, here))


def _check_memory(task: Task, request: TrainRequest, computing: Compute, meter: Meter, ranks: tuple[int, int]) -> None:
    """Say how much memory the run needs, with texts as long as the longest of those that are held out."""
    size, here = ranks
    longest = max((batch.inputs["input_ids"].shape[1] for batch in islice(task.held_out(), LOOKED_AT)), default=0)
    total = sum(parameter.numel() for parameter in task.model.parameters())
    trained = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad)
    shape = estimate.Shape(rows=-(-request.model_train.batch_size // size), tokens=longest)
    one = estimate.estimate(task.model.config, total, trained, shape, request.model_train, computing, str(request.model.objective))
    found = _together(one, computing, here)
    meter.estimate = found.figures()
    meter.tick()
    estimate.check(found)


def _together(one: estimate.Estimate, computing: Compute, here: int) -> estimate.Estimate:
    """What the ranks need of the memory that they share: each has a GPU of its own, and those on one machine have the same main memory."""
    return one if computing.where.type == "cuda" else one.of(here)


@contextmanager
def repeatable(seed: int, where: torch.device) -> Iterator[None]:
    """torch's generators seeded within and as they were after; deterministic kernels on an accelerator."""
    accelerated = where.type == "cuda"
    before = torch.are_deterministic_algorithms_enabled()
    with torch.random.fork_rng(devices=range(torch.cuda.device_count()) if accelerated else []):
        torch.manual_seed(seed)
        if accelerated:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS asks for it, before its first use
            torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turns every way in which torch says that memory is short into an InvalidRequest."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if (
            not isinstance(error, MemoryError | torch.OutOfMemoryError)
            and "allocate memory" not in text
            and "not enough memory" not in text
        ):
            raise
        raise InvalidRequest(
            "the training does not fit into memory",
            field="model_train.batch_size",
            remedy="Lower `batch_size` or `max_length`, or give the job more memory.",
        ) from None
