"""All operations of the REST interface."""

from __future__ import annotations

from . import audit_operations, operations, quota_operations, task_operations
from .operations import Operation

__all__ = ["OPERATIONS"]

OPERATIONS: tuple[Operation, ...] = (
    *operations.OPERATIONS,
    *task_operations.OPERATIONS,
    *audit_operations.OPERATIONS,
    *quota_operations.OPERATIONS,
)
