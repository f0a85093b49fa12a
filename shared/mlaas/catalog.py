"""The catalog of models and indexes: immutable versions under a name, and aliases that move.

A version is a number that counts up under its name, and carries the digest of what it names. The same content published
again under the same name is the same version.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from .documents import Documents
from .errors import NotFound, Unavailable

__all__ = ["Catalog", "Kind", "Overtaken", "name_of"]

Kind = Literal["models", "indexes"]


def name_of(path: str, name: str | None) -> str:
    """The catalog name of what is saved at `path`: `name`, or the path's last part in the catalog's alphabet."""
    if name:
        return name
    last = path.rstrip("/").rpartition("/")[2].lower()
    return "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in last).lstrip("._-")[:100] or "unnamed"


class Overtaken(Exception):
    """Another version was published after the one that this was made from."""


@dataclass(frozen=True)
class Catalog:
    """The catalog in a document store."""

    documents: Documents

    def publish(self, kind: Kind, name: str, digest: str, entry: Mapping[str, Any], *, after: str | None = None) -> dict[str, Any]:
        """Add a version and return its entry; the existing one if this name has this digest already.

        With `after`, add it right after that version or raise Overtaken: what is made from a version must not hide a later one.
        """
        for _ in range(50):  # a number is taken only by another publisher of the same name
            existing = self.documents.find(kind, {"name": name}, limit=1000)
            for stored in existing:
                if stored.body["digest"] == digest and after is None:
                    return stored.body
            number = max((int(stored.body["version"]) for stored in existing), default=0) + 1
            if after is not None and number != int(after) + 1:
                raise Overtaken
            body = {
                **entry,
                "name": name,
                "version": str(number),
                "digest": digest,
                "created": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            # The latest version is the one created last, also where the clock has been set back since the one before.
            if self.documents.insert(kind, f"{name}/{number}", body, after=max((stored.created for stored in existing), default=0)):
                return body
        raise Unavailable("others publish under this name")

    def versions(self, kind: Kind, name: str | None = None, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Entries, newest first; of one name, or of all."""
        return [stored.body for stored in self.documents.find(kind, {"name": name} if name else {}, limit=limit)]

    def followers(self, model_name: str) -> list[dict[str, Any]]:
        """The latest version of each index that was built with the catalog's model of this name."""
        latest: dict[str, dict[str, Any]] = {}
        for stored in self.documents.find("indexes", {"model_name": model_name}, limit=1000):
            latest.setdefault(stored.body["name"], stored.body)
        return list(latest.values())

    def set_alias(self, kind: Kind, name: str, alias: str, version: str) -> dict[str, Any]:
        """Let `alias` of `name` point to `version`. Raises NotFound."""
        entry = self.resolve(kind, name, revision=version)
        for _ in range(50):
            body = {"kind": kind, "name": name, "alias": alias, "version": version}
            stored = self.documents.get("aliases", f"{kind}/{name}/{alias}")
            done = (
                self.documents.replace("aliases", stored, body)
                if stored
                else self.documents.insert("aliases", f"{kind}/{name}/{alias}", body)
            )
            if done:
                return entry
        raise Unavailable("others move this alias")

    def aliases(self, kind: Kind) -> dict[str, dict[str, str]]:
        """Name to alias to version."""
        found: dict[str, dict[str, str]] = {}
        for stored in self.documents.find("aliases", {"kind": kind}, limit=1000):
            found.setdefault(stored.body["name"], {})[stored.body["alias"]] = stored.body["version"]
        return found

    def resolve(self, kind: Kind, name: str, *, alias: str | None = None, revision: str | None = None) -> dict[str, Any]:
        """The entry of a name: the version `revision`, what `alias` points to, or the latest. Raises NotFound."""
        if alias and not revision:
            pointer = self.documents.get("aliases", f"{kind}/{name}/{alias}")
            if pointer is None:
                raise NotFound(
                    f"`{name}` has no alias `{alias}`",
                    field=f"{_field(kind)}.alias",
                    remedy="`mlaas catalog` lists names, versions and aliases.",
                )
            revision = pointer.body["version"]
        if revision:
            stored = self.documents.get(kind, f"{name}/{revision}")
            found = [stored.body] if stored else []
        else:
            found = self.versions(kind, name, limit=1)
        if not found:
            raise NotFound(
                f"the catalog has no {_NOUN[kind]} `{name}`" + (f" in version {revision}" if revision else ""),
                field=f"{_field(kind)}.name",
                remedy=self._remedy(kind, name),
            )
        return found[0]

    def _remedy(self, kind: Kind, name: str) -> str:
        near = difflib.get_close_matches(name, {entry["name"] for entry in self.versions(kind)}, n=1)
        return f"Did you mean `{near[0]}`?" if near else "`mlaas catalog` lists names, versions and aliases."


def _field(kind: Kind) -> str:
    return {"models": "model", "indexes": "dataset"}[kind]


_NOUN: Mapping[Kind, str] = {"models": "model", "indexes": "index"}
