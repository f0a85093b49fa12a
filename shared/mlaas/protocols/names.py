"""Names of the catalog as protocols write them, and fields of the platform's requests by the names that a protocol has for them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from ..catalog import Catalog, Kind
from ..documents import shared
from ..errors import MlaasError, NotFound
from ..settings import current

__all__ = ["ALIAS", "catalog", "field_names", "located"]

ALIAS = "production"  # answers whoever names no version, where a model has it; else its latest version
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


def catalog() -> Catalog:
    """This process' catalog."""
    return Catalog(shared(current()))


def located(catalog: Catalog, kind: Kind, name: str, which: str | None) -> dict[str, Any]:
    """The catalog's document of a version: `which` is its number, or an alias. Raises NotFound."""
    if not _NAME.fullmatch(name) or (which is not None and not _NAME.fullmatch(which)):
        raise NotFound(
            "the catalog has nothing of this name", field="model", remedy="Names are lowercase letters, digits, `.`, `_` and `-`."
        )
    with field_names({"model.name": "model", "model.alias": "model", "dataset.name": "model", "dataset.alias": "model"}):
        if which is None:
            with suppress(NotFound):
                return catalog.resolve(kind, name, alias=ALIAS)
            return catalog.resolve(kind, name)
        return catalog.resolve(kind, name, **({"revision": which} if which.isdigit() else {"alias": which}))


@contextmanager
def field_names(names: Mapping[str, str]) -> Iterator[None]:
    """What is raised inside speaks of the platform's fields; let it speak of `names` for them."""
    try:
        yield
    except MlaasError as error:
        for ours, theirs in names.items():
            if error.field is not None and (error.field == ours or error.field.startswith(f"{ours}.")):
                field = theirs + error.field.removeprefix(ours)
                error.detail, error.field = error.detail.replace(f"`{error.field}`", f"`{field}`"), field
                break
        raise
