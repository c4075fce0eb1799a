"""What a Redis URL can say: user, database, TLS, cap, prefix."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_TASK
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.transports.redis.embedded_server import free_port
from diaspora_parsl.fabric.transports.redis.transport import RedisFabric


@pytest.fixture
def running(valkey: Any) -> Any:
    valkey.start()
    return valkey


def test_prefixes_are_apart(running: Any, tools: Any) -> None:
    one, two = open_fabric(running.url + "?prefix=one:"), open_fabric(running.url + "?prefix=two:")
    sent = tools.events(3)
    one.publish(sent)
    assert tools.everything(one) == sent
    assert tools.everything(two) == []
    one.close()
    two.close()


def test_a_user_with_few_rights_is_enough(running: Any, tools: Any) -> None:
    admin = RedisFabric(running.url)
    rights = ["+xadd", "+xread", "+xrange", "+xinfo|stream", "+xlen", "+xtrim", "+ping", "+select", "~diaspora:*"]
    rights += ["+multi", "+exec"]
    admin._link.run(("ACL", "SETUSER", "pool", "on", ">p@ss/word", "resetkeys", *rights))
    fabric = open_fabric(running.url.replace(f":{running.password}@", "pool:p%40ss%2Fword@"))
    sent = tools.events(120)  # more than one entry
    fabric.publish(sent)
    assert tools.everything(fabric) == sent
    admin._link.run(("ACL", "SETUSER", "pool", "-xadd"))
    with pytest.raises(FabricUnavailableError, match=r"refuses: .*permission") as caught:
        fabric.publish(sent)
    assert "word" not in str(caught.value)
    fabric.close()
    admin.close()


def test_a_server_that_still_loads_is_told_nothing(tools: Any) -> None:
    reported = b""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)

        def load() -> None:
            nonlocal reported
            connection, _ = listener.accept()
            with connection:
                while data := connection.recv(65536):
                    reported += data
                    busy = b"-LOADING Valkey is loading the dataset in memory\r\n"
                    asked = data.count(b"PING") + data.count(b"XADD")
                    connection.sendall(b"+OK\r\n" * data.count(b"SETINFO") + busy * asked)

        thread = threading.Thread(target=load)
        thread.start()
        fabric = open_fabric(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        with pytest.raises(FabricUnavailableError, match="loading"):
            fabric.publish(tools.events(1))
        fabric.close()
        thread.join(10)
    assert b"PING" in reported
    assert b"XADD" not in reported  # it would refuse the first ones, and take the last ones when it has loaded


def test_a_batch_arrives_whole_or_not_at_all(running: Any, tools: Any) -> None:
    admin = RedisFabric(running.url)
    rights = ["resetkeys", "~diaspora:parsl-task", "%R~*", "+@all"]
    admin._link.run(("ACL", "SETUSER", "pool", "on", ">secret", *rights))
    fabric = open_fabric(running.url.replace(f":{running.password}@", "pool:secret@"))
    batch = [*tools.events(60), tools.event(is_state=False)]
    with pytest.raises(FabricUnavailableError, match="refuses"):
        fabric.publish(batch)
    assert tools.everything(admin) == []
    admin._link.run(("ACL", "SETUSER", "pool", "~*"))
    fabric.publish(batch)
    assert sorted(tools.everything(admin), key=lambda one: one.sequence) == batch  # topics have no order
    fabric.close()
    admin.close()


def test_a_database_that_is_not_there(running: Any, tools: Any) -> None:
    fabric = open_fabric(running.url.removesuffix("/0") + "/7")
    with pytest.raises(FabricUnavailableError, match="out of range"):
        fabric.publish(tools.events(1))
    fabric.close()


def test_a_key_of_another_kind_is_refused_with_a_reason(running: Any, tools: Any) -> None:
    fabric = RedisFabric(running.url)
    fabric._link.run(("SET", "diaspora:parsl-task", "not a stream"))
    with pytest.raises(FabricUnavailableError, match=r"refuses: .*wrong kind"):
        fabric.publish(tools.events(1))
    with pytest.raises(FabricUnavailableError, match=r"refuses: .*wrong kind"):
        fabric.subscribe([TOPIC_TASK])
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    with pytest.raises(FabricUnavailableError, match=r"refuses: .*wrong kind"):
        reader.read(0.1)
    fabric.close()


def test_an_idle_connection_that_the_server_closed_is_no_outage(running: Any, tools: Any) -> None:
    fabric = RedisFabric(running.url)
    fabric.publish(tools.events(1))
    other = RedisFabric(running.url)
    other._link.run(("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
    fabric.publish(tools.events(1))
    assert len(tools.everything(fabric)) == 2
    fabric.close()
    other.close()


def test_a_server_that_accepts_and_says_nothing(tools: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        fabric = open_fabric(f"redis://127.0.0.1:{silent.getsockname()[1]}/0?timeout=0.1")
        reader = fabric.subscribe([TOPIC_TASK], "earliest")
        started = time.monotonic()
        with pytest.raises(FabricUnavailableError, match=r"(?i)time"):
            fabric.publish(tools.events(1))
        with pytest.raises(FabricUnavailableError, match=r"(?i)time"):
            reader.read(0.1)
        assert time.monotonic() - started < 1
        fabric.close()


def test_a_server_that_talks_nonsense(tools: Any) -> None:
    def talk(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n" * 3)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)
        thread = threading.Thread(target=talk, args=(listener,))
        thread.start()
        fabric = open_fabric(f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        for _ in range(2):
            with pytest.raises(FabricUnavailableError):
                fabric.publish(tools.events(1))
        thread.join(5)
        fabric.close()


def pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def tls_in_front_of(port: int, folder: Path) -> Iterator[tuple[int, Path]]:
    """A TLS listener that forwards to a plain port; its port and its certificate."""
    certificate, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    )
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=30)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", free_port()))
    threads: list[threading.Thread] = []
    sockets: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                raw, _ = listener.accept()
            except OSError:
                return
            try:
                inside = context.wrap_socket(raw, server_side=True)
            except OSError:
                raw.close()
                continue
            outside = socket.create_connection(("127.0.0.1", port))
            sockets.extend((inside, outside))
            for pair in ((inside, outside), (outside, inside)):
                thread = threading.Thread(target=pump, args=pair)
                threads.append(thread)
                thread.start()

    threads.append(threading.Thread(target=accept))
    threads[0].start()
    try:
        yield listener.getsockname()[1], certificate
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)
        for one in sockets:
            one.close()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="makes the certificate")
def test_tls(running: Any, tools: Any, tmp_path: Path) -> None:
    with tls_in_front_of(running.port, tmp_path) as (port, certificate):
        plain = f"rediss://:{running.password}@localhost:{port}/0"
        trusting = open_fabric(f"{plain}?ssl_ca_certs={certificate}")
        sent = tools.events(60)
        trusting.publish(sent)
        reader = trusting.subscribe([TOPIC_TASK], "earliest")
        assert reader.read(5) == sent
        thread = threading.Thread(target=reader.read, args=(30,))
        thread.start()
        time.sleep(0.05)
        trusting.close()
        thread.join(5)
        assert not thread.is_alive()
        strict = open_fabric(plain)  # does not know the certificate, and must not believe it
        with pytest.raises(FabricUnavailableError, match=r"(?i)certificate"):
            strict.publish(sent)
        strict.close()


def test_a_url_with_everything_is_shown_without_its_secrets() -> None:
    fabric = open_fabric("rediss://pool:secret@h:1/2?ssl_password=secret&maxlen=5")
    assert repr(fabric) == "<RedisFabric rediss://pool:***@h:1/2?ssl_password=***&maxlen=5>"
    assert "secret" in fabric.url
    fabric.close()
