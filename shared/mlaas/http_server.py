"""The HTTP server of functions and of the gateway: waitress, bounded also against clients that are slow.

waitress reads requests in one loop and hands only complete ones to its threads, so a slow client holds no thread. What it
can hold is a connection: here one that has not sent a whole request in time is closed, and there is room for many. It reads on
while a request is handled, so that whoever hangs up is noticed (`waitress.client_disconnected` in the environ).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import waitress.channel
import waitress.server
import waitress.wasyncore

from . import timing

__all__ = ["CONNECTIONS", "REQUEST_SECONDS", "create", "running", "stop"]

REQUEST_SECONDS = 30.0  # from a request's first byte, or from the connection, to its last byte
CONNECTIONS = 500  # below the usual limit of 1,024 open files
_SWEEP_SECONDS = 2


class _Channel(waitress.channel.HTTPChannel):  # type: ignore[misc]
    """A connection that knows since when it has been waiting for the rest of a request (None: for none), and when bytes last came."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.waiting_since: float | None = time.monotonic()
        self.received_at = time.perf_counter()
        super().__init__(*arguments, **options)

    def received(self, data: bytes) -> bool:
        begun, self.received_at = self.request is not None, time.perf_counter()
        taken: bool = super().received(data)
        if self.request is None:
            self.waiting_since = None
        elif not begun or self.waiting_since is None:
            self.waiting_since = time.monotonic()
        return taken

    def service(self) -> None:
        with timing.waited_since(self.received_at):
            super().service()


def create(app: Any, *, seconds: float = REQUEST_SECONDS, **options: Any) -> Any:
    """A waitress server for `app` with waitress' own `options`; a request must have arrived whole within `seconds`."""
    limits = {
        "connection_limit": CONNECTIONS,
        "asyncore_use_poll": True,
        "cleanup_interval": _SWEEP_SECONDS,
        "channel_request_lookahead": 1,
    }
    server = waitress.server.create_server(app, **limits, **options)
    server.channel_class = _Channel
    server.maintenance = partial(_close_the_slow, server, server.maintenance, seconds)
    return server


@contextmanager
def running(app: Any, **options: Any) -> Iterator[Any]:
    """A server of `create` that runs in a thread until the end of the block."""
    server = create(app, **options)
    thread = threading.Thread(target=server.run, name="http-server", daemon=True)
    thread.start()
    try:
        yield server
    finally:
        stop(server, thread)


def stop(server: Any, thread: threading.Thread, seconds: float = 2.0) -> None:
    """End a server that runs in `thread`, and its connections; wait so long for it."""
    with suppress(OSError):  # the loop may have closed everything before it is woken
        server.trigger.pull_trigger(lambda: waitress.wasyncore.close_all(server._map, ignore_all=True))
    thread.join(seconds)
    server.task_dispatcher.shutdown(timeout=1)


def _close_the_slow(server: Any, close_the_idle: Any, seconds: float, now: float) -> None:
    close_the_idle(now)
    late = time.monotonic() - seconds
    for channel in list(server.active_channels.values()):
        if channel.waiting_since is not None and channel.waiting_since < late and not channel.requests:
            channel.will_close = True
