"""Who asks: the one place that looks at a request's credentials.

A request without a token reads what is public. The platform's token (MLAAS_TOKEN) is the administrator's and the services'. Where an
OpenID Connect issuer is configured (MLAAS_OIDC_ISSUER), its tokens say who somebody is, and by groups or roles what they may do.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field

from ..catalog.entries import Entry
from ..errors import Forbidden, Unauthenticated
from ..settings import Settings
from .roles import ORDER, Role

__all__ = ["ADMINISTRATOR", "ANONYMOUS", "GROUP", "Principal", "principal_of"]

GROUP = "group:"  # begins the owner of what belongs to a group
_REMEDY = "Send `Authorization: Bearer TOKEN` with the platform's token, which `mlaas up` says at its start."
_REMEDY_OIDC = "Send `Authorization: Bearer TOKEN` with an access token of the configured issuer for the configured audience."


@dataclass(frozen=True)
class Principal:
    """Who asks. `subject` stands in histories and as an owner; `until` is when the credentials end (Unix seconds)."""

    subject: str | None
    role: Role = "anonymous"
    groups: frozenset[str] = field(default=frozenset())
    until: float | None = None

    def has(self, role: Role) -> bool:
        """Whether this principal's own role is `role` or a higher one."""
        return ORDER.index(self.role) >= ORDER.index(role)

    def may_be(self, owner: str | None) -> bool:
        """Whether what belongs to `owner` is this principal's, by the subject or by a group."""
        if not owner or not self.subject:
            return False
        return owner.removeprefix(GROUP) in self.groups if owner.startswith(GROUP) else owner == self.subject

    @property
    def owners(self) -> tuple[str, ...] | None:
        """Whose tasks and events this principal sees, and whose quotas hold for it: its own and those of its groups.

        None for an administrator, who sees all and has no quota.
        """
        if self.has("admin"):
            return None
        return (self.subject, *sorted(f"{GROUP}{name}" for name in self.groups)) if self.subject else ()

    def owns(self, entry: Entry) -> bool:
        """Whether this principal may change an entry."""
        return self.has("admin") or (self.has("user") and self.may_be(entry.owner))

    def may_read(self, entry: Entry) -> bool:
        """Whether an entry exists for this principal."""
        if entry.visibility == "public" or self.has("admin"):
            return True
        return self.has("reader") and (entry.visibility == "institute" or self.may_be(entry.owner))

    def require(self, role: Role) -> None:
        """Raise Unauthenticated or Forbidden unless this principal may act as `role`; an owner is any user, until the entry is seen."""
        if self.has("user" if role == "owner" else role):
            return
        if self.role == "anonymous" and self.subject is None:
            raise Unauthenticated("this needs a token", remedy=_REMEDY)
        raise Forbidden(f"this needs the role {role}, and yours is {self.role}", remedy="Ask who runs the platform for it.")

    def require_owner(self, entry: Entry) -> None:
        """Raise Forbidden unless this principal may change the entry."""
        if not self.owns(entry):
            remedy = "Ask its owner, or publish under another name."
            raise Forbidden(f"`{entry.name}` belongs to somebody else", field="name", remedy=remedy)

    def require_giving(self, owner: str | None) -> None:
        """Raise Forbidden unless this principal may let something belong to `owner`: itself, or a group that it is in."""
        if not self.has("admin") and not self.may_be(owner):
            remedy = f"Use `{self.subject}`, or `{GROUP}NAME` of a group that you are in."
            raise Forbidden("only an administrator gives something to somebody else", field="owner", remedy=remedy)


ANONYMOUS = Principal(None)
ADMINISTRATOR = Principal("token", "admin")


def principal_of(authorization: str | None, settings: Settings) -> Principal:
    """Who sends this `Authorization`. Raises Unauthenticated for credentials that are not good, which is not the same as none.

    Raises Unavailable where the issuer has to be asked for its keys and is away.
    """
    if not authorization:
        return ANONYMOUS
    scheme, _, token = authorization.partition(" ")
    token, expected = token.strip(), settings.token or ""
    if scheme.lower() == "bearer":
        if expected and hmac.compare_digest(token.encode("utf-8", "replace"), expected.encode()):
            return ADMINISTRATOR
        if settings.oidc_issuer and token.count(".") == 2:
            from . import oidc  # and the libraries that check signatures, not in a cold start

            found = oidc.verified(token, settings)
            return Principal(found.subject, found.role, found.groups, found.until)
    detail = "the token is neither the platform's nor one of its issuer" if settings.oidc_issuer else "the token is not the platform's"
    raise Unauthenticated(detail, remedy=_REMEDY_OIDC if settings.oidc_issuer else _REMEDY)
