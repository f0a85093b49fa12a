"""`--file` of classify, fill-mask and search: send a file, follow the predictions, fetch the result.

The same command again finds the same task, by an idempotency key that is made of the request, the file's content and the
models' versions; so it can be interrupted at any point.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import tempfile
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from .. import datasets, display, events, references, storage
from ..client import Client
from ..client.names import place
from ..contracts import parse
from ..errors import InvalidRequest, MlaasError, NotFound
from ..settings import current
from .options import FAILED, interruptible, open_catalog, open_tasks
from .results import FORMATS, save
from .uploads import as_table, upload

__all__ = ["Again", "Asked", "Column", "File", "IdColumn", "Output", "predict"]

File = Annotated[
    str | None,
    typer.Option(
        "--file",
        "-f",
        metavar="FILE",
        help="Texts from a CSV, TSV, JSONL, Parquet or .txt file, from - (standard input), or from local:PATH or s3:BUCKET/KEY.",
    ),
]
Column = Annotated[str, typer.Option("--column", help="With --file: the column of the texts.")]
IdColumn = Annotated[str | None, typer.Option("--id-column", help="With --file: a column that the result repeats as `id`.")]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="With --file: the result, .parquet, .jsonl or .csv; FILE.predictions.parquet by default."),
]
Again = Annotated[bool, typer.Option("--again", help="With --file: predict anew what was predicted before.")]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the command line says beside the model: the file, and where the result goes."""

    file: str
    column: str
    id_column: str | None
    output: Path | None
    again: bool
    kafka: bool
    timeout: float

    @property
    def stored(self) -> bool:
        """Whether the file is in a storage already."""
        return self.file.startswith(("local:", "s3:"))

    @property
    def target(self) -> Path:
        """The file of the result."""
        name = "stdin" if self.file == "-" else Path(self.file.rpartition(":")[2] if self.stored else self.file).name
        stem = name.removesuffix(next((suffix for suffix in datasets.EXTENSIONS if name.lower().endswith(suffix)), ".txt"))
        beside = Path() if self.stored or self.file == "-" else Path(self.file).parent
        return self.output or beside / f"{stem}.predictions.parquet"


def predict(capability: str, request: Mapping[str, Any], asked: Asked, as_json: bool) -> None:
    """Do it all; exit status 1 if the task fails or is cancelled."""
    from ..batch import CONTRACTS  # numpy and more behind it, which no other command should wait for

    form = FORMATS.get(asked.target.suffix)
    if not form or not asked.target.parent.is_dir():
        raise InvalidRequest(
            "the result cannot be written there",
            field="--output",
            remedy=f"Name a file in a folder that exists, ending in {', '.join(FORMATS)}.",
        )
    versions = _versions(request)
    columns = {"page_content_column": asked.column} | ({"id_column": asked.id_column} if asked.id_column else {})
    dataset = {**_reference(asked, as_json), "loader_kwargs": columns}
    part = "search_input" if capability == "search" else "predict_input"
    whole = {**request, part: {"dataset": dataset}, "output": {"format": form}}
    parse(CONTRACTS[capability], whole)  # the same refusal as the platform's, before anything is sent
    repeatable = "sha256" in dataset and not asked.again
    task_id = _task(capability, whole, versions if repeatable else [os.urandom(16).hex()], asked)
    comes_back = "the same command" if repeatable else f"mlaas tasks show {task_id} --watch"
    with interruptible(f"The task goes on. Come back to it with {comes_back}; stop it with: mlaas tasks cancel {task_id}"):
        task = display.follow(open_tasks().get, task_id, as_json)
    if task["task_status"] != "succeeded":
        _failed(task, as_json)
        raise typer.Exit(FAILED)
    with _said_when_gone():
        save(task["result"]["predictions"], asked.target, current(), as_json)
    display.said(_sentence(task, asked.target), {**task, "output": str(asked.target)}, as_json)


def _reference(asked: Asked, as_json: bool) -> dict[str, Any]:
    if asked.stored:
        ref = place(asked.file)
        found = storage.fetch_dataset(ref["path"], "local", settings=current()) if ref["storage_type"] == "local" else None
        return references.refer_to(found, **ref) if found and found.is_file() else ref
    with tempfile.TemporaryDirectory(prefix="mlaas-upload-") as folder:
        table = as_table(asked.file, asked.column, Path(folder))
        columns = [asked.column, *([asked.id_column] if asked.id_column else [])]
        next(datasets.read(table, columns), None)  # a missing column is better known before the file is sent
        return upload(table, current(), as_json)


def _versions(request: Mapping[str, Any]) -> list[str]:
    """The digests of the catalog's entries that the request names now. Raises NotFound."""
    found = []
    for kind, part in (("models", "model"), ("indexes", "dataset")):
        ref = request.get(part) or {}
        if ref.get("name"):
            found.append(open_catalog().resolve(kind, ref["name"], alias=ref.get("alias"), revision=ref.get("revision"))["digest"])
    return found


def _task(capability: str, request: Mapping[str, Any], versions: list[str], asked: Asked) -> str:
    """The task that does it: the one that does or did it already, unless that failed or was cancelled, or a new one."""
    tasks = open_tasks()
    content = [capability, request, versions]
    for attempt in itertools.count():
        key = hashlib.sha256(json.dumps([*content, attempt], sort_keys=True).encode()).hexdigest()[:32]
        cause = events.new(capability, {}, source="/mlaas/client" if asked.kafka else events.HTTP_SOURCE, id=key)
        known = tasks.known(capability, cause)
        if not known:
            return str(_ask(capability, request, asked, key)["task_id"])
        if tasks.get(known["subject"])["task_status"] not in ("failed", "cancelled"):
            display.note(f"This was asked for before: following task {known['subject']}")
            return str(known["subject"])
    raise AssertionError("there is always another attempt")


def _ask(capability: str, request: Mapping[str, Any], asked: Asked, key: str) -> dict[str, Any]:
    with Client(kafka=current().kafka if asked.kafka else None, timeout=asked.timeout) as client:
        return client.ask(capability, request, idempotency_key=key).data


@contextmanager
def _said_when_gone() -> Any:
    try:
        yield
    except NotFound:
        raise NotFound(
            "the result is no longer in the storage", field="result", remedy="Run the command with --again to predict anew."
        ) from None


def _failed(task: Mapping[str, Any], as_json: bool) -> None:
    error = task.get("error") or {"detail": f"the task was {task['task_status']}"}
    if as_json:
        display.json_(task)
    else:
        display.error(MlaasError(error["detail"], field=error.get("field"), remedy=error.get("remedy")))


def _sentence(task: Mapping[str, Any], target: Path) -> str:
    rows, seconds = task["result"]["predictions"]["rows"], task["stats"].get("elapsed") or 0.0
    rate = f", {rows / seconds:,.0f} rows/s" if seconds else ""
    empty = task.get("dataset", {}).get("rows_without_text", 0)
    without = f" ({empty:,} of them without text)" if empty else ""
    return f"{rows:,} rows{without} in {seconds:,.1f} s{rate} -> {target}"
