"""What a served model is on disk: an ONNX graph, its tokenizer, its configuration, and what they are for.

Two kinds of folder are served: our own, whose `manifest.json` says everything and holds the sha256 of each file, and a
plain Hugging Face repository with an ONNX export, which is read as it is. Only the standard library is imported: a
bundle is opened while a serving process starts.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import hugging_face_repository as repository
from . import precision
from .errors import InvalidRequest
from .objectives import OBJECTIVES
from .precision import Variant
from .storage import manifests
from .storage.manifests import MANIFEST, FileRecord

__all__ = ["LAYOUTS", "Bundle", "Layout", "not_loadable", "open_bundle", "reopen_bundle", "verify", "write_manifest"]

FORMAT = "mlaas-bundle"
VERSION = 1
_KEPT = 64  # bundles that are remembered
_EXPORT = "`mlaas export` makes a bundle out of a PyTorch checkpoint."


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A model that can be served. `digest` is the sha256 over its files' names and sha256s; `max_length` is in tokens.

    `pooling` is how token vectors become one vector: `mean`, `cls`, or None where the graph or nobody does it;
    `normalize` says whether that vector is then scaled to length 1. `variants` are what there is beside `graph`, as it was measured.
    """

    folder: Path
    digest: str
    objective: str
    labels: tuple[str, ...]
    pooling: str | None
    normalize: bool
    max_length: int
    graph: Path
    tokenizer: Path
    mask_token: str | None
    provenance: dict[str, Any]
    config: dict[str, Any]
    variants: tuple[Variant, ...] = ()

    def graph_of(self, variant: str) -> Path:
        """The graph of one of `variants`, or the published one."""
        return next((self.folder / one.file for one in self.variants if one.name == variant), self.graph)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A kind of folder: known by `marker`, complete with `required`, read by `read(folder, layout)`."""

    name: str
    marker: str
    graph: str
    required: tuple[str, ...]
    read: Callable[[Path, Layout], Bundle]


_opened: dict[Path, tuple[tuple[object, ...], Bundle]] = {}


def open_bundle(folder: Path) -> Bundle:
    """The bundle in `folder`. Raises InvalidRequest saying what is missing or wrong; our own layout's hashes are not read."""
    layout = next((layout for layout in LAYOUTS if (folder / layout.marker).is_file()), None)
    if layout is None:
        raise InvalidRequest(
            f"the model's folder is no bundle: it has none of {', '.join(f'`{one.marker}`' for one in LAYOUTS)}",
            field="path",
            remedy=_EXPORT,
        )
    for name in layout.required:
        if not (folder / name).is_file():
            raise InvalidRequest(f"the model's folder lacks `{name}`", field="path", remedy=_EXPORT)
    return layout.read(folder, layout)


def not_loadable(why: str, remedy: str) -> InvalidRequest:
    """What is raised for a bundle whose files are there but cannot be used, `why`, and what to do about it."""
    return InvalidRequest(f"the model cannot be loaded: {why}", field="model", remedy=remedy)


def reopen_bundle(folder: Path) -> Bundle:
    """As `open_bundle`, without reading again what was read before and has not changed since: for each of many requests."""
    stamp = _stamp(folder)
    known = _opened.get(folder)
    if known and stamp and known[0] == stamp:
        return known[1]
    bundle = open_bundle(folder)
    if len(_opened) >= _KEPT:
        _opened.clear()
    if stamp:
        _opened[folder] = stamp, bundle
    return bundle


def _stamp(folder: Path) -> tuple[object, ...]:
    """Differs once a file in the folder is another or was written; nothing for what is no bundle."""
    if not any(os.path.isfile(f"{folder}/{layout.marker}") for layout in LAYOUTS):
        return ()
    names = (f"{parent}/{name}" for parent, _, files in os.walk(folder) for name in files)
    try:
        return tuple((name, one.st_ino, one.st_size, one.st_mtime_ns) for name in names for one in (os.stat(name),))
    except OSError:
        return ()


def write_manifest(
    folder: Path,
    *,
    objective: str,
    labels: Iterable[str] = (),
    pooling: str | None = None,
    normalize: bool = False,
    max_length: int,
    provenance: Mapping[str, Any],
    variants: Iterable[Variant] = (),
) -> Bundle:
    """Make `folder` a bundle: hash every file, see them to disk, write `manifest.json` last and atomically."""
    (folder / MANIFEST).unlink(missing_ok=True)  # an old one would vouch for files that have changed
    names = manifests.files_of(folder)
    for name in (name for name in OWN.required if name != MANIFEST and name not in names):
        raise InvalidRequest(f"the model's folder lacks `{name}`", field="path", remedy=_EXPORT)
    document = {
        "format": FORMAT,
        "version": VERSION,
        "objective": objective,
        "labels": list(labels),
        "pooling": pooling,
        "normalize": normalize,
        "max_length": max_length,
        "mask_token": repository.mask_token(folder),
        "provenance": dict(provenance),
        "variants": [one.table() for one in variants],
        "files": manifests.table(manifests.describe(folder, names)),
    }
    _check(document)
    _sync(folder, names)
    manifests.write_durably(folder / MANIFEST, json.dumps(document, indent=1, ensure_ascii=False).encode())
    return open_bundle(folder)


