"""HTTP by httpx2: how a request becomes a reply, blocking and awaited."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from ..errors import InvalidRequest
from .problems import Unreachable
from .steps import Reply, Request

__all__ = ["AsyncHttp", "Http"]

_CHUNK = 1024 * 1024
_CONNECT_SECONDS = 10.0


class Http:
    """Connections that are kept, for all threads."""

    def __init__(self) -> None:
        self._client = httpx2.Client(follow_redirects=True)

    def send(self, request: Request) -> Reply:
        """The answer, whatever its status. Raises Unreachable."""
        with _said(request), self._client.stream(request.method, request.url, **_arguments(request, _chunks)) as response:
            if request.to and response.status_code in (200, 206):
                with request.to.open("ab" if response.status_code == 206 else "wb") as file:
                    for chunk in response.iter_bytes():
                        _written(file.write(chunk), request)
            else:
                response.read()
            return _reply(response, request)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class AsyncHttp:
    """Connections that are kept, for all tasks of one event loop."""

    def __init__(self) -> None:
        self._client = httpx2.AsyncClient(follow_redirects=True)

    async def send(self, request: Request) -> Reply:
        """The answer, whatever its status. Raises Unreachable."""
        with _said(request):
            async with self._client.stream(request.method, request.url, **_arguments(request, _async_chunks)) as response:
                if request.to and response.status_code in (200, 206):
                    with request.to.open("ab" if response.status_code == 206 else "wb") as file:
                        async for chunk in response.aiter_bytes():
                            _written(file.write(chunk), request)
                else:
                    await response.aread()
                return _reply(response, request)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()


def _arguments(request: Request, chunks: Callable[[Path, Request], Any]) -> dict[str, Any]:
    headers, content = dict(request.headers), request.body
    if isinstance(content, Path):
        headers["Content-Length"] = str(content.stat().st_size)
        content = chunks(content, request)
    timeout = httpx2.Timeout(request.timeout, connect=min(request.timeout, _CONNECT_SECONDS))
    query = {"params": list(request.query)} if request.query else {}
    return {"headers": headers, "content": content, "timeout": timeout, **query}


def _chunks(file: Path, request: Request) -> Iterator[bytes]:
    with file.open("rb") as opened:
        while chunk := opened.read(_CHUNK):
            yield chunk
            _written(len(chunk), request)


async def _async_chunks(file: Path, request: Request) -> AsyncIterator[bytes]:
    for chunk in _chunks(file, request):
        yield chunk


def _written(count: int, request: Request) -> None:
    if request.moved:
        request.moved(count)


def _reply(response: httpx2.Response, request: Request) -> Reply:
    headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status_code, headers, b"" if request.to and response.status_code in (200, 206) else response.content)


@contextmanager
def _said(request: Request) -> Iterator[None]:
    """What httpx2 raises, as what it means."""
    host = httpx2.URL(request.url).netloc.decode("ascii", "replace") if request.url.isascii() else "the address"
    try:
        yield
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
        raise InvalidRequest("this is no address of a platform", field="url", remedy="Give one like http://127.0.0.1:8080.") from None
    except httpx2.ConnectError as error:
        raise Unreachable(f"no platform answers at {host}", remedy="Start it with `mlaas up`, or set MLAAS_URL.") from error
    except httpx2.TimeoutException as error:
        remedy = "Give it more time: timeout=, or --timeout on the command line."
        raise Unreachable(f"{host} did not answer within {request.timeout:.0f} s", remedy=remedy) from error
    except httpx2.HTTPError as error:
        raise Unreachable(f"the connection to {host} broke", remedy="Try again; the same idempotency key starts nothing twice.") from error
