"""Tokens of an OpenID Connect issuer: checked with the keys that it publishes, and what their claims make of who sends them.

The issuer is configured, and its keys are where its own discovery document says; nothing in a token says where to look. Keys are kept
for five minutes. A token that names a key which is not among them lets them be read anew, at most every COOLDOWN seconds.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

import jwt
import requests
from jwt import PyJWK, PyJWKClient
from jwt.exceptions import PyJWKClientConnectionError, PyJWKClientError

from ..errors import Unauthenticated, Unavailable
from ..settings import Settings
from .roles import ORDER, Role

__all__ = ["TIMEOUT", "Claimed", "away", "is_fit", "logged_in", "said", "verified"]

# A signature that its reader could make as well, or none, proves nothing: no HS256, no `none`.
ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
TIMEOUT = 5.0
KEPT_SECONDS = 300.0
COOLDOWN = 10.0
RETRY_SECONDS = 5  # an issuer that was away is asked again no sooner
LEEWAY = 30  # seconds that clocks may differ
LONGEST_TOKEN = 16 * 1024
LONGEST_SUBJECT = 100
EVERYBODY = "*"
# What an issuer that is away, or is none, makes of asking it.
_ILL = (requests.RequestException, jwt.PyJWTError, OSError, ValueError, TypeError, KeyError, AttributeError)
_REMEDY = "Get a new access token of the configured issuer for the configured audience."


@dataclass(frozen=True)
class Claimed:
    """What a good token says: `until` is when it ends, in Unix seconds."""

    subject: str
    role: Role
    groups: frozenset[str]
    until: float


def verified(token: str, settings: Settings) -> Claimed:
    """What `token` says. Raises Unauthenticated for one that is not good, Unavailable where the issuer's keys cannot be had."""
    return _claimed(_checked(token, settings.oidc_audience, settings), settings)


def logged_in(id_token: str, nonce: str, settings: Settings) -> Claimed:
    """What an id token says that is the answer to a login with this `nonce`. Raises as `verified`."""
    claims = _checked(id_token, settings.oidc_client_id, settings)
    if not hmac.compare_digest(str(claims.get("nonce", "")).encode("utf-8", "replace"), nonce.encode()):
        raise Unauthenticated("the id token is not the answer to this login", remedy="Log in again.")
    if claims.get("azp", settings.oidc_client_id) != settings.oidc_client_id:
        raise Unauthenticated("the id token is for another client", remedy="Log in again.")
    return _claimed(claims, settings)


def said(settings: Settings) -> Mapping[str, Any]:
    """The issuer's discovery document. Raises Unavailable."""
    assert settings.oidc_issuer
    return _issuer(settings.oidc_issuer).said()


def is_fit(url: str, settings: Settings) -> bool:
    """Whether an address of the issuer's is as safe as its own."""
    try:
        found = urlsplit(url)
    except ValueError:
        return False
    return found.scheme in ("https", urlsplit(settings.oidc_issuer or "").scheme) and bool(found.hostname)


def _checked(token: str, audience: str | None, settings: Settings) -> dict[str, Any]:
    """The claims of a token that the issuer signed for `audience`."""
    assert settings.oidc_issuer
    assert audience
    try:
        header = jwt.get_unverified_header(token) if len(token) <= LONGEST_TOKEN else {}
        if header.get("alg") not in ALGORITHMS or not header.get("kid"):
            raise jwt.InvalidTokenError
        claims: dict[str, Any] = jwt.decode(
            token,
            _issuer(settings.oidc_issuer).key(str(header["kid"])),
            algorithms=ALGORITHMS,
            audience=audience,
            issuer=settings.oidc_issuer,
            leeway=LEEWAY,
            options={"require": ["exp", "iss", "aud"]},
        )
        return {**claims, "exp": float(claims["exp"])}
    except jwt.ExpiredSignatureError:
        raise Unauthenticated("the token has expired", remedy=_REMEDY) from None
    except jwt.InvalidAudienceError:
        raise Unauthenticated("the token is for another audience", remedy=_REMEDY) from None
    except jwt.InvalidIssuerError:
        raise Unauthenticated("the token is of another issuer", remedy=_REMEDY) from None
    except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
        raise Unauthenticated("the token is not one of the configured issuer", remedy=_REMEDY) from None


