"""Aliases: names that point to a version and move, with a history of where they pointed.

A move of the history is `{version, moved, by}`, with `rollback: true` where it went back; a removal has the version None.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..documents import Documents, Stored
from ..errors import Conflict, NotFound, Outdated, Unavailable
from .kinds import FIELDS, Kind, now

__all__ = ["all_of", "drop", "find", "history", "move", "of", "previous", "version_of"]

COLLECTION = "aliases"
KEPT = 200  # moves of a history


def find(documents: Documents, kind: Kind, name: str, alias: str) -> Stored:
    """The document of an alias that points to a version. Raises NotFound."""
    stored = documents.get(COLLECTION, _key(kind, name, alias))
    if stored is None or stored.body["version"] is None:
        raise NotFound(
            f"`{name}` has no alias `{alias}`", field=f"{FIELDS[kind]}.alias", remedy="`mlaas catalog` lists names, versions and aliases."
        )
    return stored


def version_of(documents: Documents, kind: Kind, name: str, alias: str) -> str:
    """The version that an alias points to. Raises NotFound."""
    return str(find(documents, kind, name, alias).body["version"])


def all_of(documents: Documents, kind: Kind) -> dict[str, dict[str, str]]:
    """Name to alias to version."""
    found: dict[str, dict[str, str]] = {}
    for stored in documents.find(COLLECTION, {"kind": kind}, limit=10_000):
        if stored.body["version"] is not None:
            found.setdefault(stored.body["name"], {})[stored.body["alias"]] = stored.body["version"]
    return found


def of(documents: Documents, kind: Kind, name: str) -> list[Stored]:
    """The aliases of a name, by alias."""
    found = documents.find(COLLECTION, {"kind": kind, "name": name}, limit=1000)
    return sorted((stored for stored in found if stored.body["version"] is not None), key=lambda stored: str(stored.body["alias"]))


def history(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The moves of an alias, oldest first; of one that was set before there was a history, where it points."""
    kept = body.get("history")
    return list(kept) if kept else [{"version": body["version"], "moved": None, "by": None}]


def move(
    documents: Documents,
    kind: Kind,
    name: str,
    alias: str,
    version: str | None,
    *,
    by: str | None = None,
    if_revision: int | None = None,
    rollback: bool = False,
) -> None:
    """Let an alias point to `version`, or to nothing. Raises Outdated where it is not any more as in `if_revision`; 0: not there."""
    made = {"version": version, "moved": now(), "by": by, **({"rollback": True} if rollback else {})}
    for _ in range(50):
        stored = documents.get(COLLECTION, _key(kind, name, alias))
        if if_revision is not None and if_revision != (stored.revision if stored and stored.body["version"] is not None else 0):
            raise Outdated(f"the alias `{alias}` of `{name}` has moved meanwhile", remedy="Read it again, and decide anew.")
        moves = [*(history(stored.body) if stored else []), made][-KEPT:]
        body = {"kind": kind, "name": name, "alias": alias, "version": version, "history": moves}
        if documents.replace(COLLECTION, stored, body) if stored else documents.insert(COLLECTION, _key(kind, name, alias), body):
            return
    raise Unavailable("others move this alias")


def drop(documents: Documents, kind: Kind, name: str, alias: str, *, by: str | None = None, if_revision: int | None = None) -> None:
    """Remove an alias; its history stays. Raises NotFound, Outdated."""
    find(documents, kind, name, alias)
    move(documents, kind, name, alias, None, by=by, if_revision=if_revision)


def previous(documents: Documents, kind: Kind, name: str, alias: str, there: Collection[str]) -> str:
    """The version that a rollback leads to, among those that are `there`. Raises NotFound, and Conflict where there is none."""
    body, before = find(documents, kind, name, alias).body, list[str]()
    for one in history(body):
        if one.get("rollback"):
            while before and before.pop() != one["version"]:
                pass
        if one["version"] is not None and (not before or before[-1] != one["version"]):
            before.append(one["version"])
    candidates = [version for version in before[:-1] if version in there and version != body["version"]]
    if not candidates:
        raise Conflict(f"`{alias}` of `{name}` pointed to nothing else that is still there", remedy="Point it to a version by its number.")
    return candidates[-1]


def _key(kind: Kind, name: str, alias: str) -> str:
    return f"{kind}/{name}/{alias}"