def verify(folder: Path) -> None:
    """Raises InvalidRequest naming the first file whose size or sha256 is not that of the manifest; reads every file."""
    files = _check(manifests.read_json(folder / MANIFEST))
    _check_inside(folder, files)
    manifests.check_sizes(folder, files)
    manifests.check_hashes(folder, files)


def _read_own(folder: Path, layout: Layout) -> Bundle:
    document = manifests.read_json(folder / MANIFEST)
    files = _check(document)
    _check_inside(folder, [MANIFEST, *files])
    manifests.check_sizes(folder, files)
    return Bundle(
        folder=folder,
        digest=manifests.digest_of({name: record.sha256 for name, record in files.items()}),
        objective=document["objective"],
        labels=tuple(document["labels"]),
        pooling=document["pooling"],
        normalize=document["normalize"],
        max_length=document["max_length"],
        graph=folder / layout.graph,
        tokenizer=folder / "tokenizer.json",
        mask_token=document["mask_token"],
        provenance=document["provenance"],
        variants=precision.read(document.get("variants", []), files) or (),
        config=manifests.read_json(folder / "config.json"),
    )


def _read_repository(folder: Path, layout: Layout) -> Bundle:
    names = repository.files(folder, layout.graph)
    _check_inside(folder, names)
    described = repository.describe(folder)
    return Bundle(
        folder=folder,
        digest=manifests.digest_of({name: repository.sha256_of(folder / name) for name in names}),
        objective=described.objective,
        labels=described.labels,
        pooling=described.pooling,
        normalize=described.normalize,
        max_length=described.max_length,
        graph=folder / layout.graph,
        tokenizer=folder / "tokenizer.json",
        mask_token=described.mask_token,
        provenance={"layout": layout.name, "architectures": described.config.get("architectures")},
        config=described.config,
    )


def _repository_with(graph: str) -> Layout:
    return Layout(name="hugging-face", marker=graph, graph=graph, required=(graph, "tokenizer.json", "config.json"), read=_read_repository)


OWN = Layout(
    name="mlaas", marker=MANIFEST, graph="model.onnx", required=(MANIFEST, "model.onnx", "tokenizer.json", "config.json"), read=_read_own
)
LAYOUTS = (OWN, _repository_with("onnx/model.onnx"), _repository_with("model.onnx"))


def _check(document: Mapping[str, Any]) -> dict[str, FileRecord]:
    """The files of a manifest. Raises InvalidRequest naming the first entry that is not as it must be."""
    labels = document.get("labels")
    mask = document.get("mask_token")
    checks = {
        "format": document.get("format") == FORMAT,
        "version": document.get("version") == VERSION and type(document.get("version")) is int,
        "objective": document.get("objective") in OBJECTIVES,
        "labels": isinstance(labels, list) and all(isinstance(label, str) for label in labels),
        "pooling": "pooling" in document and document["pooling"] in ("mean", "cls", None),
        "normalize": isinstance(document.get("normalize"), bool),
        "max_length": type(document.get("max_length")) is int and document["max_length"] > 0,
        "mask_token": "mask_token" in document and (mask is None or isinstance(mask, str)),
        "provenance": isinstance(document.get("provenance"), dict),
    }
    for name, good in checks.items():
        if not good:
            raise InvalidRequest(
                f"the manifest's `{name}` is missing or not one that this release understands", field="path", remedy=_EXPORT
            )
    files = manifests.records(document.get("files"))
    for name in OWN.required:
        if name != MANIFEST and name not in files:
            raise InvalidRequest(f"the manifest does not name `{name}`", field="path", remedy=_EXPORT)
    if precision.read(document.get("variants", []), files) is None:  # older manifests have none
        raise InvalidRequest("the manifest's `variants` are not ones that this release understands", field="path", remedy=_EXPORT)
    return files


def _check_inside(folder: Path, names: Iterable[str]) -> None:
    """Raises InvalidRequest for a link that leaves the folder; the hub's cache keeps a snapshot's files in `blobs` beside it."""
    real = os.path.realpath(folder)
    allowed = [f"{real}/"]
    if os.path.basename(os.path.dirname(real)) == "snapshots":
        allowed.append(f"{os.path.dirname(os.path.dirname(real))}/blobs/")
    for name in names:
        if not os.path.realpath(folder / name).startswith(tuple(allowed)):
            raise InvalidRequest(f"`{name}` is a link that leaves the model's folder", field="path", remedy="Replace links by copies.")


def _sync(folder: Path, names: Iterable[str]) -> None:
    for name in names:
        manifests.sync_file(folder / name)
    for parent, _, _ in os.walk(folder):
        manifests.sync_folder(Path(parent))
