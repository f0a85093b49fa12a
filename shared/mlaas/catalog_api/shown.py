"""From the catalog's documents to what the REST interface gives."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from ..catalog import Kind, aliases
from ..catalog.contracts import AliasShown, EntryShown, Lineage, Variation, VersionShown, VersionSummary
from ..catalog.entries import Entry
from ..catalog.usage import Usage

__all__ = ["alias", "card_of", "entry", "href", "summary", "variations", "version"]


def href(*parts: str) -> str:
    """The path of something below /v1."""
    return "/".join(("/v1", *parts))


def entry(one: Entry, usage: Usage, pointing: Mapping[str, str]) -> EntryShown:
    """An entry with its aliases."""
    said = one.model_dump(mode="json", exclude={"revision", "card"})
    used = {"downloads": usage.downloads, "served": usage.served, "hotness": round(usage.hotness(time.time()), 3)}
    return EntryShown(**said, **used, aliases=dict(pointing), href=href(one.kind, one.name))


def summary(kind: Kind, body: Mapping[str, Any], pointing: Mapping[str, str]) -> VersionSummary:
    """A version in a list."""
    return VersionSummary(**_summary(kind, body, pointing))


def _summary(kind: Kind, body: Mapping[str, Any], pointing: Mapping[str, str]) -> dict[str, Any]:
    named = sorted(alias for alias, version in pointing.items() if version == body["version"])
    kept = {name: body[name] for name in ("version", "digest", "created")}
    return {**kept, "aliases": named, "href": href(kind, body["name"], "versions", body["version"])}


def version(kind: Kind, body: Mapping[str, Any], about: Entry, pointing: Mapping[str, str]) -> VersionShown:
    """A version with all that its document says."""
    figures = (body.get("card") or {}).get("figures") or {}
    licence = (figures.get("licence") or {}).get("id") or body.get("licence") or about.licence
    given = ("labels", "max_length", "count", "dimension", "index_types", "recall", "columns", "preview", "status")
    base = _summary(kind, body, pointing)
    return VersionShown(
        **base,
        **{name: body[name] for name in given if body.get(name) is not None},
        kind=kind,
        name=body["name"],
        task=body.get("objective"),
        licence=licence,
        metrics=figures.get("metrics") or _numbers(body.get("evaluation") or {}),
        variations=variations(figures, about.languages) if kind == "models" else [],
        lineage=_lineage(body, figures.get("lineage") or {}),
        has_card=card_of(body, about) is not None,
        path=body["path"],
        storage_type=body["storage_type"],
        files_href=f"{base['href']}/files",
    )


def card_of(body: Mapping[str, Any], about: Entry) -> str | None:
    """The Markdown of a version's card, that of its entry where it has none."""
    return (body.get("card") or {}).get("markdown") or about.card


def alias(body: Mapping[str, Any]) -> AliasShown:
    """An alias with its history."""
    return AliasShown.model_validate({"alias": body["alias"], "version": body["version"], "history": aliases.history(body)})


def variations(figures: Mapping[str, Any], languages: Sequence[str]) -> list[Variation]:
    """The variants of a version whose card has these figures; fp32 alone where they say nothing."""
    measured = [one for one in figures.get("variants") or [] if one.get("variant")]
    if not measured:
        return [Variation(precision="fp32", languages=list(languages), served=True)]
    return [
        Variation(
            precision=one["variant"],
            file=one.get("file"),
            size=one.get("bytes"),
            languages=list(languages),
            served=bool(one.get("served")),
            metrics=one.get("metrics") or {},
            texts_per_second=one.get("texts_per_second"),
            rows=one.get("texts"),
            **{name: one.get(name) for name in ("metric", "accuracy_loss", "note")},
        )
        for one in measured
    ]


def _lineage(body: Mapping[str, Any], known: Mapping[str, Any]) -> Lineage:
    request = known.get("request") or body.get("request") or None
    asked = (request or {}).get("dataset") or {}
    place = {name: asked.get(name) for name in ("path", "storage_type")}
    data = {"sha256": known.get("data_sha256"), **place, **(body.get("dataset") or {})}
    of_index = {"name": body.get("model_name"), "digest": body.get("model_digest")}
    parent = body.get("parent") or known.get("base") or {name: value for name, value in of_index.items() if value}
    return Lineage(
        task_id=body.get("task_id"),
        trace_id=known.get("trace_id"),
        dataset={name: value for name, value in data.items() if value} or None,
        parent=parent or None,
        request=request,
    )


def _numbers(evaluation: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in evaluation.items() if isinstance(value, int | float) and not isinstance(value, bool)}
