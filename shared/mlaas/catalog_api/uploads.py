"""A model or a data set that was made elsewhere: looked at, refused with the reason, or published as a new version.

A folder with a checkpoint but without an ONNX graph is stored, and a job is asked to export it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import archives, bundles, engine, events, storage
from .. import hugging_face_repository as repository
from ..catalog import Catalog, Kind
from ..catalog.contracts import UploadQuery
from ..contracts import ModelRequest, parse
from ..documents import shared
from ..errors import InvalidRequest, TooLarge
from ..settings import Settings
from ..storage import manifests
from ..tasks import Ownership, Tasks
from . import tables

__all__ = ["About", "Outcome", "Room", "take", "unlimited"]

Room = Callable[[int], AbstractContextManager[None]]  # holds so many bytes of a quota while they are stored; raises TooLarge

CARD_BYTES = 200_000
_EITHER = "model.onnx, tokenizer.json and config.json, or config.json and model.safetensors"
CHECKPOINT = ("config.json", "model.safetensors")
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".h5", ".msgpack", ".py")


@dataclass(frozen=True, kw_only=True)
class About:
    """What who sends it says of it. `parent` and `dataset` are `name` and `version` of what it was made from."""

    entry: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    licence: str | None = None
    parent: Mapping[str, str] | None = None
    dataset: Mapping[str, str] | None = None
    asked_by: str | None = None

    @classmethod
    def of(cls, said: UploadQuery, asked_by: str | None = None) -> About:
        """What a request of the subject `asked_by` says."""
        entry = {name: value for name in ("owner", "description", "licence") if (value := getattr(said, name))}
        return cls(
            entry={**entry, "tags": said.tag, "languages": said.language, "visibility": said.visibility},
            task=said.task,
            licence=said.licence,
            parent=_reference(said.parent),
            dataset=_reference(said.dataset),
            asked_by=asked_by,
        )


@dataclass(frozen=True)
class Outcome:
    """The version that was published, or the task of the job that will."""

    version: dict[str, Any] | None = None
    task_id: str | None = None


def unlimited(_: int) -> AbstractContextManager[None]:
    """Room for anything."""
    return nullcontext()


def take(kind: Kind, name: str, file: Path, about: About, settings: Settings, room: Room = unlimited) -> Outcome:
    """Publish `file`, an archive or a single data file, as a version of `name`; its folder is for work and is changed.

    Raises InvalidRequest with the reason where it is nothing that can be served or read, TooLarge, and as `storage.publish` does.
    """
    catalog = Catalog(shared(settings))
    for what, ref in (("models", about.parent), ("datasets", about.dataset)):
        if ref:
            catalog.resolve(what, ref["name"], revision=ref["version"])  # type: ignore[arg-type]
    folder = _unpacked(file, settings)
    with room(manifests.size_of(folder, manifests.files_of(folder))):
        return _taken(catalog, kind, name, folder, about, settings)


def _taken(catalog: Catalog, kind: Kind, name: str, folder: Path, about: About, settings: Settings) -> Outcome:
    if kind == "models":
        return _model(catalog, name, folder, about, settings)
    if kind == "datasets":
        return Outcome(version=_dataset(catalog, name, folder, about, settings))
    raise InvalidRequest("an index is not uploaded: it is built", field="kind", remedy="Upload its data set, and send an index request.")


def _unpacked(file: Path, settings: Settings) -> Path:
    """A folder with what is in an archive, or with the single file."""
    folder = file.parent / "content"
    lowered = file.name.lower()
    if lowered.endswith(archives.EXTENSIONS):
        archives.unpack(file, folder, archives.Limits(settings.upload_bytes))
        file.unlink()
        return folder
    if lowered.endswith(".gz"):
        archives.check_gzip(file, settings.upload_bytes)
    folder.mkdir()
    shutil.move(file, folder / file.name)
    return folder


def _model(catalog: Catalog, name: str, folder: Path, about: About, settings: Settings) -> Outcome:
    names = manifests.files_of(folder)
    if pickled := [one for one in names if one.lower().endswith(_PICKLES)]:
        raise InvalidRequest(
            f"`{pickled[0]}` may hold code, which is never loaded", field="filename", remedy="Send ONNX or safetensors alone."
        )
    if names == ["model.onnx"] or not any((folder / layout.marker).is_file() for layout in bundles.LAYOUTS):
        return _checkpoint(catalog, name, folder, names, about, settings)
    try:
        bundle = bundles.open_bundle(folder)
        if (folder / manifests.MANIFEST).is_file():
            bundles.verify(folder)
        engine.load(bundle, threads=1)
    except InvalidRequest as error:
        error.field = "filename"
        raise
    if about.task and about.task != bundle.objective:
        raise InvalidRequest(f"the model is one for {bundle.objective}", field="task", remedy="Leave `task` out, or name the model's own.")
    readme = folder / "README.md"
    card = {"markdown": readme.read_text("utf-8", "replace"), "figures": {}} if _is_card(readme) else None
    body = {"objective": bundle.objective, "labels": list(bundle.labels), "max_length": bundle.max_length, "card": card}
    return Outcome(version=_publish(catalog, "models", name, folder, bundle.digest, about, body, settings))


def _checkpoint(catalog: Catalog, name: str, folder: Path, names: list[str], about: About, settings: Settings) -> Outcome:
    """Store a checkpoint and ask for a job that exports it. Raises InvalidRequest where it is none."""
    if not set(CHECKPOINT) <= set(names):
        graphs = [one for one in names if one.endswith(".onnx")]
        detail = "an ONNX graph alone is not served" if graphs else "this is neither a model with an ONNX graph nor a checkpoint"
        raise InvalidRequest(detail, field="filename", remedy=f"Send a zip or tar with {_EITHER}.")
    objective = about.task or repository.describe(folder).objective
    place, storage_type = _place("checkpoints", name, settings)
    digest = manifests.digest_of({one: manifests.sha256_of(folder / one) for one in names})
    path = storage.publish(folder, place, storage_type, digest[:16], settings=settings)
    save, to = _place("models", name, settings)
    asked = {
        "model": {"path": path, "storage_type": storage_type, "objective": objective},
        "model_save": {"path": save, "storage_type": to, "name": name, **({"licence": about.licence} if about.licence else {})},
    }
    request = parse(ModelRequest, asked).model_dump(exclude_none=True)
    catalog.entries.ensure("models", name, about.entry)
    cause = events.new("model", request, source="/mlaas/uploads", id=f"{name}/{digest}")
    ownership = Ownership(about.entry.get("owner"), about.asked_by)
    accepted = Tasks(shared(settings)).accept("model", request, cause, publish=True, ownership=ownership)
    return Outcome(task_id=str(accepted.data["task_id"]))


def _dataset(catalog: Catalog, name: str, folder: Path, about: About, settings: Settings) -> dict[str, Any]:
    table = tables.look(folder, settings.upload_bytes)
    names = manifests.files_of(folder)
    hashes = {one: manifests.sha256_of(folder / one) for one in names}
    alone = {"sha256": hashes[names[0]]} if len(names) == 1 else {}  # trainings record that of a data set which is one file
    body = {"count": table.count, "columns": table.columns, "preview": table.preview, **alone}
    return _publish(catalog, "datasets", name, folder, manifests.digest_of(hashes), about, body, settings)


def _publish(
    catalog: Catalog, kind: Kind, name: str, folder: Path, digest: str, about: About, body: Mapping[str, Any], settings: Settings
) -> dict[str, Any]:
    place, storage_type = _place(kind, name, settings)
    files = manifests.table(manifests.describe(folder, manifests.files_of(folder)))
    path = storage.publish(folder, place, storage_type, digest[:16], settings=settings)
    given = {"licence": about.licence, "parent": about.parent, "dataset": about.dataset, **body}
    known = {key: value for key, value in given.items() if value is not None}
    return catalog.publish(kind, name, digest, {"path": path, "storage_type": storage_type, "files": files, **known}, about=about.entry)


def _place(kind: str, name: str, settings: Settings) -> tuple[str, str]:
    storage_type, _, prefix = settings.uploads.partition(":")
    return f"{prefix}/{kind}/{name}", storage_type


def _reference(text: str | None) -> dict[str, str] | None:
    name, _, version = (text or "").partition(":")
    return {"name": name, "version": version} if name else None


def _is_card(readme: Path) -> bool:
    if not readme.is_file():
        return False
    if readme.stat().st_size > CARD_BYTES:
        raise TooLarge(f"`README.md` has more than {CARD_BYTES} bytes", field="filename", remedy="Shorten it: it is the model's card.")
    return True
