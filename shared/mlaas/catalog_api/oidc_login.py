"""Logging in at the issuer: OpenID Connect's authorization code flow with PKCE (RFC 7636, S256), state and nonce.

What a login has to remember between its two halves is a `Login`; whoever begins one keeps it where only the same browser gives it back.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import secrets
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import requests

from ..errors import Unauthenticated, Unavailable
from ..settings import Settings
from . import oidc
from .oidc import Claimed

__all__ = ["Login", "address", "begun", "finished", "leaving"]

_AGAIN = "Log in again."
_BASIC = "client_secret_basic"

log = logging.getLogger("mlaas")


@dataclass(frozen=True, kw_only=True)
class Login:
    """What one login has to remember, all of it unguessable but where it was to lead."""

    state: str
    nonce: str
    verifier: str
    redirect_uri: str
    back: str


def begun(redirect_uri: str, back: str) -> Login:
    """A login that has just begun."""
    state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
    return Login(state=state, nonce=nonce, verifier=verifier, redirect_uri=redirect_uri, back=back)


def address(login: Login, settings: Settings) -> str:
    """Where the issuer asks who somebody is. Raises Unavailable."""
    challenge = base64.urlsafe_b64encode(hashlib.sha256(login.verifier.encode()).digest()).rstrip(b"=").decode()
    asked = {
        "response_type": "code",
        "client_id": settings.oidc_client_id,
        "redirect_uri": login.redirect_uri,
        "scope": settings.oidc_scope,
        "state": login.state,
        "nonce": login.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return _with(_endpoint("authorization_endpoint", settings), asked)


def finished(login: Login | None, state: str, code: str, settings: Settings) -> Claimed:
    """Who somebody is that comes back with `state` and `code`. Raises Unauthenticated, and Unavailable where the issuer is away."""
    if login is None or not hmac.compare_digest(state.encode("utf-8", "replace"), login.state.encode()):
        raise Unauthenticated("this login was not begun in this browser, or too long ago", remedy=_AGAIN)
    if not code:
        raise Unauthenticated("the issuer did not log you in", remedy=f"{_AGAIN} If it refuses you, ask who runs it.")
    token = _exchanged(login, code, settings).get("id_token")
    if not isinstance(token, str):
        raise Unauthenticated("the issuer gave no id token", remedy="MLAAS_OIDC_SCOPE has to have `openid`.")
    return oidc.logged_in(token, login.nonce, settings)


def leaving(redirect_uri: str, settings: Settings) -> str | None:
    """Where the issuer ends its own session, and from there back to the web app; None where it has no such place or is away."""
    try:
        endpoint = _endpoint("end_session_endpoint", settings)
    except Unavailable:
        return None
    back = urlsplit(redirect_uri)._replace(path="/web/").geturl()
    return _with(endpoint, {"client_id": settings.oidc_client_id, "post_logout_redirect_uri": back})


def _exchanged(login: Login, code: str, settings: Settings) -> dict[str, Any]:
    """What the issuer gives for a code."""
    client, secret = settings.oidc_client_id or "", settings.oidc_client_secret
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": login.redirect_uri, "code_verifier": login.verifier}
    where, ways = _endpoint("token_endpoint", settings), oidc.said(settings).get("token_endpoint_auth_methods_supported")
    basic = (quote(client, safe=""), quote(secret, safe="")) if secret and _BASIC in (ways or [_BASIC]) else None
    if not basic:
        form |= {"client_id": client, **({"client_secret": secret} if secret else {})}
    try:
        answer = requests.post(
            where, data=form, auth=basic or _nobody, timeout=oidc.TIMEOUT, allow_redirects=False, headers={"Accept": "application/json"}
        )
        said = answer.json()
        if answer.status_code == 200 and isinstance(said, dict):
            return said
        refusal = said.get("error") if 400 <= answer.status_code < 500 and isinstance(said, dict) else None
    except (requests.RequestException, ValueError, RecursionError):
        refusal = None
    if refusal == "invalid_grant":
        raise Unauthenticated("the issuer does not take this login's code: it was used, or is too old", remedy=_AGAIN)
    if refusal is None:
        raise oidc.away()
    log.warning("oidc.client_refused", extra={"fields": {"client": client}})
    remedy = "Tell who runs the platform to look at MLAAS_OIDC_CLIENT_ID, MLAAS_OIDC_CLIENT_SECRET and how the client is registered."
    raise Unavailable("the issuer does not take this platform as its client", remedy=remedy)


def _nobody(request: Any) -> Any:
    """No credentials, which requests otherwise takes from a .netrc file."""
    return request


def _endpoint(name: str, settings: Settings) -> str:
    """An address of the discovery document. Raises Unavailable."""
    found = oidc.said(settings).get(name)
    if not isinstance(found, str) or not oidc.is_fit(found, settings):
        raise Unavailable(f"the issuer has no `{name}` in its discovery document", remedy="Log in with a token.")
    return found


def _with(url: str, query: dict[str, Any]) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"
