"""The proxy that misbehaves: what each fault looks like from a client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mlaas.testing.toxic_proxy import ToxicProxy


@pytest.fixture
def proxy() -> Iterator[ToxicProxy]:
    """In front of a server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def echo(client: socket.socket) -> None:
        with client:
            while data := client.recv(65536):
                client.sendall(data)

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=echo, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with ToxicProxy(listener.getsockname()[1]) as proxy:
        yield proxy
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def connect(proxy: ToxicProxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=5)


def ask(client: socket.socket, text: bytes = b"hello") -> bytes:
    client.sendall(text)
    return client.recv(len(text))


def ask_on(client: socket.socket) -> None:
    """Ask for a second: the reset comes a moment after the connection's end."""
    for _ in range(100):
        ask(client)
        time.sleep(0.01)


def test_it_passes_through_and_counts_connections(proxy: ToxicProxy) -> None:
    with connect(proxy) as one, connect(proxy) as two:
        assert (ask(one), ask(two)) == (b"hello", b"hello")
    assert proxy.accepted == 2


def test_a_black_hole_holds_everything_back_and_lets_it_pass_when_it_heals(proxy: ToxicProxy) -> None:
    with connect(proxy) as old:
        ask(old)
        proxy.black_hole()
        with connect(proxy) as new:
            for client in (old, new):
                client.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    ask(client)
                client.settimeout(5)
            proxy.heal()
            assert (old.recv(5), new.recv(5)) == (b"hello", b"hello")


def test_a_cut_resets_connections_and_takes_new_ones(proxy: ToxicProxy) -> None:
    with connect(proxy) as client:
        ask(client)
        proxy.cut()
        with pytest.raises(ConnectionError):
            ask_on(client)
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_refused_until_it_heals_on_the_same_port(proxy: ToxicProxy) -> None:
    with connect(proxy) as client:
        ask(client)
        for _ in range(2):
            proxy.refuse()
            with pytest.raises(ConnectionRefusedError):
                connect(proxy)
        with pytest.raises(ConnectionError):
            ask_on(client)
    proxy.heal()
    with connect(proxy) as client:
        assert ask(client) == b"hello"


def test_one_bit_is_flipped_where_it_was_asked_for_and_only_there(proxy: ToxicProxy) -> None:
    proxy.flip(after=7)
    with connect(proxy) as client:
        assert ask(client, b"aaaaa") == b"aaaaa"
        assert not proxy.flipped
        assert ask(client, b"aaaaa") == b"aa`aa"
        assert proxy.flipped
        assert ask(client, b"aaaaa") == b"aaaaa"


def test_answers_are_delayed_and_throttled(proxy: ToxicProxy) -> None:
    with connect(proxy) as client:
        for fault in ({"delay": 0.3}, {"rate": 5 / 0.3}):
            for name, value in fault.items():
                setattr(proxy, name, value)
            started = time.monotonic()
            ask(client)
            assert time.monotonic() - started >= 0.28
            proxy.heal()


def test_a_swallowed_answer_is_a_reset_after_the_request_was_delivered(proxy: ToxicProxy) -> None:
    proxy.swallow(1)
    with connect(proxy) as one, pytest.raises((ConnectionResetError, BrokenPipeError)):
        ask_on(one)
    with connect(proxy) as two:
        assert ask(two) == b"hello"
    assert proxy.swallowed == 1
