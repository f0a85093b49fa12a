"""Logging in with the platform's token or one of its issuer, or by the link that `mlaas up` prints; and out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import flask

from ..catalog_api.access import ANONYMOUS, principal_of
from ..errors import Unauthenticated
from . import session
from .issuer_pages import redirect_uri
from .page import Page, Visit

__all__ = ["PAGES"]


def login(visit: Visit) -> Any:
    """The form, and what it sends."""
    back = session.way_back(flask.request.values.get("next"))
    if flask.request.method == "GET":
        return visit.show("login.html", back=back, wrong=None)
    token = flask.request.form.get("token", "").strip()
    try:
        principal = principal_of(f"Bearer {token}", visit.settings)
        response = flask.redirect(back, 303)
        session.open_(visit.settings, principal, response)  # type: ignore[arg-type]
        return response
    except Unauthenticated as error:
        wrong = f"{error.detail[0].upper()}{error.detail[1:]}." if visit.settings.oidc_issuer else "This is not the platform's token."
        return visit.show("login.html", status=401, back=back, wrong=wrong if token else "Give the token.")


def enter(visit: Visit) -> Any:
    """A page that goes on by itself: after a redirect from elsewhere a browser would not send the new cookie."""
    principal = session.accept(visit.settings, visit.documents, flask.request.args.get("code", ""))
    response = visit.show("entered.html")
    session.open_(visit.settings, principal, response)
    return response


def logout(visit: Visit) -> Any:
    """End the session, and go on to where the issuer ends its own.

    By a page: the policy of the page with the form lets no form lead to another site, and a redirect of one is no exception.
    """
    response: Any = flask.redirect("/web/", 303)
    if visit.session and visit.session.at_issuer and visit.settings.oidc_client_id:
        from ..catalog_api import oidc_login

        if where := oidc_login.leaving(redirect_uri(visit.settings), visit.settings):
            response = replace(visit, principal=ANONYMOUS, session=None).show("left.html", where=where)
    session.close(response)
    return response


PAGES = (Page("/login", login, ("GET", "POST")), Page("/enter", enter), Page("/logout", logout, ("POST",)))
