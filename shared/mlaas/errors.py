"""The few exceptions that everything else raises.

Each says what was wrong, where, and what to do about it. `mlaas.runtime` turns them into answers in one table;
no other module knows about HTTP statuses or failure events.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

__all__ = [
    "Conflict",
    "Forbidden",
    "InvalidRequest",
    "Malformed",
    "MlaasError",
    "NotFound",
    "OutOfRange",
    "Outdated",
    "Overloaded",
    "QuotaExceeded",
    "StoreAway",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "within",
]


class MlaasError(Exception):
    """Something the caller can be told about: a fixed, safe text that names no path outside the request and no secret."""

    def __init__(self, detail: str, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.field = field
        self.remedy = remedy


class InvalidRequest(MlaasError):
    """The request can never be served as it is; sending it again will not help."""


class Malformed(InvalidRequest):
    """The request cannot even be read: not JSON, or a CloudEvent without a required attribute."""


class NotFound(InvalidRequest):
    """The request names a model, an index, a data set or a task that does not exist."""


class TooLarge(InvalidRequest):
    """The request is larger than the platform takes; send a reference to the data instead."""


class Conflict(InvalidRequest):
    """The request cannot be done as things are. `dependants` are those that are in its way."""

    def __init__(
        self, detail: str, *, field: str | None = None, remedy: str | None = None, dependants: Sequence[Mapping[str, str]] = ()
    ) -> None:
        super().__init__(detail, field=field, remedy=remedy)
        self.dependants = list(dependants)


class Unauthenticated(InvalidRequest):
    """The request needs credentials, and has none or none that are good."""


class Forbidden(InvalidRequest):
    """The request's credentials are good, and do not suffice."""


class Outdated(InvalidRequest):
    """What is to be changed is not any more what the caller has read."""


class OutOfRange(InvalidRequest):
    """The request names a part of a file that it does not have."""


class Unavailable(MlaasError):
    """Not now: storage, a database or a broker is away, or something is still loading. Try again.

    `retry_after` is in seconds.
    """

    def __init__(self, detail: str, *, retry_after: int = 5, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(detail, field=field, remedy=remedy)
        self.retry_after = retry_after


class StoreAway(Unavailable):
    """Not now: the document store is away, so nothing can be recorded either."""


class Overloaded(Unavailable):
    """Not now: more work than this process may hold at once."""


class QuotaExceeded(Overloaded):
    """Not now: whoever asks, or one of their groups, has used what they may."""


@contextmanager
def within(part: str) -> Iterator[None]:
    """What is raised inside speaks of the field `path`; let it speak of the request's `part.path`."""
    try:
        yield
    except MlaasError as error:
        error.field = f"{part}.{error.field}" if error.field and not error.field.startswith(part) else error.field
        raise
