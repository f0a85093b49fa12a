"""One training run: prepare, train, evaluate, export, check parity."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..bundles import open_bundle
from ..contracts import ModelTrain, TrainRequest
from . import adapters, variants
from .checkpoints import Checkpoint
from .crew import Crew
from .drafts import Drafts
from .export import created_by, serving, write_graph, write_manifest
from .fingerprint import fingerprint
from .licence import licence_of
from .loop import Fitted, fit, measure
from .memory import in_use
from .objectives import EvaluatedTwice, Task
from .optimization import Compute, compute, device
from .outcome import Outcome
from .parity import compare, sample
from .preparing import check_request, memory_errors, prepared, repeatable
from .progress import Meter, Report
from .quiet import quiet
from .staging import staged
from .starting_point import Sources
from .watch import Watch

__all__ = ["Outcome", "Report", "Sources", "train"]


def train(
    request: TrainRequest,
    sources: Sources,
    out: Path,
    report: Callable[[Report], None],
    drafts: Callable[[str], Drafts] | None = None,
    watch: Watch | None = None,
    crew: Crew | None = None,
) -> Outcome:
    """Train as `request` says and leave a bundle in the folder `out`, which is new or empty.

    The same on one machine for the same seed. `drafts` gives the place of the checkpoints for a fingerprint of what they
    depend on: with it a run goes on where one that was killed had its last checkpoint. `watch` looks on, and may end the run.
    `crew` are the other processes that share the batches: what comes of it is the same but for rounding, where nothing is dropped out.
    `stopped` of the outcome says why a run ended before its last epoch. An exception from `report` or `watch` cancels: it
    passes through, and nothing is left in `out`. Raises InvalidRequest for data or settings that cannot work, ParityError
    if the export is not faithful.
    """
    check_request(request)
    meter = Meter(report=_watching(crew, report) if crew else report)
    where = device()
    computing = compute(request.model_train.precision, where)
    with quiet(), repeatable(request.model_train.seed, where), memory_errors():
        meter.phase("prepare")
        ready = prepared(request, sources, meter, computing, out.parent, (crew.size, crew.here) if crew else (1, 1))
        task, checkpoint, longest = ready.task, ready.checkpoint, ready.max_length
        mark = fingerprint(request, checkpoint, sources) if drafts or crew else ""
        ranks = crew.gather(f"{mark} {computing.name}", where) if crew else None
        fitted = fit(task, request.model_train, meter, computing, drafts(mark) if drafts else None, watch, ranks)
        if crew:
            crew.trained()
        if watch:
            watch.fitted(task.evaluation(fitted.tally))
        further = _further(task, meter, computing)
        _plain_again(task.model, request.model_train)
        size = {"parameters": sum(parameter.numel() for parameter in task.model.parameters())}
        made = {**_provenance(request, checkpoint), "training": {**size, **_how(computing, meter, fitted), **ready.adapter, **task.notes}}
        made["training"] |= {"processes": crew.size} if crew else {}
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


def _watching(crew: Crew, report: Callable[[Report], None]) -> Callable[[Report], None]:
    """`report`, which also notices that a rank was lost while this one does not wait for it."""

    def checked(one: Report) -> None:
        crew.check()
        report(one)

    return checked


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
    # The batches of the epoch after the last one: those of an epoch that was drawn cannot be drawn again.
    files = variants.make(folder, request.model_save.variants or (), lambda: task.batches(len(meter.history["validation_loss"])))
    figures = variants.measure(task, objective, folder, files, meter.tick)
    write_manifest(folder, serving(objective, task.labels, max_length), {**made, "parity": parity}, variants.measured(figures))
    meter.tick()
    return {**task.evaluation(fitted.tally), "parity": parity}, tuple(figures)


def _further(task: Task, meter: Meter, computing: Compute) -> dict[str, Any]:
    """Figures of the trained weights on a second set of rows, where the task has one."""
    if not isinstance(task, EvaluatedTwice) or not task.has_second:
        return {}
    meter.phase("evaluate")
    return task.second_evaluation(measure(task, meter, computing, task.second()))


def _plain_again(model: Any, settings: ModelTrain) -> None:
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_disable()
    if settings.lora:
        adapters.merge(model)


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
