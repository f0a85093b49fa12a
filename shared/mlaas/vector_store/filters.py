"""Filters on metadata: from a request's `filter` to the rows of a segment that it lets through."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..contracts import Condition, FilterValue

__all__ = ["Filter", "Test", "mask", "of"]


@dataclass(frozen=True)
class Test:
    """One test of a field: the part of an SQL condition on its `value`, the condition's values, and whether it must hold or must not."""

    field: str
    condition: str
    values: tuple[FilterValue, ...]
    holds: bool = True


Filter = tuple[Test, ...]

_BOUNDS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}


def of(conditions: Mapping[str, FilterValue | list[FilterValue] | Condition] | None) -> Filter | None:
    """The filter that a request asks for; None where it asks for none. Equal requests give equal filters."""
    if not conditions:
        return None
    return tuple(test for field in sorted(conditions) for test in _tests(field, conditions[field]))


def mask(connection: sqlite3.Connection, condition: Filter, count: int) -> NDArray[np.bool_]:
    """Which of `count` rows pass every test."""
    passed = np.ones(count, dtype=np.bool_)
    for test in condition:
        # The condition is one of those below; what a request says stays a parameter.
        sql = f"SELECT row FROM fields WHERE field = ? AND {test.condition}"  # noqa: S608
        found = connection.execute(sql, (test.field, *test.values))
        rows = np.fromiter((row for (row,) in found), dtype=np.int64)
        holding = np.zeros(count, dtype=np.bool_)
        holding[rows[(rows >= 0) & (rows < count)]] = True
        passed &= holding if test.holds else ~holding
    return passed


def _tests(field: str, asked: FilterValue | list[FilterValue] | Condition) -> list[Test]:
    if not isinstance(asked, Condition):
        return [_any_of(field, asked if isinstance(asked, list) else [asked])]
    tests = []
    if asked.any_of is not None:
        tests.append(_any_of(field, asked.any_of))
    if asked.none_of is not None:
        tests.append(_any_of(field, asked.none_of, holds=False))
    bounds = {name: value for name in _BOUNDS if (value := getattr(asked, name)) is not None}
    if bounds:
        kind = "'text'" if isinstance(next(iter(bounds.values())), str) else "'integer', 'real'"  # all are of one kind
        parts = [f"value {_BOUNDS[name]} ?" for name in bounds]
        tests.append(Test(field, " AND ".join([*parts, f"typeof(value) IN ({kind})"]), tuple(bounds.values())))
    if asked.exists is not None:
        tests.append(Test(field, "TRUE", (), asked.exists))
    return tests


def _any_of(field: str, values: Sequence[FilterValue], holds: bool = True) -> Test:
    return Test(field, f"value IN ({','.join('?' * len(values))})", tuple(values), holds)
