"""`mlaas train`, `index`, `export` and `tasks`: what takes long."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import display, progress_bars
from ..client import Client
from ..client.names import model_ref, place
from ..contracts import IndexRequest, ModelSave, TrainRequest, parse
from ..settings import current
from . import completion
from .options import FAILED, Json, Model, given, interruptible, json_argument, open_tasks, says_why

__all__ = ["app", "tasks_app"]

TaskId = Annotated[str, typer.Argument(autocompletion=completion.tasks)]

app = typer.Typer()
tasks_app = typer.Typer(help="Tasks: trainings, index builds and predictions for files.", invoke_without_command=True)


@app.command(
    epilog="Example: mlaas index -m minilm --dataset local:samples/abstracts.jsonl --column abstract --save indexes/abstracts --watch"
)
@says_why
def index(
    model: Model,
    save: Annotated[str, typer.Option(help="Where the index is published: PATH (local) or s3:BUCKET/KEY.")],
    dataset: Annotated[str | None, typer.Option(help="local:PATH or s3:BUCKET/KEY of a CSV, TSV, JSONL or Parquet file.")] = None,
    column: Annotated[str, typer.Option(help="The column that is embedded.")] = "text",
    id_column: Annotated[str | None, typer.Option(help="The column with each document's id.")] = None,
    name: Annotated[str | None, typer.Option(help="The catalog name; the last part of --save by default.")] = None,
    index_type: Annotated[str | None, typer.Option(help="flat, hnsw or ivf_pq; by the number of documents by default.")] = None,
    recall: Annotated[float | None, typer.Option(help="The least part of the 10 nearest that searches find (0.95).")] = None,
    update: Annotated[bool, typer.Option("--update", help="Change the latest version by ids instead of building anew.")] = False,
    delete: Annotated[list[str] | None, typer.Option(help="Id of a document to remove, with --update; several times.")] = None,
    compact: Annotated[bool, typer.Option("--compact", help="Merge everything into one index, with --update.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the build to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Embed documents and build a searchable index, or update one."""
    columns = {"page_content_column": column} | ({"id_column": id_column} if id_column else {})
    request = {
        "model": model_ref(model).model_dump(exclude_none=True),
        "vector_store_save": {**place(save), "format": "vector_store"} | ({"name": name} if name else {}),
    } | given(index_type=index_type, recall=recall)
    if dataset:
        request["dataset"] = {**place(dataset), "loader_kwargs": columns}
    if update or delete or compact:
        request["update"] = given(delete=delete or None, compact=compact or None)
    parse(IndexRequest, request)  # the same refusal as the platform's, before anything is sent
    _submit("index", request, watch, as_json)


@app.command(
    epilog="Example: mlaas train -m local:checkpoints/minilm --objective text-classification --dataset local:affiliations.tsv "
    "--text-column affiliation --save models/infn-structures --watch"
)
@says_why
def train(
    request: Annotated[str | None, typer.Option("--request", "-r", help="The request as JSON, @FILE or -; options change it.")] = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="The checkpoint: local:PATH, s3:BUCKET/KEY or hub:ORG/REPO.")] = None,
    architecture: Annotated[str | None, typer.Option(help="tfidf-linear or tfidf-boosting, instead of a checkpoint.")] = None,
    objective: Annotated[str | None, typer.Option(help="text-classification, masked-lm, token-classification, ...")] = None,
    dataset: Annotated[str | None, typer.Option(help="local:PATH or s3:BUCKET/KEY of a CSV, TSV, JSONL or Parquet file.")] = None,
    text_column: Annotated[str | None, typer.Option(help="The column with the texts (text).")] = None,
    label_column: Annotated[str | None, typer.Option(help="The column with the labels (label).")] = None,
    pair_column: Annotated[str | None, typer.Option(help="The column with the second text of each pair.")] = None,
    split: Annotated[float | None, typer.Option(help="The fraction held out for evaluation (0.1).")] = None,
    epochs: Annotated[int | None, typer.Option(min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(min=1)] = None,
    learning_rate: Annotated[float | None, typer.Option()] = None,
    processes: Annotated[int | None, typer.Option(min=1, help="Processes that share each batch (1).")] = None,
    save: Annotated[str | None, typer.Option(help="Where the model is published: PATH (local) or s3:BUCKET/KEY.")] = None,
    name: Annotated[str | None, typer.Option(help="The catalog name; the last part of --save by default.")] = None,
    licence: Annotated[str | None, typer.Option(help="The model's licence, e.g. apache-2.0; the base model's by default.")] = None,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow the training to its end.")] = False,
    as_json: Json = False,
) -> None:
    """Train a model, export it to ONNX and publish it in the catalog."""
    asked: dict[str, Any] = json_argument(request) if request else {}
    changes: dict[str, Any] = {
        "model": ({**model_ref(model).model_dump(exclude_none=True)} if model else {})
        | given(objective=objective, architecture=architecture),
        "dataset": (place(dataset) if dataset else {})
        | given(text_column=text_column, label_column=label_column, pair_column=pair_column, train_test_split=split),
        "model_train": given(epochs=epochs, batch_size=batch_size, processes=processes)
        | ({"optimizer": {"init_lr": learning_rate}} if learning_rate else {}),
        "model_save": (place(save) if save else {}) | given(name=name, licence=licence),
    }
    for part, change in changes.items():
        if change:
            asked[part] = {**asked.get(part, {}), **change}
    parse(TrainRequest, asked)  # the same refusal as the platform's, before anything is sent
    _submit("train", asked, watch, as_json)


