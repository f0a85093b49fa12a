"""Clients that are slow, or never finish what they began to ask."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from mlaas.http_server import REQUEST_SECONDS
from mlaas.settings import Settings
from mlaas.testing.fault_table import Row
from mlaas.testing.processes import serving

SLOW = 150
FUNCTIONS = Path(__file__).parents[2] / "functions"
HEAD = b"POST / HTTP/1.1\r\nHost: mlaas\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n"
ASKED = {"model": {"name": "infn-structures"}, "predict_input": {"input_text": ["INFN Frascati"]}}


@pytest.mark.fault("150 clients that send slowly or never finish their request", deadline=90)
def test_slow_clients_hold_nobody_up_and_are_closed(row: Row, draw: random.Random, place: Settings) -> None:
    with serving(FUNCTIONS / "classify", {}) as (url, _):
        assert requests.post(url, json=ASKED, timeout=30).ok
        address = (urlsplit(url).hostname, urlsplit(url).port)
        began = time.monotonic()
        clients = [socket.create_connection(address) for _ in range(SLOW)]
        for client in clients:
            client.sendall(HEAD[: draw.choice([0, 20, len(HEAD)])])
        dripping, gone = threading.Event(), set()

        def drip() -> None:
            while not dripping.wait(1.0):
                for client in clients[::2]:
                    try:
                        client.send(b" ")
                    except OSError:
                        gone.add(client)

        thread = threading.Thread(target=drip)
        thread.start()
        slowest, asked, answered = 0.0, 0, 0
        while time.monotonic() - began < REQUEST_SECONDS - 5:
            started, asked = time.monotonic(), asked + 1
            answered += requests.post(url, json=ASKED, timeout=10).json()["predictions"][0]["label"] == "LNF"
            slowest = max(slowest, time.monotonic() - started)
            time.sleep(0.1)
        time.sleep(max(0.0, began + REQUEST_SECONDS + 12 - time.monotonic()))
        dripping.set()
        thread.join()
        left = 0
        for client in clients:
            client.setblocking(False)
            with contextlib.suppress(ConnectionError):
                try:
                    left += client.recv(1) != b""
                except BlockingIOError:
                    left += 1
            client.close()
        assert requests.post(url, json=ASKED, timeout=10).ok
    assert left == 0, "every one of them was closed"
    assert slowest < 2
    assert asked > 50
    row.measured(
        moment="for 25 s",
        in_flight=f"{asked} requests of others, the slowest {slowest * 1000:.0f} ms",
        lost=asked - answered,
        seconds=slowest,
    )
