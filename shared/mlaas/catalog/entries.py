"""What is said of a name, whatever its versions: owner, task, licence, tags, languages, who may see it.

A name that was published before there were entries gets one when it is first looked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ..documents import Documents, Stored, every
from ..errors import Outdated, Unavailable
from .kinds import Kind, now

__all__ = ["Entries", "Entry", "Visibility", "precisions"]

COLLECTION = "entries"
Visibility = Literal["public", "institute", "private"]
_CHANGED_AT_PUBLICATION = ("task", "latest", "updated", "precisions")


class Entry(BaseModel):
    """`latest` is None while there is no version; `revision` counts the changes, and is 0 for what was never stored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Kind
    name: str
    owner: str | None = None
    description: str = ""
    task: str | None = None
    licence: str | None = None
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    precisions: tuple[str, ...] = ()
    visibility: Visibility = "institute"
    card: str | None = None
    latest: str | None = None
    created: str = ""
    updated: str = ""
    revision: int = 0


@dataclass(frozen=True)
class Entries:
    """The entries in a document store."""

    documents: Documents

    def get(self, kind: Kind, name: str) -> Entry | None:
        """The entry of a name, None where there is none."""
        stored = self.documents.get(COLLECTION, _key(kind, name))
        return _entry(stored) if stored else None

    def ensure(self, kind: Kind, name: str, about: Mapping[str, Any], *, version: Mapping[str, Any] | None = None) -> None:
        """Add an entry that says `about` of itself, and what `version` says, unless there is one."""
        if self.documents.get(COLLECTION, _key(kind, name)) is None:
            made = {"created": now(), "updated": now(), **(_said(kind, version) if version else {}), **about}
            self.documents.insert(COLLECTION, _key(kind, name), _body(Entry(**{**made, "kind": kind, "name": name})))

    def published(self, kind: Kind, version: Mapping[str, Any]) -> None:
        """Let the entry say of its latest version what `version` says; one without a number says that there is none any more."""
        said = _said(kind, version)
        for _ in range(50):
            stored = self.documents.get(COLLECTION, _key(kind, version["name"]))
            if stored is None:
                return self.ensure(kind, version["name"], {}, version=version)
            if int(stored.body.get("latest") or 0) > int(version.get("version") or 0) and self._is_there(kind, stored):
                return None  # another publisher was faster
            kept = {name: value for name, value in said.items() if name in _CHANGED_AT_PUBLICATION or not stored.body.get(name)}
            if self.documents.replace(COLLECTION, stored, {**stored.body, **kept}):
                return None
        raise Unavailable("others change this entry")

    def change(self, kind: Kind, name: str, changes: Mapping[str, Any], *, if_revision: int | None = None) -> Entry:
        """Change what is said of a name. Raises Outdated where it is not any more as in `if_revision`."""
        for _ in range(50):
            stored = self.documents.get(COLLECTION, _key(kind, name))
            assert stored, "who changes an entry has read it"
            if if_revision is not None and stored.revision != if_revision:
                raise Outdated(f"`{name}` has been changed meanwhile", remedy="Read it again, and decide anew.")
            body = _body(Entry.model_validate({**stored.body, **changes}))
            if self.documents.replace(COLLECTION, stored, body):
                return _entry(Stored(stored.key, stored.revision + 1, stored.created, body))
        raise Unavailable("others change this entry")

    def all(self, kind: Kind) -> list[Entry]:
        """Every entry of a kind that has a version."""
        self._complete(kind)
        return [entry for stored in every(self.documents, COLLECTION, {"kind": kind}) if (entry := _entry(stored)).latest]

    def _complete(self, kind: Kind) -> None:
        """Once for each kind: an entry for each name that was published before there were any."""
        marker = f"complete/{kind}"
        if self.documents.get(COLLECTION, marker):
            return
        for stored in every(self.documents, kind, {}):  # newest first: the first of a name is its latest
            if "name" in stored.body:
                self.ensure(kind, stored.body["name"], {}, version=stored.body)
        self.documents.insert(COLLECTION, marker, {"since": now()})

    def _is_there(self, kind: Kind, entry: Stored) -> bool:
        stored = self.documents.get(kind, f"{entry.body['name']}/{entry.body['latest']}")
        return stored is not None and "name" in stored.body


def precisions(version: Mapping[str, Any]) -> list[str]:
    """The precisions in which a model's version can be had; that of the graph that is served first."""
    measured = (version.get("card") or {}).get("figures", {}).get("variants") or []
    named = [str(one["variant"]) for one in measured if one.get("variant")]
    return named or ["fp32"]


def _said(kind: Kind, version: Mapping[str, Any]) -> dict[str, Any]:
    """What the document of a version says of its entry."""
    figures = (version.get("card") or {}).get("figures", {})
    licence = (figures.get("licence") or {}).get("id") or version.get("licence")
    return {
        "task": version.get("objective"),
        "latest": version.get("version"),
        "updated": version.get("created") or now(),
        "precisions": precisions(version) if kind == "models" and version.get("version") else [],
        **({"licence": licence} if licence and licence != "unknown" else {}),
        **({"languages": version["languages"]} if version.get("languages") else {}),
    }


def _entry(stored: Stored) -> Entry:
    return Entry.model_validate({**stored.body, "revision": stored.revision})


def _body(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json", exclude={"revision"})


def _key(kind: Kind, name: str) -> str:
    return f"{kind}/{name}"
