"""Who is logged in: a signed cookie that only this host's pages send, an invitation that opens one once, and what a form proves itself by.

The key is the platform's token, so that another token ends every session. No page and no address holds the token itself.
"""

from __future__ import annotations

import hmac
import json
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import flask
from itsdangerous import BadData, URLSafeTimedSerializer

from ..catalog_api.access import ADMINISTRATOR, Principal
from ..documents import Documents
from ..errors import InvalidRequest, Unauthenticated
from ..settings import Settings

__all__ = ["Session", "accept", "check_form", "close", "current", "invitation", "is_secure", "open_", "signer", "way_back"]

COOKIE = "mlaas_session"
SECONDS = 12 * 3600
INVITATION_SECONDS = 24 * 3600
_GROUPS_BYTES = 2000
_USED = "invitations"  # the collection of those that were used


@dataclass(frozen=True)
class Session:
    """A session: its id, whose it is, the text by which this session's forms are known, and whether it began at the issuer."""

    id: str
    principal: Principal
    csrf: str
    at_issuer: bool = False


def current(settings: Settings) -> Session | None:
    """The session of this request; None where there is none, or one that is over."""
    try:
        kept = signer(settings, "session").loads(flask.request.cookies.get(COOKIE, ""), max_age=SECONDS)
        until = kept["until"]
        if until is not None and until < time.time():
            return None
        principal = Principal(str(kept["subject"]), kept["role"], frozenset(kept["groups"]), until)
        return _session(settings, str(kept["id"]), principal, kept.get("at_issuer") is True)
    except (BadData, KeyError, TypeError):
        return None


def open_(settings: Settings, principal: Principal, response: flask.Response, *, at_issuer: bool = False) -> None:
    """Let `response` begin a session of `principal`, as long as its credentials at most. Raises Unauthenticated where none can be.

    After a redirect from the issuer's site a browser would not send a cookie that is for this site's own pages alone.
    """
    if not settings.token:
        raise Unauthenticated("nobody can log in: the platform has no token", remedy="Start the catalog with MLAAS_TOKEN.")
    who = {"subject": principal.subject, "role": principal.role, "groups": _groups(principal), "until": principal.until}
    value = signer(settings, "session").dumps({"id": secrets.token_urlsafe(12), **who, "at_issuer": at_issuer})
    sent_from = "Lax" if at_issuer else "Strict"
    response.set_cookie(COOKIE, str(value), max_age=SECONDS, httponly=True, samesite=sent_from, secure=is_secure(), path="/web")


def close(response: flask.Response) -> None:
    """Let `response` end the session."""
    response.delete_cookie(COOKIE, path="/web", httponly=True, samesite="Strict", secure=is_secure())


def check_form(session: Session | None) -> None:
    """Raise InvalidRequest for a form that another site sends, or that is none of this session."""
    if flask.request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none"):
        raise InvalidRequest("this form comes from another site", remedy="Open the page here and send its form.")
    if session and not hmac.compare_digest(flask.request.form.get("csrf", "").encode("utf-8", "replace"), session.csrf.encode()):
        raise InvalidRequest("this form is not from this session", remedy="Load the page again and send its form.")


def invitation(settings: Settings) -> str:
    """A path that logs in who opens it first, within a day. It says nothing of the token."""
    return f"/web/enter?code={signer(settings, 'invitation').dumps(secrets.token_urlsafe(12))!s}"


def accept(settings: Settings, documents: Documents, code: str) -> Principal:
    """Who opens an invitation. Raises Unauthenticated for one that was used, is too old, or was never made."""
    remedy = "Log in with the token, which `mlaas up` says at its start."
    try:
        nonce = str(signer(settings, "invitation").loads(code, max_age=INVITATION_SECONDS))
    except BadData:
        raise Unauthenticated("this link does not log in any more", remedy=remedy) from None
    if not documents.insert(_USED, nonce, {}):
        raise Unauthenticated("this link has been used", remedy=remedy)
    return ADMINISTRATOR


def way_back(text: str | None) -> str:
    """Where to go after a login: a page of this app, whatever `text` says."""
    found = urlsplit(text or "")
    mine = not found.scheme and not found.netloc and found.path.startswith("/web/") and "\\" not in (text or "") and "//" not in found.path
    return found.path + (f"?{found.query}" if found.query else "") if mine else "/web/"


def _groups(principal: Principal) -> list[str]:
    """Those groups that a cookie, of which browsers keep 4 KiB, has room for."""
    kept: list[str] = []
    for one in sorted(principal.groups):
        if len(json.dumps([*kept, one])) > _GROUPS_BYTES:
            break
        kept.append(one)
    return kept


def _session(settings: Settings, id: str, principal: Principal, at_issuer: bool) -> Session:
    csrf = hmac.new((settings.token or "").encode(), f"csrf/{id}".encode(), "sha256").hexdigest()
    return Session(id, principal, csrf, at_issuer)


def signer(settings: Settings, purpose: str) -> URLSafeTimedSerializer:
    """What signs and reads what a browser keeps for one purpose. Raises BadData where the platform has no token."""
    if not settings.token:
        raise BadData("there is no token, and so nobody can log in")
    return URLSafeTimedSerializer(
        settings.token, salt=f"mlaas.web.{purpose}", signer_kwargs={"digest_method": "sha256", "key_derivation": "hmac"}
    )


def is_secure() -> bool:
    """Whether the browser asks by https."""
    return flask.request.is_secure or flask.request.headers.get("X-Forwarded-Proto") == "https"
