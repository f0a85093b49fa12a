"""Logging in at the platform's issuer: there, and back with who somebody is.

What a login remembers is in a signed cookie of its own, which a browser sends when it comes back from the issuer's site (SameSite=Lax)
and to these pages alone. It is removed by whatever comes back, so that a code is tried once.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import flask
from itsdangerous import BadData

from ..catalog_api.access import Principal
from ..errors import MlaasError, NotFound, Unauthenticated, Unavailable
from ..runtime import problem
from ..settings import Settings
from . import session
from .page import Page, Visit

if TYPE_CHECKING:
    from ..catalog_api.oidc_login import Login

__all__ = ["PAGES", "redirect_uri"]

CALLBACK = "/web/login/callback"
COOKIE, PATH = "mlaas_login", "/web/login"
SECONDS = 600  # that somebody may take to log in at the issuer


def to_issuer(visit: Visit) -> Any:
    """Begin a login, and go to the issuer."""
    from ..catalog_api import oidc_login  # and what checks signatures, not in a cold start

    settings = _settings(visit)
    login = oidc_login.begun(redirect_uri(settings), session.way_back(flask.request.args.get("next")))
    try:
        response = flask.redirect(oidc_login.address(login, settings), 303)
        value = session.signer(settings, "login").dumps(asdict(login))
    except (MlaasError, BadData) as error:
        return _refused(visit, error, login.back)
    response.set_cookie(COOKIE, str(value), max_age=SECONDS, httponly=True, samesite="Lax", secure=session.is_secure(), path=PATH)
    response.headers["Cache-Control"] = "no-store"
    return response


def from_issuer(visit: Visit) -> Any:
    """Come back from the issuer, and begin a session, as long as the issuer's token at most."""
    from ..catalog_api import oidc_login

    settings, asked, login = _settings(visit), flask.request.args, _kept(visit.settings)
    back = session.way_back(login.back if login else None)
    try:
        claimed = oidc_login.finished(login, asked.get("state", ""), asked.get("code", "") if "error" not in asked else "", settings)
        response: Any = flask.redirect(back, 303)
        session.open_(settings, Principal(claimed.subject, claimed.role, claimed.groups, claimed.until), response, at_issuer=True)
        response.headers["Cache-Control"] = "no-store"
    except MlaasError as error:
        response = _refused(visit, error, back)
    response.delete_cookie(COOKIE, path=PATH, httponly=True, samesite="Lax", secure=session.is_secure())
    return response


def redirect_uri(settings: Settings) -> str:
    """Where the issuer sends a browser back to: as it is set, or at the host that the browser asked."""
    host = flask.request.headers.get("X-Forwarded-Host") or flask.request.host
    return settings.oidc_redirect_uri or f"{'https' if session.is_secure() else 'http'}://{host}{CALLBACK}"


def _settings(visit: Visit) -> Settings:
    if not visit.settings.oidc_client_id:
        raise NotFound("there is no such page", remedy="Log in with a token.")
    return visit.settings


def _kept(settings: Settings) -> Login | None:
    """The login that this browser began."""
    from ..catalog_api.oidc_login import Login

    try:
        return Login(**session.signer(settings, "login").loads(flask.request.cookies.get(COOKIE, ""), max_age=SECONDS))
    except (BadData, TypeError):
        return None


def _refused(visit: Visit, error: Exception, back: str) -> flask.Response:
    """The form to log in, with why this did not."""
    refused = error if isinstance(error, MlaasError) else Unauthenticated("the platform has no token")
    shown = visit.show("login.html", status=problem(refused)["status"], back=back, wrong=None, refused=refused)
    if isinstance(refused, Unavailable):
        shown.headers["Retry-After"] = str(refused.retry_after)
    return shown


PAGES = (Page("/login/issuer", to_issuer), Page("/login/callback", from_issuer))
