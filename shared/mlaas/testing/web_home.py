"""A home whose web app has something on every page: models with cards, lineage, tasks in every state, chains of events, what is parked."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import bundles, events, jobs, storage
from ..catalog import Catalog, usage
from ..catalog_api import uploads
from ..contracts import ModelSave, TrainRequest, parse
from ..documents import Documents, shared
from ..errors import Unavailable
from ..journal import Journal
from ..ledger import Ledger
from ..settings import Settings
from ..tasks import Run, Tasks
from ..training.card import Lineage
from ..training.outcome import Outcome
from ..training.publish import publish
from ..training.scores import classification_figures, confusion
from .homes import tiny_home

__all__ = ["TOKEN", "web_home"]

TOKEN = "token-of-the-web-tests"  # noqa: S105 - it opens nothing
STEPS, EPOCHS = 40, 5
DESCRIPTIONS: Mapping[str, tuple[str, list[str]]] = {
    "infn-structures": ("Which INFN structure an author's affiliation names.", ["affiliations", "infn"]),
    "physics-lm": ("Words that are missing in sentences about physics.", ["physics"]),
    "minilm": ("Sentences as vectors, for search.", ["physics", "search"]),
    "physics-ner": ("Particles and facilities in a text.", ["physics"]),
    "laboratories": ("Answers where something is, with words of a text.", ["infn"]),
    "physics-writer": ("Goes on with a text about physics.", ["physics"]),
}


def web_home(folder: Path) -> Settings:
    """Make the home in `folder`; its settings, with TOKEN as the platform's token."""
    settings = dataclasses.replace(tiny_home(folder), token=TOKEN)
    documents = shared(settings)
    catalog = Catalog(documents)
    for name, (description, tags) in DESCRIPTIONS.items():
        catalog.entry("models", name)
        catalog.entries.change(
            "models",
            name,
            {"description": description, "tags": tags, "languages": ["en"], "owner": "physics group", "licence": "apache-2.0"},
        )
    catalog.entries.change("models", "minilm", {"visibility": "public"})
    dataset = _dataset(folder, settings)
    for accuracy in (0.86, 0.94):
        _trained(settings, documents, dataset, accuracy)
    _followed(documents)
    for version in ("2", "3"):
        catalog.set_alias("models", "infn-structures", "production", version, by="token")
    for name, count in (("infn-structures", 412), ("minilm", 120), ("physics-lm", 36)):
        usage.record(documents, "models", name, "served", count)
    _tasks_of_other_states(documents)
    _parked(documents)
    return settings


def _dataset(folder: Path, settings: Settings) -> dict[str, Any]:
    from ..samples import affiliations  # the generator needs the extra `samples` for its typing errors

    work = folder / "upload"
    work.mkdir()
    rows = "".join(f"{one.text}\t{one.label}\n" for one in affiliations.affiliations(60, 0))
    (work / "affiliations.tsv").write_text(f"affiliation\tlabel\n{rows}", "utf-8")
    about = uploads.About(
        entry={"description": "Synthetic affiliations with their structure.", "tags": ["affiliations"], "languages": ["en", "it"]},
        licence="cc0-1.0",
    )
    version = uploads.take("datasets", "affiliations", work / "affiliations.tsv", about, settings).version
    assert version
    return version


def _trained(settings: Settings, documents: Documents, dataset: Mapping[str, Any], accuracy: float) -> None:
    """A version of the classifier, as a training leaves it: task, events, card, evaluation."""
    request = _request(dataset["path"])
    tasks = Tasks(documents)
    accepted = _accepted(documents, request, f"training-{accuracy}")
    run = tasks.begin(accepted)
    assert run
    history = _history(accuracy)
    tasks.report(run, progress={"phase": "train", "percent": 50.0, "eta": 12.0}, history=history)
    entry = Catalog(documents).resolve("models", "infn-structures", revision="1")
    bundle = bundles.open_bundle(storage.fetch(entry["path"], entry["storage_type"], settings=settings))
    with jobs.workspace(settings) as work:
        shutil.copytree(bundle.folder, work / "bundle")
        config = work / "bundle" / "config.json"
        config.write_text(config.read_text() + " " * round(accuracy * 100))  # other bytes, and so another version
        bundle = bundles.write_manifest(
            work / "bundle", objective="text-classification", labels=bundle.labels, max_length=bundle.max_length, provenance={}
        )
        outcome = Outcome(
            bundle=bundle,
            history=history,
            evaluation=_evaluation(bundle.labels, accuracy),
            dataset={"samples_train": 1800, "samples_test": 200, "tokens": 41_200},
            provenance={
                "objective": "text-classification",
                "base": {"path": "checkpoints/minilm", "storage_type": "local", "licence": "apache-2.0"},
                "request": request,
                "training": {"parameters": 22_713_216, "device": "cpu"},
            },
            variants=_variants(accuracy),
        )
        lineage = Lineage(task_id=run.task_id, trace_id="4bf92f3577b34da6a3ce929d0e0e4736", data_sha256=dataset["sha256"])
        published = publish(outcome, parse(ModelSave, request["model_save"]), settings, lineage)
    result = {"model": {name: published[name] for name in ("name", "version", "digest", "path")}}
    _finish(documents, run, "succeeded", result=result, history=history, evaluation=outcome.evaluation, dataset=outcome.dataset)


