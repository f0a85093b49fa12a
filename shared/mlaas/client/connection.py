"""Where the platform is, and with what it is asked: what all requests of a client share."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from pydantic import BaseModel

from ..errors import InvalidRequest
from ..settings import Settings, current
from .problems import from_problem, from_status
from .retries import Retries, retried
from .steps import Answer, Ask, Look, Reply, Request, Steps

if TYPE_CHECKING:
    from .channel import Channel

__all__ = [
    "CATALOG",
    "PAGE",
    "TRANSFER_SECONDS",
    "Connection",
    "asking",
    "catalog_request",
    "channel",
    "connection",
    "fetched",
    "looking",
    "pages",
    "read",
    "sent",
]

M = TypeVar("M", bound=BaseModel)

CATALOG = "catalog"
PAGE = 100
TRANSFER_SECONDS = 600.0  # what a server takes for reading an upload


@dataclass(frozen=True, kw_only=True)
class Connection:
    """`url` may have `{function}` in it, where each function has an address of its own."""

    url: str
    token: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    retries: Retries = Retries()
    settings: Settings

    def request(self, method: str, function: str, *path: str, **what: Any) -> Request:
        """A request to a function, with the token."""
        own = self.url.replace("{function}", function.replace("_", "-"))
        base = own if own != self.url else f"{self.url}/{quote(function)}"
        headers = dict(what.pop("headers", {}))
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        where = "/".join((base, *(quote(one, safe="/") for one in path)))
        return Request(method=method, url=where, headers=headers, timeout=self.timeout, **what)


def connection(
    url: str | None, token: str | None, timeout: float, retries: int | Retries, kafka: str | None, settings: Settings | None
) -> Connection:
    """What is not given is as the settings say. Raises InvalidRequest."""
    settings = settings or current()
    settings = dataclasses.replace(settings, kafka=kafka) if kafka else settings
    url = (url or settings.url).rstrip("/")
    parts = urlsplit(url.replace("{function}", "f"))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidRequest("this is no address of a platform", field="url", remedy="Give one like http://127.0.0.1:8080.")
    if timeout <= 0:
        raise InvalidRequest("the timeout must be above 0", field="timeout", remedy="Give seconds, e.g. 60.")
    policy = retries if isinstance(retries, Retries) else Retries(times=retries)
    token = token or settings.token or _token_of_this_machine(parts.hostname, settings)
    return Connection(url=url, token=token, timeout=timeout, retries=policy, settings=settings)


def channel(link: Connection) -> Channel:
    """The Kafka of the settings, opened. Raises InvalidRequest naming the setting that is wrong, Unavailable."""
    from .channel import Channel  # only who asks by Kafka waits for its library

    return Channel(link.settings)


def _token_of_this_machine(host: str, settings: Settings) -> str | None:
    """The one that `mlaas up` keeps in its home, for a platform that listens on this machine."""
    if host not in ("127.0.0.1", "localhost", "::1"):
        return None
    try:
        return (settings.home / "token").read_text().strip() or None
    except OSError:
        return None


def asking(link: Connection, ask: Ask) -> Steps[Answer]:
    """POST a request to a function."""
    body = json.dumps(ask.request, ensure_ascii=False).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": ask.key}
    started = time.perf_counter()
    function = CATALOG if ask.capability == "model" else ask.capability
    reply = yield from sent(link, lambda: link.request("POST", function, body=body, headers=headers))
    return Answer(_json(reply, link.url), time.perf_counter() - started, reply.headers.get("server-timing", ""))


def pages(link: Connection, page: type[BaseModel], path: Sequence[str], query: Mapping[str, Any], limit: int | None) -> Steps[list[Any]]:
    """The items of a list of the catalog, page by page; at most `limit`, None for all."""
    found: list[Any] = []
    cursor: str | None = None
    while limit is None or len(found) < limit:
        size = PAGE if limit is None else min(PAGE, limit - len(found))
        one: Any = yield from fetched(link, page, "GET", path, query={**query, "limit": size, "cursor": cursor})
        found += one.items
        cursor = one.next
        if not cursor:
            break
    return found


def looking(link: Connection, look: Look) -> Steps[dict[str, Any]]:
    """GET a task, or cancel it."""
    method, path = ("POST", ("tasks", look.task_id, "cancel")) if look.cancel else ("GET", ("tasks", look.task_id))
    reply = yield from sent(link, lambda: catalog_request(link, method, path))
    return _json(reply, link.url)


def fetched(
    link: Connection, model: type[M], method: str, path: Sequence[str], *, query: Mapping[str, Any] | None = None, body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Steps[M]:  # fmt: skip
    """Ask the function catalog for a `model`."""
    reply = yield from sent(link, lambda: catalog_request(link, method, path, query, body=body, headers=headers))
    return read(model, _json(reply, link.url))


def sent(link: Connection, make: Callable[[], Request], *, seconds: float | None = None) -> Steps[Reply]:
    """The answer to a request that is tried again. Raises the exception that it says, Unreachable where there is none."""
    made = make()
    reply = yield from retried(make, link.retries, seconds or link.timeout)
    if reply.status < 400:
        return reply
    try:
        problem = json.loads(reply.body)
    except ValueError:
        problem = None
    raise from_problem({"status": reply.status, **problem}) if isinstance(problem, dict) else from_status(reply.status, made.url)


def catalog_request(
    link: Connection,
    method: str,
    path: Sequence[str],
    query: Mapping[str, Any] | None = None,
    *,
    body: Any = None,
    headers: Mapping[str, str] | None = None,
) -> Request:
    """A request to the function catalog; what is None in `query` is left out, and lists are given item by item."""
    pairs = [
        (name, value) for name, values in (query or {}).items() for value in (values if isinstance(values, list | tuple) else [values])
    ]
    asked = tuple((name, str(value)) for name, value in pairs if value is not None)
    what: dict[str, Any] = {"query": asked, "headers": dict(headers or {})}
    if body is not None:
        what = {**what, "body": json.dumps(body).encode(), "headers": {**what["headers"], "Content-Type": "application/json"}}
    return link.request(method, CATALOG, "v1", *path, **what)


def read(model: type[M], data: Any) -> M:
    """`data` as a `model`; what a newer platform says beyond it is kept."""
    return model.model_validate(data, extra="allow")


def _json(reply: Reply, where: str) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest(f"what answers at {where} is no platform", field="url", remedy="Give the address that `mlaas up` prints.")
    return found
