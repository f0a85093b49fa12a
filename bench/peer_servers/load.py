"""Load on one HTTP server, from a process of its own that costs little CPU: it writes prepared bytes and reads until an answer is whole.

    python bench/peer_servers/load.py < request.json

`request.json`: port, path, bodies (a file with one JSON body a line), connections, seconds, pids (the server's processes).
All connections begin at once, and each asks again as soon as it is answered, for so many seconds; what was asked by then is waited for and
counts. Prints as JSON: the seconds from the first request to the last answer, how often each body was answered, latencies in seconds, how
many answers were no 200, and the CPU seconds that the server took.
"""

from __future__ import annotations

import json
import os
import selectors
import socket
import sys
import time
from pathlib import Path
from typing import Any


class Connection:
    """One kept connection, with what has been read of its answer."""

    def __init__(self, port: int, requests: list[bytes], first: int) -> None:
        self.port, self.requests, self.number = port, requests, first
        self.open()

    def open(self) -> None:
        """Connect, also again after the server has closed."""
        self.socket = socket.create_connection(("127.0.0.1", self.port), 60)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self) -> None:
        """Ask for the next body."""
        self.body = self.number % len(self.requests)
        self.number += 1
        self.read, self.size, self.chunked, self.status, self.begun = b"", None, False, 0, time.perf_counter()
        self.socket.sendall(self.requests[self.body])

    def receive(self) -> bool:
        """Read what is there; whether the answer is whole."""
        data = self.socket.recv(1 << 20)
        if not data:
            raise ConnectionError("the server closed in the middle of an answer")
        self.read += data
        if self.size is None and not self.chunked:
            head, found, rest = self.read.partition(b"\r\n\r\n")
            if not found:
                return False
            self.status, fields = int(head[9:12]), head.lower()
            if b"transfer-encoding: chunked" in fields:
                self.chunked = True
            else:
                self.size = int(fields.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
            self.read = rest
        return self.read.endswith(b"0\r\n\r\n") if self.chunked else len(self.read) >= (self.size or 0)


def cpu_seconds(pids: list[int]) -> float:
    """What these processes have computed so far."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Ask, count, print."""
    asked: dict[str, Any] = json.load(sys.stdin)
    head = f"POST {asked['path']} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: "
    bodies = Path(asked["bodies"]).read_bytes().splitlines()
    requests = [head.encode() + str(len(body)).encode() + b"\r\n\r\n" + body for body in bodies]
    apart = max(1, len(requests) // asked["connections"])
    ready = selectors.DefaultSelector()
    before, begin = cpu_seconds(asked["pids"]), time.perf_counter()
    for place in range(asked["connections"]):
        one = Connection(asked["port"], requests, place * apart)
        ready.register(one.socket, selectors.EVENT_READ, one)
        one.send()
    answered, latencies, others, waiting = [0] * len(requests), [], 0, asked["connections"]
    end = begin + asked["seconds"]
    while waiting:
        for key, _ in ready.select(1.0):
            one = key.data
            whole, now = one.receive(), time.perf_counter()
            if not whole:
                continue
            others += one.status != 200
            latencies.append(now - one.begun)
            answered[one.body] += one.status == 200
            if now < end:
                one.send()
            else:
                ready.unregister(one.socket)
                one.socket.close()
                waiting -= 1
    cpu = cpu_seconds(asked["pids"]) - before
    print(json.dumps({"seconds": now - begin, "answered": answered, "latencies": latencies, "others": others, "cpu": cpu}))


if __name__ == "__main__":
    main()
