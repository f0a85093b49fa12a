"""A TCP proxy on loopback that misbehaves on demand, for tests of what the platform does when a server is slow, silent or away.

`toxiproxy` does this as a Go program with a Python client; nothing on PyPI brings it whole, and these faults are few.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType

__all__ = ["ToxicProxy"]

_CHUNK = 65536
_TICK = 0.02  # seconds
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset instead of a farewell


@dataclass
class _Flip:
    """How many bytes of answers still pass before a bit of one is flipped."""

    left: int


@dataclass
class ToxicProxy:
    """Passes connections through to `port` of 127.0.0.1: `with ToxicProxy(27017) as proxy: connect to proxy.port`.

    Faults hold from when they are set until `heal`: `delay` (seconds for each chunk of an answer), `rate` (bytes of answers a
    second and connection), and what the methods do. `accepted` counts connections, `swallowed` answers that nobody got.
    """

    target: int
    delay: float = 0.0
    rate: float | None = None
    port: int = 0
    accepted: int = 0
    swallowed: int = 0
    _swallow: int = 0
    _silent: bool = False
    _flip: _Flip | None = None
    _listener: socket.socket | None = None
    _ends: set[socket.socket] = field(default_factory=set)
    _lock: threading.RLock = field(default_factory=threading.RLock)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> ToxicProxy:
        self._listen()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self.refuse()
        if self._listener:
            self._listener.close()

    def black_hole(self) -> None:
        """Go silent as a network that drops every packet: connections stay and are still made, and nothing passes."""
        self._silent = True

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        with self._lock:
            ends, self._ends = self._ends, set()
        for end in ends:
            _reset(end)

    def refuse(self) -> None:
        """Reset every connection and refuse new ones, as a machine on which nothing listens."""
        with self._lock:
            if self._listener:
                _shut(self._listener)
                self._listener = _bound(self.port)  # the port stays ours, and nobody listens
        self.cut()

    def flip(self, after: int) -> None:
        """Flip a bit of one byte of what is answered, the one that comes `after` as many bytes from now."""
        self._flip = _Flip(after)

    def swallow(self, count: int) -> None:
        """Reset the next `count` connections on which an answer begins, instead of passing it: the request has been delivered."""
        self._swallow = count

    @property
    def flipped(self) -> bool:
        """Whether the byte has passed."""
        return self._flip is not None and self._flip.left < 0

    def heal(self) -> None:
        """Behave; what was held back by `black_hole` passes."""
        self.delay, self.rate, self._silent, self._flip, self._swallow = 0.0, None, False, None, 0
        with self._lock:
            if self._listener and not _listens(self._listener):
                self._listen()

    def _listen(self) -> None:
        self._listener = self._listener or _bound(self.port)
        self.port = self._listener.getsockname()[1]
        self._listener.listen(128)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with self._lock:
            self._ends.add(client)
        self._hold()
        try:
            server = socket.create_connection(("127.0.0.1", self.target), timeout=10)
            server.settimeout(None)
        except OSError:  # a dead server behind a live proxy looks like a dead server
            _reset(client)
            return
        with self._lock:
            gone = client not in self._ends
            self._ends.add(server)
        if gone:
            _reset(server)
            return
        threading.Thread(target=self._pass, args=(client, server, False), daemon=True).start()
        self._pass(server, client, True)

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        try:
            while data := source.recv(_CHUNK):
                self._hold()
                if answers and self._swallows():
                    _reset(target)
                    break
                target.sendall(self._spoil(data) if answers else data)
        except OSError:
            pass
        self._hold()  # nor does the farewell of a connection cross a network that drops everything
        with self._lock:
            self._ends -= {source, target}
        _shut(source)
        _shut(target)

    def _swallows(self) -> bool:
        with self._lock:
            if self._swallow > 0:
                self._swallow, self.swallowed = self._swallow - 1, self.swallowed + 1
                return True
            return False

    def _hold(self) -> None:
        while self._silent and not self._ended.is_set():
            time.sleep(_TICK)

    def _spoil(self, data: bytes) -> bytes:
        time.sleep(self.delay + (len(data) / self.rate if self.rate else 0.0))
        with self._lock:
            flip = self._flip
            if flip is None or flip.left < 0:
                return data
            flip.left, place = flip.left - len(data), flip.left
            return data if place >= len(data) else data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _listens(listener: socket.socket) -> bool:
    return bool(listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    _shut(end)


def _shut(end: socket.socket) -> None:
    """Close, also for the thread that waits in it."""
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
