"""Uploading a model or a data set: a form for what the REST interface's upload takes, which does and refuses the same."""

from __future__ import annotations

import re
import tempfile
from typing import IO, Any, Literal

import flask
from werkzeug.formparser import FormDataParser

from .. import archives
from ..catalog.contracts import EntryName, Uploaded, UploadQuery
from ..catalog_api import operations
from ..catalog_api.operations import Asked
from ..contracts import parse
from ..dataset_files import EXTENSIONS
from ..errors import MlaasError
from ..runtime import problem
from ..settings import Settings, current
from .forms import Field, Form, Group, Written
from .page import Page, Visit
from .request_forms import OBJECTIVES

__all__ = ["PAGES"]

FIELDS_BYTES = 1024**2  # of a form, beside its file
FILE = "filename"  # the field of the file, as the REST interface calls what says its name


class BrowserUpload(UploadQuery, EntryName):
    """An upload with what the REST interface has in its path."""

    kind: Literal["models", "datasets"]


_WORDS = "Use lowercase letters, digits, `.`, `_` and `-`, beginning with a letter or a digit"
_WRITTEN = {
    "name": f"{_WORDS}, at most 100.",
    "tag": f"{_WORDS}, at most 50 for each.",
    "language": "Use language tags such as `en` or `it`.",
    "parent": "Use NAME:VERSION, e.g. `minilm:1`.",
    "dataset": "Use NAME:VERSION, e.g. `affiliations:1`.",
    FILE: "Use a name with letters and digits, at most 200.",
}

FORM = Form(
    contract=BrowserUpload,
    groups=(
        Group(
            title="What it is",
            fields=(
                Field(path="kind", label="Kind", options=(("models", "a model"), ("datasets", "a data set"))),
                Field(path="name", label="Name", placeholder="my-model", hint="A new one, or one of yours, which gets another version."),
                Field(
                    path=FILE,
                    label="File",
                    accept=",".join((*archives.EXTENSIONS, *EXTENSIONS, ".gz")),
                    hint="A model: zip or tar of a Hugging Face folder, with model.onnx or model.safetensors. "
                    "A data set: CSV, TSV, JSON lines or Parquet, or a zip of such files.",
                ),
                Field(
                    path="visibility",
                    label="Who sees it",
                    options=(("institute", "the institute"), ("public", "everybody"), ("private", "its owner alone")),
                    hint="Of a new name; else it stays as it is.",
                ),
            ),
        ),
        Group(
            title="More about it",
            advanced=True,
            fields=(
                Field(path="description", label="Description"),
                Field(path="licence", label="Licence", placeholder="apache-2.0"),
                Field(path="tag", label="Tags", hint="With commas between them."),
                Field(path="language", label="Languages", placeholder="en, it"),
                Field(path="owner", label="Owner", hint="Yourself by default, or `group:NAME` of a group of yours."),
                Field(path="task", label="Task of a model", options=(("", "as its configuration says"), *OBJECTIVES)),
                Field(path="parent", label="Made from the model", placeholder="name:1"),
                Field(path="dataset", label="Trained on the data set", placeholder="name:1"),
            ),
        ),
    ),
)


def upload(visit: Visit) -> Any:
    """The form, and what it sends."""
    if flask.request.method == "GET":
        given = {name: value for name, value in flask.request.args.items() if name in ("kind", "name")}
        return _shown(visit, Written.of_fields(FORM, given))
    written = Written.of_fields(FORM, flask.request.form)
    written.request = _request(written.request)
    written.check()
    if not written.found:
        try:
            return flask.redirect(_made(visit, written.request), 303)
        except MlaasError as refused:
            written.found.append(refused)
    return _shown(visit, written)


def _request(fields: dict[str, Any]) -> dict[str, Any]:
    """What the fields and the file say, as the contract has it."""
    lists: dict[str, Any] = {name: re.split(r"[\s,]+", fields[name]) for name in ("tag", "language") if name in fields}
    file = flask.request.files.get(FILE)
    said = re.sub(r"[^A-Za-z0-9._-]+", "-", file.filename or "").lstrip("._-") if file else ""
    return {**fields, **lists, **({FILE: said} if said else {})}


def _made(visit: Visit, request: dict[str, Any]) -> str:
    """Publish the file; the page of the version, or of the task that will make it. Raises as the REST interface's upload."""
    path = {name: request[name] for name in ("kind", "name")}
    query = parse(UploadQuery, {name: value for name, value in request.items() if name not in path})
    asked = Asked(catalog=visit.catalog, principal=visit.principal, settings=visit.settings, path=path, query=query)
    asked.require_owner()
    stream = flask.request.files[FILE].stream
    done: Uploaded = operations.uploaded(asked, stream)
    return f"/web/tasks/{done.task_id}" if done.task_id else f"/web/{asked.kind}/{asked.name}?version={done.version}"


def _shown(visit: Visit, written: Written) -> Any:
    for one in written.found:
        if one.field == "$":  # the body, which here is a file of a form
            one.field = FILE
        if one.field == FILE and one.detail.endswith("is required"):
            one.detail, one.remedy = "no file is chosen", "Choose one."
        if one.remedy is None and "match pattern" in one.detail:
            one.detail, one.remedy = "this is not written as it should be", _WRITTEN.get((one.field or "").partition(".")[0], "Correct it.")
    status = problem(written.found[0])["status"] if written.found else 200
    return visit.show("upload.html", status=status, form=FORM, written=written, beside=written.beside(), limit=visit.settings.upload_bytes)


class _ToDisk(FormDataParser):
    """A form's files go to a file without a name in the folder of all work, never into memory or another volume."""

    def __init__(self, *_: Any, **options: Any) -> None:
        super().__init__(**{**options, "stream_factory": _place})


def _place(*_: Any, **__: Any) -> IO[bytes]:
    work = current().home / "work"
    work.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryFile(dir=work)


def _large(settings: Settings) -> None:
    """Let this request's form have a file."""
    flask.request.max_content_length = settings.upload_bytes + FIELDS_BYTES
    flask.request.form_data_parser_class = _ToDisk


PAGES = (Page("/upload", upload, ("GET", "POST"), _large),)
