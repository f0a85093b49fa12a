"""The operations on quotas: everybody reads their own, administrators all, and set them."""

from __future__ import annotations

from collections.abc import Sequence

from ..catalog import contracts
from ..documents import shared
from ..errors import Forbidden, InvalidRequest
from . import request_counts
from .access import GROUP
from .operations import Answer, Asked, Operation
from .quotas import Quotas

__all__ = ["OPERATIONS", "page", "set_"]


def list_quotas(asked: Asked) -> Answer:
    """Of an administrator, who has none, those of all."""
    kept, query = _quotas(asked), asked.query
    mine = asked.principal.owners
    request_counts.give_back(mine)
    if mine is not None and query.owner and query.owner not in mine:
        raise Forbidden("this is somebody else's quota", field="owner", remedy="Leave it out, or ask an administrator.")
    return page(kept, query, mine)


def set_quotas(asked: Asked) -> Answer:
    shown = set_(_quotas(asked), asked.path["owner"], asked.body)
    request_counts.give_back([asked.path["owner"]])  # so that a lower limit holds at once
    return shown


def page(kept: Quotas, query: contracts.QuotasQuery, owners: Sequence[str] | None = None) -> contracts.QuotaPage:
    """The quotas that `query` asks for, of those of `owners`, or of all."""
    found = [query.owner] if query.owner else sorted(owners) if owners is not None else kept.owners()
    rest = [owner for owner in found if owner > (query.cursor or "")]
    following = rest[query.limit - 1] if len(rest) > query.limit else None
    return contracts.QuotaPage(items=[kept.shown(owner) for owner in rest[: query.limit]], next=following)


def set_(kept: Quotas, owner: str, limits: contracts.QuotaChange) -> contracts.QuotaShown:
    """Set the limits of an owner. Raises InvalidRequest for what cannot be one."""
    if len(owner) > 100 or not owner.removeprefix(GROUP).strip():
        raise InvalidRequest("this cannot be an owner", field="owner", remedy=f"Give a subject, or {GROUP}NAME, of at most 100 characters.")
    kept.set(owner, limits.model_dump())
    return kept.shown(owner)


def _quotas(asked: Asked) -> Quotas:
    return Quotas(shared(asked.settings), asked.settings)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="listQuotas",
        method="GET",
        path="/v1/quotas",
        handler=list_quotas,
        summary="What may be used, and has been; needs no request of the quota.",
        query=contracts.QuotasQuery,
        answer=contracts.QuotaPage,
        counts=False,
    ),
    Operation(
        id="setQuotas",
        method="PUT",
        path="/v1/quotas/{owner}",
        handler=set_quotas,
        summary="Set the limits of a subject, or of `group:NAME`.",
        body=contracts.QuotaChange,
        answer=contracts.QuotaShown,
        changes=True,
    ),
)
