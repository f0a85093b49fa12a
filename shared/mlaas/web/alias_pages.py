"""Forms of an entry's page that move an alias and roll it back, by the operations of the REST interface."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

import flask

from ..catalog.contracts import AliasTarget
from ..catalog_api import operations
from ..catalog_api.operations import Asked
from ..catalog_api.routes import check_names
from ..contracts import SCHEMA, parse
from ..errors import InvalidRequest, NotFound
from .entry_pages import shown_entry
from .page import Page, Visit, kind_of

__all__ = ["PAGES"]


def move_alias(visit: Visit, kind: str, name: str) -> Any:
    """Let an alias, which may be a new one, point to a version."""
    alias, version = (flask.request.form.get(field, "").strip() for field in ("alias", "version"))
    asked = _asked(visit, kind, name, alias)
    try:
        check_names({"alias": alias})
        operations.put_alias(replace(asked, body=parse(AliasTarget, {"version": version})))
    except InvalidRequest as refused:
        if isinstance(refused, NotFound) or refused.remedy == SCHEMA:
            refused.detail, refused.remedy = "there is no such version", "Use the number of one of those on this page."
        return shown_entry(visit, asked.kind, asked.entry(), refused=refused, written={"alias": alias, "version": version})
    return _back(asked, "moved")


def roll_back_alias(visit: Visit, kind: str, name: str) -> Any:
    """Let an alias point to where it pointed before, if nobody has moved it since the page was made."""
    asked = _asked(visit, kind, name, flask.request.form.get("alias", ""))
    try:
        operations.roll_back_alias(asked)
    except InvalidRequest as refused:
        return shown_entry(visit, asked.kind, asked.entry(), refused=refused)
    return _back(asked, "back")


def _asked(visit: Visit, kind: str, name: str, alias: str) -> Asked:
    """What the REST interface would be asked. Raises NotFound, and Forbidden where the entry is somebody else's."""
    path = {"kind": kind_of(kind), "name": name, "alias": alias}
    revision = flask.request.form.get("revision") or None
    asked = Asked(catalog=visit.catalog, principal=visit.principal, settings=visit.settings, path=path, if_match=revision)
    visit.entry(asked.kind, name)
    asked.require_owner()
    return asked


def _back(asked: Asked, what: str) -> Any:
    """To the entry's page, which says what was done."""
    return flask.redirect(f"/web/{asked.kind}/{asked.name}?{urlencode({what: asked.path['alias']})}", 303)


PAGES = (Page("/<kind>/<name>/aliases", move_alias, ("POST",)), Page("/<kind>/<name>/aliases/rollback", roll_back_alias, ("POST",)))
