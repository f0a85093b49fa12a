"""A file or a folder of the user's as a version of the catalog."""

from __future__ import annotations

import dataclasses
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from .. import progress_bars
from ..catalog.contracts import Uploaded, UploadQuery
from ..catalog.entries import Visibility
from ..catalog.kinds import Kind
from ..contracts import parse
from ..errors import InvalidRequest
from .connection import TRANSFER_SECONDS, Connection, catalog_request, sent
from .steps import Request, Steps

__all__ = ["uploaded"]


class Of(Protocol):
    """One kind of entries of a platform."""

    @property
    def link(self) -> Connection: ...
    @property
    def kind(self) -> Kind: ...


def uploaded(
    of: Of,
    name: str,
    path: str | os.PathLike[str],
    *,
    task: str | None = None,
    licence: str | None = None,
    owner: str | None = None,
    description: str | None = None,
    tags: list[str] | tuple[str, ...] = (),
    languages: list[str] | tuple[str, ...] = (),
    visibility: Visibility = "institute",
    parent: str | None = None,
    dataset: str | None = None,
    progress: bool = False,
) -> Steps[Uploaded]:
    """Publish a model or a data set that was made elsewhere: an archive, a data file, or a folder. The same content is the same version.

    Of a checkpoint without an ONNX graph the `status` is pending, and `client.task(uploaded.task_id)` is the task that exports it.
    """
    with _one_file(Path(path)) as file:
        given = {"task": task, "licence": licence, "owner": owner, "description": description, "parent": parent, "dataset": dataset}
        said = parse(
            UploadQuery,
            {
                "filename": file.name,
                "tag": list(tags),
                "language": list(languages),
                "visibility": visibility,
                **{key: value for key, value in given.items() if value is not None},
            },
        )
        query, size, done = said.model_dump(exclude_none=True), file.stat().st_size, [0]
        with progress_bars.transfer(f"sending {file.name}", disable=not progress) as show:

            def moved(count: int) -> None:
                done[0] += count
                show(done[0], size)

            def request() -> Request:
                done[0] = 0
                headers = {"Content-Type": "application/octet-stream"}
                where = (of.kind, name, "versions")
                made = catalog_request(of.link, "POST", where, query, headers=headers)
                return dataclasses.replace(made, body=file, moved=moved, timeout=TRANSFER_SECONDS)

            reply = yield from sent(of.link, request, seconds=TRANSFER_SECONDS)
        return Uploaded.model_validate_json(reply.body, extra="allow")


@contextmanager
def _one_file(path: Path) -> Iterator[Path]:
    """The file itself, or a folder as a tar."""
    if path.is_file():
        yield path
        return
    if not path.is_dir():
        raise InvalidRequest(f"there is no file {path}", field="path", remedy="Name an archive, a data file or a folder.")
    with tempfile.TemporaryDirectory(prefix="mlaas-upload-") as folder:
        yield Path(shutil.make_archive(str(Path(folder) / path.resolve().name), "tar", path))
