"""Any bytes and any order of frames: the broker answers or hangs up, never fails, and keeps its messages."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("pika", reason="comes with the SDK of Globus Compute")

from pika import frame, spec

from diaspora_parsl.testing.globus.broker.amqp import Connection, Terms
from diaspora_parsl.testing.globus.broker.queues import Message, Queues

HEADER = frame.Header(0, 1, spec.BasicProperties()).marshal()[7:-1]
TERMS = Terms(user="user", password="pw", frame_max=4096, heartbeat=0)  # noqa: S106 - of nothing
HANDSHAKE = b"AMQP\x00\x00\x09\x01" + b"".join(
    frame.Method(0, method).marshal()
    for method in (
        spec.Connection.StartOk({}, "PLAIN", "\0user\0pw"),
        spec.Connection.TuneOk(0, 4096, 0),
        spec.Connection.Open("/"),
    )
)

channels = st.integers(1, 2)
names = st.sampled_from(["q", "p", ""])
tags = st.integers(0, 4)
flags = st.booleans()

methods: st.SearchStrategy[Any] = st.one_of(
    st.just(spec.Channel.Open()),
    st.builds(spec.Channel.Close, st.just(200), st.just(""), st.just(0), st.just(0)),
    st.just(spec.Channel.CloseOk()),
    st.builds(spec.Channel.Flow, flags),
    st.builds(spec.Queue.Declare, queue=names, passive=flags, exclusive=flags, auto_delete=flags, nowait=flags),
    st.builds(spec.Queue.Delete, queue=names.filter(lambda name: name != "q"), if_empty=flags),
    st.builds(spec.Queue.Bind, queue=names, exchange=names, routing_key=names),
    st.builds(spec.Queue.Unbind, queue=names, exchange=names, routing_key=names),
    st.builds(spec.Exchange.Declare, exchange=names, passive=flags),
    st.builds(spec.Exchange.Delete, exchange=names, if_unused=flags),
    st.builds(spec.Basic.Qos, prefetch_count=st.integers(0, 2), global_qos=flags),
    st.builds(spec.Basic.Consume, queue=names, consumer_tag=names, exclusive=flags, nowait=flags),
    st.builds(spec.Basic.Cancel, consumer_tag=names, nowait=flags),
    st.builds(spec.Basic.Get, queue=names),
    st.builds(spec.Basic.Nack, delivery_tag=tags, multiple=flags),
    st.builds(spec.Basic.Reject, delivery_tag=tags),
    st.builds(spec.Basic.Recover, requeue=flags),
    st.builds(spec.Basic.Publish, exchange=names, routing_key=names, mandatory=flags),
    st.just(spec.Confirm.Select()),
    st.just(spec.Tx.Select()),
)
frames = st.one_of(
    st.builds(lambda number, method: frame.Method(number, method).marshal(), channels, methods),
    st.builds(lambda number, size: frame.Header(number, size, spec.BasicProperties()).marshal(), channels, tags),
    st.builds(lambda number, body: frame.Body(number, body).marshal(), channels, st.binary(max_size=4)),
    st.just(frame.Heartbeat().marshal()),
)


class Pipe(asyncio.Transport):
    """Keeps the written bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        self.written += bytes(data)

    def is_closing(self) -> bool:
        return self.ended

    def close(self) -> None:
        self.ended = True

    abort = close

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever kept back."""

    def get_write_buffer_size(self) -> int:
        return 0


async def feed(data: bytes, cuts: list[int], *, all_stay: bool = True) -> None:
    """Send the broker bytes in pieces: it answers with frames, and keeps messages without a consumer."""
    queues = Queues()
    queues.declare("q")
    for number in range(3):
        queues.publish(Message(header=HEADER, body=str(number).encode(), routing_key="q"), 0.0)
    pipe = Pipe()
    ended: list[Connection] = []
    connection = Connection(queues, TERMS, lambda _: None, ended.append)
    connection.connection_made(pipe)
    at = 0
    for cut in [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]:
        if not pipe.ended:
            connection.data_received(data[at:cut])
        at = cut
    connection.connection_lost(None)
    assert ended == [connection]
    queue = queues.find("q")
    assert (queue.unacknowledged, len(queue.consumers)) == (0, 0)
    bodies = [item.message.body for item in iter(queue.take, None)]
    stayed = [body for body in bodies if body in (b"0", b"1", b"2")]
    assert stayed == sorted(stayed)
    assert len(stayed) == 3 or not all_stay
    rest = pipe.written
    while rest:
        used, answer = frame.decode_frame(rest)
        assert answer is not None
        rest = rest[used:]


@given(data=st.lists(frames, max_size=25).map(b"".join), cuts=st.lists(st.integers(0, 1 << 16), max_size=3))
@settings(max_examples=400, deadline=None)
def test_frames_in_any_order(data: bytes, cuts: list[int]) -> None:
    opened = frame.Method(1, spec.Channel.Open()).marshal()
    asyncio.run(feed(HANDSHAKE + opened + data, cuts))


@given(noise=st.binary(max_size=200), cuts=st.lists(st.integers(0, 1 << 16), max_size=3), greeted=st.booleans())
@settings(max_examples=300, deadline=None)
def test_any_bytes(noise: bytes, cuts: list[int], *, greeted: bool) -> None:
    asyncio.run(feed(HANDSHAKE + noise if greeted else noise, cuts))


@given(data=st.lists(frames, min_size=1, max_size=5).map(b"".join), at=st.integers(0, 1 << 16), bit=st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_one_wrong_bit(data: bytes, at: int, bit: int) -> None:
    changed = bytearray(data)
    changed[at % len(data)] ^= 1 << bit
    opened = frame.Method(1, spec.Channel.Open()).marshal()
    asyncio.run(
        feed(HANDSHAKE + opened + bytes(changed), [], all_stay=False)
    )  # it may well ask for fewer acknowledgements
