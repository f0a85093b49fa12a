"""Slow clients hold connections for a bounded time and never a thread."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from mlaas import http_server

SECONDS = 1.0


def app(environ: dict[str, Any], start: Any) -> list[bytes]:
    environ["wsgi.input"].read()
    time.sleep(2.5 if environ["PATH_INFO"] == "/long" else 0)
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with http_server.running(app, host="127.0.0.1", port=0, threads=2, seconds=SECONDS) as server:
        yield server.effective_port


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(port: int, path: str = "/") -> bytes:
    with connect(port) as client:
        client.sendall(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path.encode())
        return client.recv(1000)


@pytest.mark.parametrize("begun", [b"", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Le", b"POST / HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc"],
                         ids=["nothing", "headers", "body"])  # fmt: skip
def test_a_request_that_is_never_finished_is_closed(port: int, begun: bytes) -> None:
    with connect(port) as client:
        client.sendall(begun)
        started = time.monotonic()
        assert client.recv(1000) == b""
        assert time.monotonic() - started < SECONDS + 6


def test_a_request_that_drips_is_closed_though_it_is_never_idle(port: int) -> None:
    with connect(port) as client:
        client.sendall(b"POST / HTTP/1.1\r\nContent-Length: 100000\r\n\r\n")
        started = time.monotonic()
        with contextlib.suppress(OSError):  # a reset or a broken pipe
            while time.monotonic() - started < 15:
                client.sendall(b"x")
                time.sleep(0.1)
        assert time.monotonic() - started < SECONDS + 6


def test_while_many_are_slow_others_are_answered_at_once(port: int) -> None:
    slow = [connect(port) for _ in range(150)]
    try:
        for client in slow:
            client.sendall(b"POST / HTTP/1.1\r\n")
        started = time.monotonic()
        assert ask(port).startswith(b"HTTP/1.1 200")
        assert time.monotonic() - started < 1
    finally:
        for client in slow:
            client.close()


def test_an_answer_that_takes_long_is_not_cut_nor_is_a_connection_that_waits_for_its_next_request(port: int) -> None:
    assert ask(port, "/long").startswith(b"HTTP/1.1 200")
    with connect(port) as client:
        for _ in range(2):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
            time.sleep(SECONDS + 2.5)


def test_a_client_that_hangs_up_is_noticed_while_its_request_is_handled() -> None:
    noticed = threading.Event()

    def watching(environ: dict[str, Any], start: Any) -> list[bytes]:
        end = time.monotonic() + 10
        while time.monotonic() < end and not environ["waitress.client_disconnected"]():
            time.sleep(0.01)
        if environ["waitress.client_disconnected"]():
            noticed.set()
        start("200 OK", [("Content-Length", "0")])
        return []

    with http_server.running(watching, host="127.0.0.1", port=0, threads=1) as server:
        with connect(server.effective_port) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            time.sleep(0.2)
            assert not noticed.is_set()
        assert noticed.wait(8)
