"""What depends on a version: aliases, indexes that its vectors are in, versions made from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..documents import Documents
from .kinds import NOUNS, Kind

__all__ = ["Dependant", "dependants_of"]


@dataclass(frozen=True)
class Dependant:
    """An alias, or a version of another entry."""

    kind: str
    name: str
    version: str | None = None

    def __str__(self) -> str:
        return f"the {self.kind} `{self.name}`" + (f" version {self.version}" if self.version else "")

    def document(self) -> dict[str, str]:
        """As JSON."""
        return {"kind": self.kind, "name": self.name, **({"version": self.version} if self.version else {})}


def dependants_of(documents: Documents, kind: Kind, body: Mapping[str, Any]) -> list[Dependant]:
    """What depends on the version that `body` is, without repetition."""
    return list(dict.fromkeys(_found(documents, kind, body)))


def _found(documents: Documents, kind: Kind, body: Mapping[str, Any]) -> Iterator[Dependant]:
    name, version = body["name"], body["version"]
    for stored in documents.find("aliases", {"kind": kind, "name": name, "version": version}, limit=100):
        yield Dependant("alias", stored.body["alias"])
    if kind == "models":
        yield from _versions(documents, "models", {"parent.name": name, "parent.version": version})
        yield from _versions(documents, "indexes", {"model_digest": body["digest"]})
        others = documents.find("models", {"name": name}, limit=2)
        if not [one for one in others if one.body["version"] != version]:  # an index that follows the model needs one to follow
            yield from _versions(documents, "indexes", {"model_name": name})
    if kind == "datasets":
        yield from _versions(documents, "models", {"dataset.name": name, "dataset.version": version})
        yield from _versions(documents, "indexes", {"dataset.name": name, "dataset.version": version})


def _versions(documents: Documents, kind: Kind, match: Mapping[str, Any]) -> Iterator[Dependant]:
    for stored in documents.find(kind, match, limit=100):
        yield Dependant(NOUNS[kind], stored.body["name"], stored.body["version"])
