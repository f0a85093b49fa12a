"""What the function catalog serves: its REST interface, and the web app beside it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flask

from .. import catalog_api
from ..settings import Settings
from . import (
    alias_pages,
    catalog_pages,
    demo_pages,
    entry_pages,
    event_pages,
    formats,
    help_page,
    issuer_pages,
    login_pages,
    page,
    start_page,
    task_pages,
    try_pages,
    upload_pages,
    work_pages,
)

__all__ = ["Routes"]

FAMILIES = (
    start_page,
    demo_pages,
    help_page,
    login_pages,
    issuer_pages,
    task_pages,
    work_pages,
    upload_pages,
    event_pages,
    catalog_pages,
    entry_pages,
    alias_pages,
    try_pages,
)


@dataclass(frozen=True)
class Routes:
    """The REST interface with the pages beside it."""

    rest: catalog_api.Routes = field(default_factory=catalog_api.Routes)

    def limits(self, settings: Settings) -> dict[str, Any]:
        """What the server in front must let through, as the REST interface says."""
        return self.rest.limits(settings)

    def blueprint(self) -> flask.Blueprint:
        """For the server's application."""
        made = self.rest.blueprint()
        made.register_blueprint(_pages())
        return made


def _pages() -> flask.Blueprint:
    pages = flask.Blueprint("web", __name__, url_prefix="/web", template_folder="templates", static_folder="static")
    for family in FAMILIES:
        for one in family.PAGES:
            pages.add_url_rule(one.rule, one.view.__name__, page.answered(one), methods=list(one.methods))
    pages.add_url_rule("/<path:_>", "nothing", page.answered(page.Page("/<path:_>", page.nothing)))
    for name, show in formats.FILTERS.items():
        pages.add_app_template_filter(show, name)
    pages.after_request(page.guarded)
    return pages
