"""One training run: prepare, train, evaluate, export, check parity."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from ..bundles import open_bundle
from ..contracts import ModelTrain, TrainRequest
from ..errors import InvalidRequest
from . import adapters, estimate, variants
from .checkpoints import Checkpoint
from .drafts import Drafts
from .export import check_exportable, created_by, serving, write_graph, write_manifest
from .fingerprint import fingerprint
from .licence import licence_of
from .loop import Fitted, fit, measure
from .memory import in_use
from .objectives import EvaluatedTwice, Preparation, Task, prepare
from .optimization import Compute, compute, device
from .outcome import Outcome
from .parity import compare, sample
from .progress import Meter, Report
from .quiet import quiet
from .spool import check_room
from .staging import staged
from .starting_point import Sources, max_length, starting_point
from .supported import check, check_columns, check_data, check_metric, check_scratch
from .watch import Watch

__all__ = ["Outcome", "Report", "Sources", "train"]

LOOKED_AT = 8  # batches of held-out rows, longest first, whose length stands for that of the training rows


def train(
    request: TrainRequest,
    sources: Sources,
    out: Path,
    report: Callable[[Report], None],
    drafts: Callable[[str], Drafts] | None = None,
    watch: Watch | None = None,
) -> Outcome:
    """Train as `request` says and leave a bundle in the folder `out`, which is new or empty.

    The same on one machine for the same seed. `drafts` gives the place of the checkpoints for a fingerprint of what they
    depend on: with it a run goes on where one that was killed had its last checkpoint. `watch` looks on, and may end the run.
    `stopped` of the outcome says why a run ended before its last epoch. An exception from `report` or `watch` cancels: it
    passes through, and nothing is left in `out`. Raises InvalidRequest for data or settings that cannot work, ParityError
    if the export is not faithful.
    """
    check(str(request.model.objective))
    check_columns(request)
    check_data(request)
    check_metric(request)
    check_scratch(request)
    meter = Meter(report=report)
    where = device()
    computing = compute(request.model_train.precision, where)
    with quiet(), _repeatable(request.model_train.seed, where), _memory_errors():
        meter.phase("prepare")
        out.parent.mkdir(parents=True, exist_ok=True)
        check_room(out.parent, sources.table)
        checkpoint = starting_point(request, sources, meter, out.parent)
        check_exportable(checkpoint.config, str(request.model.objective))
        longest = max_length(request, checkpoint)
        _check_weights(checkpoint.config, request.model_train, computing)
        preparation = Preparation(
            request=request, checkpoint=checkpoint, table=sources.table, max_length=longest, tick=meter.tick, work=out.parent
        )
        task = prepare(preparation)
        adapter = _fitted_out(task, request.model_train)
        _check_memory(task, request, computing, meter)
        kept = drafts(fingerprint(request, checkpoint, sources)) if drafts else None
        fitted = fit(task, request.model_train, meter, computing, kept, watch)
        if watch:
            watch.fitted(task.evaluation(fitted.tally))
        further = _further(task, meter, computing)
        _plain_again(task.model, request.model_train)
        size = {"parameters": sum(parameter.numel() for parameter in task.model.parameters())}
        made = {**_provenance(request, checkpoint), "training": {**size, **_how(computing, meter, fitted), **adapter, **task.notes}}
        made |= {"search": dict(watch.provenance)} if watch else {}
        with staged(out) as folder:
            evaluation, measured = _publishable(task, fitted, request, checkpoint, longest, made, folder, meter)
    return Outcome(
        bundle=open_bundle(out),
        history=meter.history,
        evaluation={**evaluation, **further},
        stopped=fitted.stopped,
        provenance=made,
        variants=measured,
        dataset={**task.dataset, "tokens_trained": meter.tokens, "tokens_per_second": meter.tokens_per_second},
    )


def _publishable(
    task: Task,
    fitted: Fitted,
    request: TrainRequest,
    checkpoint: Checkpoint,
    max_length: int,
    made: dict[str, Any],
    folder: Path,
    meter: Meter,
) -> tuple[dict[str, Any], tuple[dict[str, Any], ...]]:
    """Export into `folder` and check it; the evaluation, parity included, and the figures of each graph."""
    objective = str(request.model.objective)
    meter.phase("export")
    write_graph(task.model, checkpoint.tokenizer, objective, folder, max_length)
    meter.phase("parity")
    parity = compare(task.model, folder / "model.onnx", sample(task.held_out()), meter.tick)
    files = variants.make(folder, request.model_save.variants or ())
    measured = variants.measure(task, folder, files, meter.tick)
    write_manifest(folder, serving(objective, task.labels, max_length), {**made, "parity": parity})
    meter.tick()
    return {**task.evaluation(fitted.tally), "parity": parity}, tuple(measured)


def _further(task: Task, meter: Meter, computing: Compute) -> dict[str, Any]:
    """Figures of the trained weights on a second set of rows, where the task has one."""
    if not isinstance(task, EvaluatedTwice) or not task.has_second:
        return {}
    meter.phase("evaluate")
    return task.second_evaluation(measure(task, meter, computing, task.second()))


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


def _plain_again(model: Any, settings: ModelTrain) -> None:
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    if settings.lora:
        adapters.merge(model)


def _check_weights(config: Any, settings: ModelTrain, computing: Compute) -> None:
    """Refuse a model whose weights alone do not fit, before they are loaded."""
    total = estimate.parameters(AutoModel, config)
    trained = total if settings.lora is None else 0
    estimate.check(estimate.estimate(config, total, trained, estimate.Shape(rows=0, tokens=0), settings, computing, ""))


def _check_memory(task: Task, request: TrainRequest, computing: Compute, meter: Meter) -> None:
    """Say how much memory the run needs, with texts as long as the longest of those that are held out."""
    longest = max((batch.inputs["input_ids"].shape[1] for batch in islice(task.held_out(), LOOKED_AT)), default=0)
    total = sum(parameter.numel() for parameter in task.model.parameters())
    trained = sum(parameter.numel() for parameter in task.model.parameters() if parameter.requires_grad)
    shape = estimate.Shape(rows=request.model_train.batch_size, tokens=longest)
    found = estimate.estimate(task.model.config, total, trained, shape, request.model_train, computing, str(request.model.objective))
    meter.estimate = found.figures()
    meter.tick()
    estimate.check(found)


def _how(computing: Compute, meter: Meter, fitted: Fitted) -> dict[str, Any]:
    how: dict[str, Any] = {"memory": {"estimated": (meter.estimate or {}).get("needed"), **in_use()}}
    how |= {"device": computing.where.type, "precision": computing.name, "precision_note": computing.note, "steps": meter.step}
    more = {"best_step": fitted.best_step, "stopped": fitted.stopped}
    return {name: value for name, value in (how | more).items() if value is not None}


def _provenance(request: TrainRequest, checkpoint: Checkpoint) -> dict[str, Any]:
    model = request.model
    return {
        "objective": model.objective,
        "base": {"name": model.name or model.path, "digest": checkpoint.digest, "licence": licence_of(checkpoint.folder)},
        "request": request.model_dump(mode="json", exclude_none=True),
        **created_by(),
    }


@contextmanager
def _repeatable(seed: int, where: torch.device) -> Iterator[None]:
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
def _memory_errors() -> Iterator[None]:
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
