"""`mlaas quotas`: who may use how much, and has."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .. import display
from ..contracts import parse
from ..settings import current
from .options import Json, says_why

__all__ = ["quotas_app"]

SUBJECT = "command line"  # by which the audit log knows what is set here
quotas_app = typer.Typer(help="Quotas of requests, storage and training time.", no_args_is_help=True)

Limit = Annotated[int | None, typer.Option(min=0, help="0 is no limit; as the settings say if it is not given.")]


@quotas_app.command("show", epilog="Example: mlaas quotas show group:physics")
@says_why
def quotas_show(
    owner: Annotated[str | None, typer.Argument(help="A subject, or group:NAME; everybody by default.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100)] = 20,
    cursor: Annotated[str | None, typer.Option(help="`next` of the page before.")] = None,
    as_json: Json = False,
) -> None:
    """Show what owners may use, and have used."""
    from ..catalog import contracts
    from ..catalog_api import quota_operations

    query = parse(contracts.QuotasQuery, {"owner": owner, "limit": limit, "cursor": cursor})
    display.quotas(quota_operations.page(_kept(), query).model_dump(), as_json)


@quotas_app.command("set", epilog="Example: mlaas quotas set group:physics --requests-per-day 50000 --storage-bytes 100000000000")
@says_why
def quotas_set(
    owner: Annotated[str, typer.Argument(help="A subject, or group:NAME.")],
    requests_per_day: Limit = None,
    storage_bytes: Limit = None,
    training_seconds: Limit = None,
    as_json: Json = False,
) -> None:
    """Set the limits of an owner, all of them: what is not given is as the settings say."""
    from ..catalog import audit, contracts
    from ..catalog_api import quota_operations

    given = {"requests_per_day": requests_per_day, "storage_bytes": storage_bytes, "training_seconds": training_seconds}
    kept = _kept()
    with audit.recorded(kept.documents, SUBJECT, "setQuotas", {"owner": owner}):
        shown = quota_operations.set_(kept, owner, parse(contracts.QuotaChange, given))
    display.quotas({"items": [shown.model_dump()], "next": None}, as_json)


def _kept() -> Any:
    from ..catalog_api.quotas import Quotas
    from ..documents import shared

    return Quotas(shared(), current())