def _claimed(claims: Mapping[str, Any], settings: Settings) -> Claimed:
    subject = _claim(claims, settings.oidc_subject)
    if not isinstance(subject, str) or not 0 < len(subject) <= LONGEST_SUBJECT or subject.startswith("group:"):
        raise Unauthenticated(
            f"the token has no `{settings.oidc_subject}` by which somebody could be known",
            remedy=f"MLAAS_OIDC_SUBJECT names the claim: a text of at most {LONGEST_SUBJECT} characters.",
        )
    groups = _names(_claim(claims, settings.oidc_groups))
    role = _role(groups | _names(_claim(claims, settings.oidc_roles)), settings.oidc_role_map)
    return Claimed(subject, role, groups, claims["exp"])


def _role(names: frozenset[str], role_map: str) -> Role:
    """The highest role that the setting gives to one of `names`, or to everybody."""
    rows = [one.strip().rpartition("=") for one in role_map.split(",") if one.strip()]
    given = [cast(Role, role.strip()) for name, _, role in rows if name.strip() in names or name.strip() == EVERYBODY]
    return max(given, key=ORDER.index, default="anonymous")


def _claim(claims: Any, path: str) -> Any:
    """A claim by its name, which may have dots in it, or by a path of names with dots between them; None where there is none."""
    if not isinstance(claims, Mapping):
        return None
    if path in claims:
        return claims[path]
    parts = path.split(".")
    heads = [(".".join(parts[:n]), ".".join(parts[n:])) for n in range(1, len(parts))]
    return next((found for head, rest in heads if head in claims and (found := _claim(claims[head], rest)) is not None), None)


def _names(claim: Any) -> frozenset[str]:
    """Names in a claim: a list, or one text with spaces between them."""
    found = claim.split() if isinstance(claim, str) else claim if isinstance(claim, list) else []
    return frozenset(one for one in found if isinstance(one, str))


class _Issuer:
    """An issuer, and the keys that it publishes."""

    def __init__(self, url: str) -> None:
        self._url, self._lock, self._not_before = url, threading.Lock(), 0.0
        self._client: PyJWKClient | None = None
        self._said: Mapping[str, Any] = {}

    def said(self) -> Mapping[str, Any]:
        """The discovery document. Raises Unavailable where the issuer is away."""
        with self._lock:
            if not self._said and time.monotonic() < self._not_before:
                raise away()
            try:
                self._client = self._client or self._discovered()
                return self._said
            except _ILL:
                self._not_before = time.monotonic() + RETRY_SECONDS
                raise away() from None

    def key(self, kid: str) -> Any:
        """The public key of this name. Raises Unauthenticated where the issuer has none, Unavailable where it is away."""
        if found := self._known(kid):
            return found
        with self._lock:  # one asks, those who came meanwhile find its answer
            if found := self._known(kid):
                return found
            if time.monotonic() < self._not_before:
                raise away()
            try:
                self._client = self._client or self._discovered()
                return self._client.get_signing_key(kid).key
            except PyJWKClientConnectionError:
                pass
            except PyJWKClientError:
                if self._keys():
                    raise Unauthenticated("the token's key is none of the issuer's", remedy=_REMEDY) from None
            except _ILL:
                pass
            self._not_before = time.monotonic() + RETRY_SECONDS
            raise away()

    def _known(self, kid: str) -> Any:
        return next((one.key for one in self._keys() if one.key_id == kid and one.public_key_use in ("sig", None)), None)

    def _keys(self) -> list[PyJWK]:
        kept = self._client.jwk_set_cache.get() if self._client and self._client.jwk_set_cache else None
        return kept.keys if kept else []

    def _discovered(self) -> PyJWKClient:
        where = f"{self._url.rstrip('/')}/.well-known/openid-configuration"
        answer = requests.get(where, timeout=TIMEOUT, allow_redirects=False, headers={"Accept": "application/json"})
        answer.raise_for_status()
        said = answer.json()
        if said["issuer"] != self._url or urlsplit(said["jwks_uri"]).scheme not in ("https", urlsplit(self._url).scheme):
            raise ValueError(where)
        self._said = said
        return PyJWKClient(said["jwks_uri"], timeout=TIMEOUT, lifespan=KEPT_SECONDS, cooldown_duration=COOLDOWN)


@lru_cache(maxsize=4)
def _issuer(url: str) -> _Issuer:
    return _Issuer(url)


def away() -> Unavailable:
    """What is raised while the issuer cannot be asked."""
    remedy = "Try again; if it lasts, tell who runs the platform to look at MLAAS_OIDC_ISSUER."
    return Unavailable("the issuer does not answer as it should", retry_after=RETRY_SECONDS, remedy=remedy)
