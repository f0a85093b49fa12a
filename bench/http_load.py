"""A light client: so many kept connections, one request on each at a time, prebuilt bytes, one thread and no HTTP library.

    echo '{"port": 8080, "connections": 16, "seconds": 2, "requests": ["GET / HTTP/1.1..."]}' | python bench/http_load.py

After that time nothing more is asked, and what was asked is still waited for. Prints JSON: the latencies in seconds, without those of
the first half second unless there are no others, the seconds until the last answer, and which statuses came how often.
"""

from __future__ import annotations

import json
import selectors
import socket
import sys
import time
from collections import Counter
from dataclasses import dataclass
from itertools import count
from typing import Any

WARM_SECONDS, LATE_SECONDS = 0.5, 60.0


@dataclass
class Connection:
    """A socket, when its request was sent, and what has come of the answer."""

    socket: socket.socket
    sent: float = 0.0
    came: bytes = b""

    def whole(self) -> bool:
        """Whether all of the answer has come."""
        head, found, body = self.came.partition(b"\r\n\r\n")
        if not found:
            return False
        (length,) = (line.partition(b":")[2] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return len(body) >= int(length)


def load(port: int, connections: int, seconds: float, requests: list[bytes]) -> dict[str, Any]:
    """Ask for so long, and wait for what was asked."""
    numbers, statuses, lost = count(), Counter[str](), 0
    early, latencies = list[float](), list[float]()
    looking = selectors.DefaultSelector()

    def ask(one: Connection) -> None:
        one.came, one.sent = b"", time.perf_counter()
        one.socket.sendall(requests[next(numbers) % len(requests)])

    def connect() -> None:
        one = Connection(socket.create_connection(("127.0.0.1", port), timeout=LATE_SECONDS))
        one.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        looking.register(one.socket, selectors.EVENT_READ, one)
        ask(one)

    for _ in range(connections):
        connect()
    began = last = time.perf_counter()
    end = began + seconds
    while looking.get_map() and (now := time.perf_counter()) < end + LATE_SECONDS:
        for key, _ in looking.select(1.0):
            one: Connection = key.data
            try:
                got = one.socket.recv(1 << 18)
            except ConnectionError:
                got = b""
            one.came += got
            if got and not one.whole():
                continue
            lost += not got
            if got:
                last = time.perf_counter()
                (early if one.sent < began + WARM_SECONDS else latencies).append(last - one.sent)
                statuses[one.came[9:12].decode()] += 1
            if got and now < end:
                ask(one)
                continue
            looking.unregister(one.socket)
            one.socket.close()
            if now < end:
                connect()
    return {"latencies": latencies or early, "seconds": last - began, "statuses": statuses, "lost": lost + len(looking.get_map())}


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    asked["requests"] = [request.encode("latin-1") for request in asked["requests"]]
    print(json.dumps(load(**asked)))
