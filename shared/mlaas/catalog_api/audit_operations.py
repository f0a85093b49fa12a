"""The operation on the audit log, which an administrator reads and nobody changes."""

from __future__ import annotations

import dataclasses

from ..catalog import audit, contracts
from ..documents import shared
from .operations import Answer, Asked, Operation
from .task_operations import cursor, span

__all__ = ["OPERATIONS"]


def list_changes(asked: Asked) -> Answer:
    query: contracts.ChangesQuery = asked.query
    found, following = audit.find(
        shared(asked.settings),
        subject=query.subject,
        operation=query.operation,
        kind=query.kind,
        name=query.name,
        time=span(query.since, query.until),
        limit=query.limit,
        before=cursor(query.cursor),
    )
    return contracts.ChangePage(items=[contracts.ChangeShown(**dataclasses.asdict(one)) for one in found], next=following)


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        id="listChanges",
        method="GET",
        path="/v1/audit",
        handler=list_changes,
        summary="Who asked for which change, and what became of it; newest first.",
        query=contracts.ChangesQuery,
        answer=contracts.ChangePage,
    ),
)
