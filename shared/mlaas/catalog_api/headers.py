"""Headers of every answer of the REST interface: nothing in it is a page, and only named sites' scripts may read it."""

from __future__ import annotations

import flask

from ..settings import current

__all__ = ["guarded"]

_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
}
_SHARED = {"Access-Control-Expose-Headers": "ETag, Link, Location, Retry-After, WWW-Authenticate"}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": "Authorization, Content-Type, If-Match, If-None-Match, Range",
    "Access-Control-Max-Age": "600",
}


def guarded(response: flask.Response) -> flask.Response:
    """The response with them. Cookies are never asked for: a site's script has to have a token of its own."""
    if flask.request.blueprint != "catalog":  # the web app has its own
        return response
    response.headers.update(_ALWAYS)
    if origins := [one.strip() for one in current().cors_origins.split(",") if one.strip()]:
        response.vary.add("Origin")
        if (origin := flask.request.headers.get("Origin")) in origins:
            response.headers.update({"Access-Control-Allow-Origin": origin, **_SHARED})
            if flask.request.method == "OPTIONS":
                response.headers.update(_PREFLIGHT)
    return response