@app.command(epilog="Example: mlaas export -m local:checkpoints/minilm --objective no-objective --save models/minilm")
@says_why
def export(
    model: Annotated[str, typer.Option("--model", "-m", help="The checkpoint: local:PATH, s3:BUCKET/KEY or hub:ORG/REPO.")],
    objective: Annotated[str, typer.Option(help="What it is served for: no-objective (embeddings), text-classification, masked-lm, ...")],
    save: Annotated[str, typer.Option(help="Where the model is published: PATH (local) or s3:BUCKET/KEY.")],
    name: Annotated[str | None, typer.Option(help="The catalog name; the last part of --save by default.")] = None,
    licence: Annotated[str | None, typer.Option(help="The model's licence, e.g. apache-2.0; the checkpoint's by default.")] = None,
    as_json: Json = False,
) -> None:
    """Export a PyTorch checkpoint to ONNX and publish it in the catalog. Needs the `train` extra."""
    from ..training import publish

    asked = parse(ModelSave, place(save) | given(name=name, licence=licence))
    with progress_bars.transfer(f"downloading {model}", disable=as_json) as progress:
        entry = publish.export_and_publish(model_ref(model), objective, asked, current(), progress)
    display.said(f"{entry['name']} version {entry['version']} is in the catalog", entry, as_json)


@tasks_app.callback(epilog="Example: mlaas tasks --status running")
@says_why
def tasks(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="accepted, running, succeeded, failed or cancelled.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Json = False,
) -> None:
    """List tasks, newest first."""
    if context.invoked_subcommand is None:
        display.tasks(open_tasks().find(status=status, limit=limit)[0], as_json)


@tasks_app.command("show", epilog="Example: mlaas tasks show 7d0c...")
@says_why
def tasks_show(
    task_id: TaskId, watch: Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end.")] = False, as_json: Json = False
) -> None:
    """Show one task."""
    task = display.follow(open_tasks().get, task_id, as_json) if watch else open_tasks().get(task_id)
    display.task(task, as_json)
    _status_of(task)


@tasks_app.command("cancel", epilog="Example: mlaas tasks cancel 7d0c...")
@says_why
def tasks_cancel(task_id: TaskId, as_json: Json = False) -> None:
    """Cancel a waiting or running task."""
    display.task(open_tasks().cancel(task_id), as_json)


def _submit(capability: str, request: dict[str, Any], watch: bool, as_json: bool) -> None:
    with Client() as client:
        task = client.ask(capability, request).data
    if watch:
        with interruptible(f"The task goes on. See it with: mlaas tasks show {task['task_id']} --watch"):
            task = display.follow(open_tasks().get, task["task_id"], as_json)
    display.task(task, as_json)
    _status_of(task)


def _status_of(task: dict[str, Any]) -> None:
    if task["task_status"] in ("failed", "cancelled"):
        raise typer.Exit(FAILED)
