"""Who may read and change what: the one place that looks at a request's credentials.

A request without a token reads what is public. One with the platform's token (MLAAS_TOKEN) reads everything and changes it.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass

from ..catalog.entries import Entry
from ..errors import Unauthenticated
from ..settings import Settings

__all__ = ["ANONYMOUS", "Principal", "principal_of"]

_REMEDY = "Send `Authorization: Bearer TOKEN` with the platform's token, which `mlaas up` says at its start."


@dataclass(frozen=True)
class Principal:
    """Who asks. `name` stands in histories."""

    name: str | None
    trusted: bool

    def may_read(self, entry: Entry) -> bool:
        """Whether an entry exists for this principal."""
        return self.trusted or entry.visibility == "public"

    def require_change(self) -> None:
        """Raise Unauthenticated unless this principal may change the catalog."""
        if not self.trusted:
            raise Unauthenticated("only who has a token changes the catalog", remedy=_REMEDY)


ANONYMOUS = Principal(None, trusted=False)


def principal_of(authorization: str | None, settings: Settings) -> Principal:
    """Who sends this `Authorization`. Raises Unauthenticated for credentials that are not good, which is not the same as none."""
    if not authorization:
        return ANONYMOUS
    scheme, _, token = authorization.partition(" ")
    expected = settings.token or ""
    good = hmac.compare_digest(token.strip().encode("utf-8", "replace"), expected.encode())
    if scheme.lower() != "bearer" or not expected or not good:
        raise Unauthenticated("the token is not the platform's", remedy=_REMEDY)
    return Principal("token", trusted=True)
