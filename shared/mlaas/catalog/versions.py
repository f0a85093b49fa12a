"""The catalog in a document store: versions that are added and never change, what they are found by, and how they go.

A version is a number that counts up under its name, and carries the digest of what it names. The same content published
again under the same name is the same version. A version that was deleted leaves a document without a name, which nothing
finds but whoever asks for its number: so a number never stands for two things.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..documents import Documents, Stored
from ..errors import Conflict, InvalidRequest, NotFound, Unavailable
from . import aliases, usage
from .dependants import dependants_of
from .entries import Entries, Entry
from .kinds import FIELDS, NOUNS, Kind, now

__all__ = ["Catalog", "Overtaken"]

_LISTS = "`mlaas catalog` lists names, versions and aliases."

_CURSOR = re.compile(r"[0-9]{1,20}:[ -~]{1,200}")


class Overtaken(Exception):
    """Another version was published after the one that this was made from."""


@dataclass(frozen=True)
class Catalog:
    """The catalog in a document store."""

    documents: Documents

    def publish(
        self,
        kind: Kind,
        name: str,
        digest: str,
        entry: Mapping[str, Any],
        *,
        after: str | None = None,
        about: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Add a version and return its document; the existing one if this name has this digest already.

        With `after`, add it right after that version or raise Overtaken: what is made from a version must not hide a later one.
        `about` is what the entry says of itself (owner, visibility, tags, ...) where this version is the first of its name.
        """
        self.entries.ensure(kind, name, about or {})
        for _ in range(50):  # a number is taken only by another publisher of the same name
            existing = self.documents.find(kind, {"name": name}, limit=1000)
            for stored in existing:
                if stored.body["digest"] == digest and after is None:
                    return stored.body
            latest = max((int(stored.body["version"]) for stored in existing), default=0)
            if after is not None and latest != int(after):
                raise Overtaken
            number = self._free(kind, name, latest + 1)
            body = {**entry, "name": name, "version": str(number), "digest": digest, "created": now()}
            # The latest version is the one created last, also where the clock has been set back since the one before.
            if self.documents.insert(kind, f"{name}/{number}", body, after=max((stored.created for stored in existing), default=0)):
                self.entries.published(kind, body)
                usage.record(self.documents, kind, name, "published")
                return body
        raise Unavailable("others publish under this name")

    @property
    def entries(self) -> Entries:
        """What is said of each name."""
        return Entries(self.documents)

    def entry(self, kind: Kind, name: str) -> Entry:
        """What is said of the name `name`. Raises NotFound where it has no version."""
        latest = self.resolve(kind, name)
        self.entries.ensure(kind, name, {}, version=latest)
        found = self.entries.get(kind, name)
        assert found, "an entry is never removed"
        return found

    def versions(self, kind: Kind, name: str | None = None, *, limit: int = 1000) -> list[dict[str, Any]]:
        """Versions, newest first; of one name, or of all."""
        found = self.documents.find(kind, {"name": name} if name else {}, limit=limit)
        return [stored.body for stored in found if "name" in stored.body]

    def with_digest(self, kind: Kind, digest: str) -> dict[str, Any] | None:
        """The newest version of any name that has this digest, or that is one file with this sha256; None where there is none."""
        found = self.documents.find(kind, {"digest": digest}, limit=1) or self.documents.find(kind, {"sha256": digest}, limit=1)
        return found[0].body if found else None

    def page(self, kind: Kind, name: str, *, limit: int, before: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        """Versions of a name, newest first, and the cursor of the next page. Raises InvalidRequest for what is no cursor."""
        if before is not None and not _CURSOR.fullmatch(before):
            raise InvalidRequest("this is no cursor of this list", field="cursor", remedy="Take `next` of the page before.")
        found = self.documents.find(kind, {"name": name}, limit=limit + 1, before=before)
        return [stored.body for stored in found[:limit]], found[limit - 1].cursor if len(found) > limit else None

    def followers(self, model_name: str) -> list[dict[str, Any]]:
        """The latest version of each index that was built with the catalog's model of this name."""
        latest: dict[str, dict[str, Any]] = {}
        for stored in self.documents.find("indexes", {"model_name": model_name}, limit=1000):
            latest.setdefault(stored.body["name"], stored.body)
        return list(latest.values())

    def set_alias(self, kind: Kind, name: str, alias: str, version: str, **how: Any) -> dict[str, Any]:
        """Let `alias` of `name` point to `version`; its document. `how` is `by` and `if_revision`, as `aliases.move` has them.

        Raises NotFound, also where the version was deleted meanwhile.
        """
        body = self.resolve(kind, name, revision=version)
        before = self.aliases_of(kind, name).get(alias)
        aliases.move(self.documents, kind, name, alias, version, **how)
        try:
            return self.resolve(kind, name, revision=version)
        except NotFound:
            aliases.move(self.documents, kind, name, alias, before if before != body["version"] else None, by=how.get("by"))
            raise

    def roll_back(self, kind: Kind, name: str, alias: str, **how: Any) -> dict[str, Any]:
        """Let `alias` point to the version before, and so on back with each call. Raises NotFound, and Conflict where there is none."""
        there = {body["version"] for body in self.versions(kind, name)}
        version = aliases.previous(self.documents, kind, name, alias, there)
        return self.set_alias(kind, name, alias, version, rollback=True, **how)

    def aliases(self, kind: Kind) -> dict[str, dict[str, str]]:
        """Name to alias to version."""
        return aliases.all_of(self.documents, kind)

    def aliases_of(self, kind: Kind, name: str) -> dict[str, str]:
        """Alias to version, of one name."""
        return {stored.body["alias"]: stored.body["version"] for stored in aliases.of(self.documents, kind, name)}

    def resolve(self, kind: Kind, name: str, *, alias: str | None = None, revision: str | None = None) -> dict[str, Any]:
        """The document of a version: `revision`, what `alias` points to, or the latest. Raises NotFound."""
        if alias and not revision:
            revision = aliases.version_of(self.documents, kind, name, alias)
        if revision:
            stored = self.documents.get(kind, f"{name}/{revision}")
            found = [stored.body] if stored and "name" in stored.body else []
        else:
            found = self.versions(kind, name, limit=1)
        if not found:
            raise NotFound(
                f"the catalog has no {NOUNS[kind]} `{name}`" + (f" in version {revision}" if revision else ""),
                field=f"{FIELDS[kind]}.name",
                remedy=self._remedy(kind, name),
            )
        return found[0]

    def delete(self, kind: Kind, name: str, version: str, *, by: str | None = None) -> dict[str, Any]:
        """Delete a version and give what it was; its files stay. Raises NotFound, and Conflict that lists what depends on it."""
        body = self.resolve(kind, name, revision=version)
        self._refuse_while_needed(kind, body)
        for _ in range(50):
            stored = self._stored(kind, name, version)
            if self.documents.replace(kind, stored, {"deleted": {"at": now(), "by": by, "was": stored.body}}):
                break
        else:
            raise Unavailable("others change this version")
        try:  # an alias may have come between; who sets one looks again afterwards, so that one of both gives way
            self._refuse_while_needed(kind, body)
        except Conflict:
            gone = self.documents.get(kind, stored.key)
            assert gone, "a document is never removed"
            self.documents.replace(kind, gone, stored.body)
            raise
        self.entries.published(kind, next(iter(self.versions(kind, name, limit=1)), {"name": name}))
        return body

    def delete_all(self, kind: Kind, name: str, *, by: str | None = None) -> None:
        """Delete every version of a name, the newest first. Raises NotFound, and Conflict before anything is deleted."""
        self.resolve(kind, name)
        of_it = self.versions(kind, name)
        needing = [one for body in of_it for one in dependants_of(self.documents, kind, body)]
        others = [one for one in dict.fromkeys(needing) if one.kind != NOUNS[kind] or one.name != name]
        if others:
            raise Conflict(
                f"`{name}` is needed by {', '.join(map(str, others))}",
                remedy="Remove the aliases, and delete what was made from it first.",
                dependants=[one.document() for one in others],
            )
        for body in of_it:
            self.delete(kind, name, body["version"], by=by)

    def _refuse_while_needed(self, kind: Kind, body: Mapping[str, Any]) -> None:
        if found := dependants_of(self.documents, kind, body):
            raise Conflict(
                f"version {body['version']} of `{body['name']}` is needed by {', '.join(map(str, found))}",
                remedy="Move or remove the aliases, and delete what was made from it first.",
                dependants=[one.document() for one in found],
            )

    def _stored(self, kind: Kind, name: str, version: str) -> Stored:
        stored = self.documents.get(kind, f"{name}/{version}")
        if stored is None or "name" not in stored.body:
            raise NotFound(f"version {version} of `{name}` was deleted", field=f"{FIELDS[kind]}.name", remedy=_LISTS)
        return stored

    def _free(self, kind: Kind, name: str, number: int) -> int:
        """The first number from `number` on that no deleted version had."""
        while (taken := self.documents.get(kind, f"{name}/{number}")) and "deleted" in taken.body:
            number += 1
        return number

    def _remedy(self, kind: Kind, name: str) -> str:
        near = difflib.get_close_matches(name, {entry["name"] for entry in self.versions(kind)}, n=1)
        return f"Did you mean `{near[0]}`?" if near else _LISTS