def _followed(documents: Documents) -> None:
    """An index that the success of the second training has built, as a part of its chain."""
    [succeeded, *_] = [one.event for one in Journal(documents).find(type="train.succeeded", limit=1)]
    request = {
        "model": {"name": "minilm"},
        "dataset": {"path": "samples/abstracts.jsonl"},
        "vector_store_save": {"path": "indexes/abstracts"},
    }
    accepted = Tasks(documents).accept("index", request, succeeded, publish=True)
    _publish(documents, str(accepted["subject"]))
    run = Tasks(documents).begin(str(accepted["subject"]))
    assert run
    _finish(
        documents, run, "succeeded", result={"index": {"name": "abstracts", "version": "1"}, "model": {"name": "minilm", "version": "1"}}
    )


def _request(path: str) -> dict[str, Any]:
    asked = {
        "model": {"path": "checkpoints/minilm", "objective": "text-classification"},
        "model_train": {"epochs": EPOCHS, "batch_size": 32, "optimizer": {"init_lr": 3e-4}},
        "dataset": {"path": path, "text_column": "affiliation"},
        "model_save": {"path": "models/infn-structures"},
    }
    return parse(TrainRequest, asked).model_dump(exclude_none=True, exclude_defaults=True)


def _accepted(documents: Documents, request: Mapping[str, Any], id: str, capability: str = "train") -> str:
    cause = events.new(capability, dict(request), source="/mlaas/cli", id=id)
    accepted = Tasks(documents).accept(capability, request, cause, publish=True)
    task_id = str(accepted["subject"])
    _publish(documents, task_id)
    return task_id


def _finish(documents: Documents, run: Run, status: str, **fields: Any) -> None:
    Tasks(documents).finish(run, status, **fields)
    _publish(documents, run.task_id)


def _publish(documents: Documents, task_id: str) -> None:
    """What the relay does, without Kafka."""
    for owing, event in list(Tasks(documents).owed()):
        if owing == task_id:
            Journal(documents).keep(task_id, event)
            Tasks(documents).published(task_id, event["id"])


def _history(accuracy: float) -> dict[str, Any]:
    def loss(x: float) -> float:
        return round(3.2 * math.exp(-x * 3) + 1.2 * (1 - accuracy) + 0.03 * math.sin(40 * x), 4)

    steps = [{"step": 7 * (number + 1), "loss": loss((number + 1) / STEPS), "seconds": number * 0.8} for number in range(STEPS)]
    epochs = [(number + 1) / EPOCHS for number in range(EPOCHS)]
    return {
        "steps": steps,
        "loss": [loss(x) for x in epochs],
        "validation_loss": [round(loss(x) + 0.06 + 0.05 * x, 4) for x in epochs],
        "accuracy": [round(accuracy - 0.5 * math.exp(-4 * x), 4) for x in epochs],
    }


def _evaluation(labels: tuple[str, ...], accuracy: float) -> dict[str, Any]:
    rows = [60, 55, 45, 40]
    actual = [number for number, count in enumerate(rows) for _ in range(count)]
    predicted = [number if place % 50 < accuracy * 50 else (number + 1 + place % 2) % len(labels) for place, number in enumerate(actual)]
    figures = classification_figures(confusion(actual, predicted, len(labels)), labels)
    return {"loss": round(1.3 * (1 - accuracy) + 0.06, 4), **figures}


def _variants(accuracy: float) -> tuple[dict[str, Any], ...]:
    return tuple(
        {"variant": name, "file": file, "served": name == "fp32", "bytes": size, "texts_per_second": speed, "texts": 200,
         "metrics": {"accuracy": accuracy - less}, "cosine": 1 - less, "agreement": 1 - less}
        for name, file, size, speed, less in (
            ("fp32", "model.onnx", 90_400_000, 412.0, 0.0), ("int8", "model_int8.onnx", 23_100_000, 731.0, 5e-3))
    )  # fmt: skip


def _tasks_of_other_states(documents: Documents) -> None:
    tasks, request = Tasks(documents), _request("samples/affiliations.tsv")
    running = tasks.begin(_accepted(documents, request, "training-running"))
    failed = tasks.begin(_accepted(documents, {**request, "dataset": {"path": "samples/absent.tsv"}}, "training-failed"))
    assert running
    assert failed
    whole = _history(0.9)
    history = {
        "steps": whole["steps"][:24],
        "loss": whole["loss"][:2],
        "validation_loss": whole["validation_loss"][:2],
        "accuracy": whole["accuracy"][:2],
    }
    progress = {
        "phase": "train",
        "percent": 57.2,
        "eta": 74.0,
        "epoch": 2.95,
        "step": 168,
        "steps": 280,
        "loss": 0.41,
        "tokens_per_second": 5210.4,
    }
    lines = [
        {"time": f"2026-01-05T09:12:{second:02}.250+00:00", "level": "info", "event": "job.phase", "phase": phase, "attempt": 1}
        for second, phase in ((1, "load"), (4, "prepare"), (9, "train"))
    ]
    tasks.report(running, progress=progress, history=history, log=lines)
    error = {
        "detail": "there is nothing at `samples/absent.tsv`",
        "field": "dataset.path",
        "remedy": "Give the path of a file that is there.",
    }
    _finish(documents, failed, "failed", error=error)
    _accepted(documents, request, "training-waiting")
    tasks.cancel(_accepted(documents, request, "training-cancelled"))


def _parked(documents: Documents) -> None:
    """An event that asked for an index and was tried as often as it may be."""
    request = {
        "model": {"name": "minilm"},
        "dataset": {"path": "samples/abstracts.jsonl"},
        "vector_store_save": {"path": "indexes/abstracts"},
    }
    event = events.new("index", request, source="/mlaas/cli", id="index-parked")
    ledger = Ledger(documents, limit=1, patience=0.0)

    def away() -> None:
        raise Unavailable("the object store is away", field="dataset.path", remedy="Replay the event when it is back.")

    with contextlib.suppress(Unavailable):
        ledger.act("index", event, away, error_id="")
    ledger.act("index", event, away, error_id="")
