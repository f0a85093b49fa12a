"""How a text names a model, a place in a storage, or a vector store: on the command line and in the SDK alike."""

from __future__ import annotations

from typing import Any, TypeAlias

from ..contracts import ModelRef, VectorStoreRef, parse

__all__ = ["Index", "Model", "model_ref", "place", "store_ref"]

Model: TypeAlias = str | ModelRef
Index: TypeAlias = str | VectorStoreRef
_STORAGES = {"local": "local", "s3": "s3", "hub": "hugging_face_hub"}


def model_ref(text: Model) -> ModelRef:
    """The model that NAME, NAME@ALIAS, NAME:VERSION, local:PATH, s3:BUCKET/KEY or hub:ORG/REPO names. Raises InvalidRequest."""
    if isinstance(text, ModelRef):
        return text
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _STORAGES:
        return parse(ModelRef, {"path": rest, "storage_type": _STORAGES[scheme]})
    name, at, alias = text.partition("@")
    name, _, version = name.partition(":")
    return parse(ModelRef, {"name": name, "alias": alias if at else None, "revision": version or None})


def place(text: str) -> dict[str, Any]:
    """Path and storage type of local:PATH, s3:BUCKET/KEY or hub:ORG/REPO; a mere PATH is local."""
    scheme, colon, rest = text.partition(":")
    if colon and scheme in _STORAGES:
        return {"path": rest, "storage_type": _STORAGES[scheme]}
    return {"path": text, "storage_type": "local"}


def store_ref(index: Index) -> VectorStoreRef:
    """The vector store that NAME, NAME@ALIAS, NAME:VERSION, local:PATH or s3:BUCKET/KEY names. Raises InvalidRequest."""
    if isinstance(index, VectorStoreRef):
        return index
    if index.startswith(("local:", "s3:")):
        return parse(VectorStoreRef, place(index))
    name, _, alias = index.partition("@")
    name, _, version = name.partition(":")
    return parse(VectorStoreRef, {"name": name, "alias": alias or None, "revision": version or None})
