"""What the broker says to bytes that no client should send, to strangers and to the silent."""

from __future__ import annotations

import socket
import struct
import threading
from typing import TYPE_CHECKING, Any, Self

import pytest

pika = pytest.importorskip("pika", reason="comes with the SDK of Globus Compute")

from pika import frame, spec  # noqa: E402
from pika.exceptions import ProbableAccessDeniedError, ProbableAuthenticationError  # noqa: E402

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus.broker.broker import Broker
    from tests.unit.testing.globus.conftest import Brokers, Connect

LIMIT = 20.0
GREETING = b"AMQP\x00\x00\x09\x01"


class Raw:
    """A client that sends any bytes."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.socket = socket.create_connection((broker.host, broker.port), LIMIT)
        self.socket.settimeout(LIMIT)
        self.buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, number: int, *methods: Any) -> None:
        self.socket.sendall(b"".join(frame.Method(number, method).marshal() for method in methods))

    def read(self) -> Any:
        """The next method; messages are skipped."""
        while True:
            used, found = frame.decode_frame(self.buffer)
            if found is not None:
                self.buffer = self.buffer[used:]
                if isinstance(found, frame.Method):
                    return found.method
                continue
            data = self.socket.recv(1 << 16)
            if not data:
                raise EOFError
            self.buffer += data

    def read_to_end(self) -> None:
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            return

    def handshake(self, *, frame_max: int = 4096, heartbeat: int = 0) -> None:
        user, password = self.broker.url.removeprefix("amqp://").partition("@")[0].split(":")
        self.socket.sendall(GREETING)
        assert isinstance(self.read(), spec.Connection.Start)
        self.send(0, spec.Connection.StartOk({}, "PLAIN", f"\0{user}\0{password}"))
        assert isinstance(self.read(), spec.Connection.Tune)
        self.send(0, spec.Connection.TuneOk(0, frame_max, heartbeat), spec.Connection.Open("/"))
        assert isinstance(self.read(), spec.Connection.OpenOk)

    def channel(self) -> None:
        self.send(1, spec.Channel.Open())
        assert isinstance(self.read(), spec.Channel.OpenOk)


def test_wrong_password_and_wrong_host(broker: Broker, connect: Connect) -> None:
    with pytest.raises(ProbableAuthenticationError):
        connect(broker, credentials=pika.PlainCredentials("globus", "wrong"))
    with pytest.raises(ProbableAccessDeniedError, match="vhost"):
        connect(broker, virtual_host="elsewhere")


def test_heartbeats_keep_the_living_and_drop_the_silent(brokers: Brokers, connect: Connect) -> None:
    broker = brokers.start(heartbeat=1)
    living = connect(broker)
    with Raw(broker) as silent:
        silent.handshake(heartbeat=1)
        reader = threading.Thread(target=silent.read_to_end)
        reader.start()
        brokers.until(lambda: not reader.is_alive(), living)
        reader.join()
    assert living.channel().is_open


def method_frame(payload: bytes, number: int = 1, kind: int = 1, end: bytes = b"\xce") -> bytes:
    return struct.pack(">BHI", kind, number, len(payload)) + payload + end


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (method_frame(b"\xff\xff\xff\xff"), 503),  # no such method
        (method_frame(b"\x00"), 501),  # too short
        (method_frame(b"", kind=7), 501),  # no such type
        (method_frame(b"\x00\x3c\x00\x46", end=b"!"), 501),  # no end
        (struct.pack(">BHI", 1, 1, 1 << 30), 501),  # larger than agreed
        (frame.Body(1, b"body").marshal(), 505),  # of no message
        (frame.Header(1, 4, spec.BasicProperties()).marshal(), 505),
        (frame.Header(0, 4, spec.BasicProperties()).marshal(), 505),
        (frame.Method(9, spec.Basic.Get(queue="q")).marshal(), 504),  # a channel that was not opened
        (frame.Method(1, spec.Channel.Open()).marshal(), 504),  # again
        (frame.Method(1, spec.Tx.Select()).marshal(), 540),
        (frame.Method(1, spec.Connection.OpenOk()).marshal(), 540),
        (frame.Method(0, spec.Connection.Open("/")).marshal(), 503),  # again
        (frame.Method(1, spec.Exchange.Declare(exchange="x", type="fanout")).marshal(), 540),
        (frame.Method(1, spec.Basic.Publish()).marshal() + frame.Method(1, spec.Basic.Publish()).marshal(), 505),
        (
            frame.Method(1, spec.Basic.Publish(routing_key="q")).marshal()
            + frame.Header(1, 1, spec.BasicProperties()).marshal()
            + frame.Body(1, b"too long").marshal(),
            505,
        ),
    ],
)
def test_bad_frames_end_the_connection_with_a_reason(
    brokers: Brokers, broker: Broker, connect: Connect, data: bytes, code: int
) -> None:
    brokers.fill(broker, 1)
    with Raw(broker) as raw:
        raw.handshake()
        raw.channel()
        raw.send(1, spec.Basic.Get(queue="q"))
        assert isinstance(raw.read(), spec.Basic.GetOk)
        raw.socket.sendall(data)
        close = raw.read()
        assert isinstance(close, spec.Connection.Close)
        assert close.reply_code == code
        assert brokers.got(connect(broker).channel()) == [("0", True)]  # returned before the client agrees
        raw.send(0, spec.Connection.CloseOk())
        raw.read_to_end()


def test_another_protocol_is_answered_with_the_supported_one(broker: Broker) -> None:
    with Raw(broker) as raw:
        raw.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert raw.socket.recv(8) == GREETING
        raw.read_to_end()


@pytest.mark.parametrize("frame_max", [100, 1 << 20])
def test_a_frame_size_that_was_not_offered_is_refused(broker: Broker, frame_max: int) -> None:
    with Raw(broker) as raw, pytest.raises(AssertionError):
        raw.handshake(frame_max=frame_max)


def test_frames_in_pieces_and_many_at_once(brokers: Brokers, broker: Broker) -> None:
    brokers.fill(broker, 50)
    with Raw(broker) as raw:
        raw.handshake()
        raw.channel()
        data = frame.Method(1, spec.Queue.Declare(queue="p")).marshal()
        for at in range(len(data)):
            raw.socket.sendall(data[at : at + 1])
        assert isinstance(raw.read(), spec.Queue.DeclareOk)
        raw.send(1, *(spec.Queue.Declare(queue=f"p{number}") for number in range(200)))
        assert [raw.read().queue for _ in range(200)] == [f"p{number}" for number in range(200)]


def test_requests_without_end_are_left_unread(brokers: Brokers, broker: Broker) -> None:
    brokers.call(broker.declare, "q")
    for _ in range(20):
        brokers.call(broker.publish, "q", b"x" * 1_000_000)
    with Raw(broker) as raw:
        raw.handshake(frame_max=0)
        raw.channel()
        raw.send(1, *(spec.Basic.Get(queue="q", no_ack=True) for _ in range(20)))
        brokers.until(lambda: brokers.call(broker.waiting, "q") < 20)
        assert brokers.call(broker.waiting, "q") > 0
        found = 0
        while found < 20 * 1_000_000:
            found += len(raw.socket.recv(1 << 20))
    brokers.until(lambda: brokers.call(broker.waiting, "q") == 0)
