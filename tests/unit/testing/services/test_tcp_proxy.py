from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from diaspora_parsl.testing.services.tcp_proxy import Wan


@pytest.fixture
def echo() -> Iterator[int]:
    """A server that sends back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                one, _ = listener.accept()
            except OSError:
                return
            with one, contextlib.suppress(OSError):
                while data := one.recv(1000):
                    one.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


def connect(wan: Wan) -> socket.socket:
    return socket.create_connection(("127.0.0.1", wan.port), timeout=10)


def test_everything_goes_through_until_it_is_cut(echo: int) -> None:
    with Wan("127.0.0.1", echo) as wan:
        with connect(wan) as one:
            one.sendall(b"hello")
            assert one.recv(10) == b"hello"
            wan.cut()
            with contextlib.suppress(ConnectionError):
                assert one.recv(10) == b""
        with connect(wan) as two, contextlib.suppress(ConnectionError):
            assert two.recv(10) == b""
        wan.mend()
        with connect(wan) as three:
            three.sendall(b"again")
            assert three.recv(10) == b"again"


def test_a_line_that_drops_lets_all_hang(echo: int) -> None:
    with Wan("127.0.0.1", echo) as wan, connect(wan) as one:
        one.sendall(b"hello")
        assert one.recv(10) == b"hello"
        wan.cut("drop")
        with connect(wan) as two:
            for hanging in (one, two):
                hanging.settimeout(0.3)
                hanging.sendall(b"x")
                with pytest.raises(TimeoutError):
                    hanging.recv(10)
            wan.mend()
            for broken in (one, two):
                broken.settimeout(10)
                with contextlib.suppress(ConnectionError):
                    assert broken.recv(10) == b""


def test_an_address_at_the_other_end() -> None:
    with Wan.to("redis://:s3c@ret@127.0.0.1:6379/0?timeout=2") as wan:
        assert (
            wan.url("redis://:s3c@ret@127.0.0.1:6379/0?timeout=2")
            == f"redis://:s3c@ret@127.0.0.1:{wan.port}/0?timeout=2"
        )
        with pytest.raises(ValueError, match='write "refuse" or "drop"'):
            wan.cut("break")
