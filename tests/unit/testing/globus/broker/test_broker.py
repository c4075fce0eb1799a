"""The broker as clients see it: pika on real sockets."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any

import pytest

pika = pytest.importorskip("pika", reason="comes with the SDK of Globus Compute")

from pika.exceptions import AMQPConnectionError, ChannelClosedByBroker, UnroutableError  # noqa: E402

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus.broker.broker import Broker
    from tests.unit.testing.globus.conftest import Brokers, Connect

LIMIT = 20.0


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_arrives_with_its_headers(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.call(broker.declare, "q")
    brokers.call(broker.declare, "q")
    assert not brokers.call(broker.publish, "nowhere", b"")
    assert brokers.call(broker.publish, "q", b"body", {"name": "value"})
    channel = connect(broker).channel()
    method, properties, body = channel.basic_get("q")
    assert (body, properties.headers, method.redelivered) == (b"body", {"name": "value"}, False)
    assert brokers.call(broker.waiting, "q") == 1
    channel.basic_ack(method.delivery_tag)
    brokers.until(lambda: brokers.call(broker.waiting, "q") == 0)
    assert channel.basic_get("q") == (None, None, None)
    assert brokers.call(broker.waiting, "nowhere") == 0


@pytest.mark.parametrize("frame_max", [4096, 131072])
def test_large_messages_go_in_frames_as_agreed(brokers: Brokers, connect: Connect, frame_max: int) -> None:
    broker = brokers.start(frame_max=frame_max)
    channel = connect(broker, frame_max=131072).channel()
    channel.queue_declare("q")
    bodies = [bytes(range(256)) * 12_000, b"", b"x" * (frame_max - 8)]
    for body in bodies:
        channel.basic_publish(
            "", "q", body, pika.BasicProperties(message_id="m", headers={"deep": {"list": [1, True]}})
        )
    for body in bodies:
        _, properties, came = channel.basic_get("q", auto_ack=True)
        assert came == body
        assert (properties.message_id, properties.headers) == ("m", {"deep": {"list": [1, True]}})


def test_publisher_confirms_and_returns(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    channel = connect(broker).channel()
    channel.confirm_delivery()
    channel.queue_declare("q")
    for number in range(3):
        channel.basic_publish("", "q", str(number).encode(), mandatory=True)
    with pytest.raises(UnroutableError):
        channel.basic_publish("", "nowhere", b"lost", mandatory=True)
    channel.basic_publish("", "nowhere", b"lost")
    assert [body for body, _ in brokers.got(channel)] == ["0", "1", "2"]


def test_exchanges_route_by_key(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    connection = connect(broker)
    channel = connection.channel()
    channel.exchange_declare("x", "direct")
    channel.exchange_declare("x", passive=True)
    for queue, key in (("one", "a"), ("two", "a"), ("two", "b"), ("two", "b")):
        channel.queue_declare(queue)
        channel.queue_bind(queue, "x", key)
    for key in "abc":
        channel.basic_publish("x", key, key.encode())
    assert [body for body, _ in brokers.got(channel, "one")] == ["a"]
    assert [body for body, _ in brokers.got(channel, "two")] == ["a", "b"]
    channel.queue_unbind("one", "x", "a")
    channel.queue_delete("two")
    channel.basic_publish("x", "a", b"nobody")
    assert brokers.got(channel, "one") == []
    channel.exchange_delete("x")
    channel.basic_publish("x", "a", b"no exchange")
    with pytest.raises(ChannelClosedByBroker, match="no exchange"):
        connection.channel().exchange_declare("x", passive=True)
    brokers.until(lambda: channel.is_closed, connection)


# --- acknowledgements and order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["channel", "connection", "drop"])
def test_what_is_unacknowledged_goes_back_in_order(
    brokers: Brokers, broker: Broker, connect: Connect, end: str
) -> None:
    brokers.fill(broker, 6)
    first = connect(broker)
    channel, other = first.channel(), first.channel()
    for turn in range(4):  # two channels of one connection, in turns
        (channel, other)[turn % 2].basic_get("q")
    channel.basic_ack(1)  # "0"
    brokers.until(lambda: brokers.call(broker.waiting, "q") == 5)
    if end == "channel":
        channel.close()
        other.close()
    elif end == "connection":
        first.close()
    else:
        assert brokers.call(broker.drop_connections) == 1
    again = connect(broker).channel()
    expected = [("1", True), ("2", True), ("3", True), ("4", False), ("5", False)]
    assert brokers.got(again) == expected


def test_ack_nack_and_reject(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 8)
    channel = connect(broker).channel()
    assert len(brokers.got(channel)) == 8
    channel.basic_ack(2, multiple=True)  # 0, 1
    channel.basic_nack(3, requeue=False)  # 2
    channel.basic_reject(4, requeue=False)  # 3
    channel.basic_nack(6, multiple=True)  # 4, 5
    channel.basic_reject(8)  # 7
    assert brokers.got(channel) == [("4", True), ("5", True), ("7", True)]
    channel.basic_ack(0, multiple=True)
    channel.basic_ack(0, multiple=True)
    brokers.until(lambda: brokers.call(broker.waiting, "q") == 0)


def test_recover_returns_all(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 2)
    channel = connect(broker).channel()
    brokers.got(channel)
    channel.basic_recover(requeue=True)
    assert brokers.got(channel) == [("0", True), ("1", True)]


def test_an_unknown_tag_closes_the_channel(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 1)
    connection = connect(broker)
    channel = connection.channel()
    channel.basic_get("q")
    channel.basic_ack(7, multiple=True)
    brokers.until(lambda: channel.is_closed, connection)
    assert brokers.got(connection.channel()) == [("0", True)]


# --- consumers --------------------------------------------------------------------------------------------------------


def test_consumers_take_turns_and_end(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.call(broker.declare, "q")
    connection = connect(broker)
    channel = connection.channel()
    seen: dict[str, list[bytes]] = {"a": [], "b": []}
    for tag in seen:
        channel.basic_consume(
            "q", lambda _, method, __, body: seen[method.consumer_tag].append(body), True, consumer_tag=tag
        )
    brokers.fill(broker, 4)
    brokers.until(lambda: sum(map(len, seen.values())) == 4, connection)
    assert seen == {"a": [b"0", b"2"], "b": [b"1", b"3"]}
    channel.basic_cancel("a")
    brokers.fill(broker, 2)
    brokers.until(lambda: len(seen["b"]) == 4, connection)
    assert brokers.call(broker.waiting, "q") == 0


@pytest.mark.parametrize("shared", [False, True])
def test_prefetch_is_honoured(brokers: Brokers, broker: Broker, connect: Connect, *, shared: bool) -> None:
    brokers.fill(broker, 10)
    connection = connect(broker)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=2, global_qos=shared)
    tags: list[int] = []
    for _ in range(2):
        channel.basic_consume("q", lambda _, method, __, ___: tags.append(method.delivery_tag))
    most = 2 if shared else 4
    brokers.until(lambda: len(tags) == most, connection)
    connection.process_data_events(0.05)
    assert len(tags) == most
    channel.basic_ack(tags[0])
    brokers.until(lambda: len(tags) == most + 1, connection)
    channel.basic_qos(prefetch_count=0, global_qos=True)
    if shared:
        brokers.until(lambda: len(tags) == 10, connection)


def test_a_shared_prefetch_holds_for_all_queues(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    connection = connect(broker)
    channel = connection.channel()
    channel.basic_qos(prefetch_count=1, global_qos=True)
    came: list[tuple[str, int]] = []
    for queue in ("p", "q"):
        brokers.call(broker.declare, queue)
        brokers.call(broker.publish, queue, b"")
        channel.basic_consume(queue, lambda _, method, __, ___: came.append((method.routing_key, method.delivery_tag)))
    brokers.until(lambda: came == [("p", 1)], connection)
    assert brokers.call(broker.waiting, "q") == 1
    channel.basic_ack(1)
    brokers.until(lambda: came == [("p", 1), ("q", 2)], connection)


def test_a_deleted_queue_cancels_its_consumers(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 1)
    connection = connect(broker)
    channel, other = connection.channel(), connection.channel()
    cancelled: list[Any] = []
    channel.add_on_cancel_callback(cancelled.append)
    channel.basic_consume("q", lambda *_: None)
    with pytest.raises(ChannelClosedByBroker, match="in use"):
        other.queue_delete("q", if_unused=True)
    connection.channel().queue_delete("q")
    brokers.until(lambda: bool(cancelled), connection)
    assert connection.channel().queue_delete("q").method.message_count == 0


def test_purge_and_counts(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 3)
    channel = connect(broker).channel()
    channel.basic_get("q")
    assert channel.queue_declare("q", passive=True).method.message_count == 2
    assert channel.queue_purge("q").method.message_count == 2
    assert brokers.call(broker.waiting, "q") == 1


def test_exclusive_and_temporary_queues(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    mine, other = connect(broker), connect(broker)
    channel = mine.channel()
    name = channel.queue_declare("", exclusive=True).method.queue
    with pytest.raises(ChannelClosedByBroker, match="exclusive"):
        other.channel().basic_get(name)
    channel.queue_declare("temporary", auto_delete=True)
    channel.basic_consume("temporary", lambda *_: None, exclusive=True, consumer_tag="only")
    with pytest.raises(ChannelClosedByBroker, match="exclusive use"):
        other.channel().basic_consume("temporary", lambda *_: None)
    channel.basic_cancel("only")
    with pytest.raises(ChannelClosedByBroker, match="no queue"):
        other.channel().queue_declare("temporary", passive=True)
    mine.close()
    assert not brokers.call(broker.publish, name, b"")


@pytest.mark.parametrize("method", ["queue_declare", "basic_consume", "basic_get", "queue_purge"])
def test_a_missing_queue_closes_the_channel_only(broker: Broker, connect: Connect, method: str) -> None:
    connection = connect(broker)
    extra: dict[str, Any] = {"queue_declare": {"passive": True}, "basic_consume": {"on_message_callback": print}}
    with pytest.raises(ChannelClosedByBroker) as caught:
        getattr(connection.channel(), method)("nowhere" * 30, **extra.get(method, {}))
    assert caught.value.reply_code == 404
    assert connection.channel().is_open


def test_a_slow_consumer_does_not_fill_the_memory(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.call(broker.declare, "q")
    slow, quick = connect(broker), connect(broker)
    bodies: list[bytes] = []
    slow.channel().basic_consume("q", lambda _, __, ___, body: bodies.append(body), auto_ack=True)
    for number in range(60):
        brokers.call(broker.publish, "q", bytes([number]) * 1_000_000)

    def unwritten() -> int:
        return sum(connection._transport.get_write_buffer_size() for connection in broker._connections)

    assert brokers.call(unwritten) < 2_000_000
    assert brokers.call(broker.waiting, "q") > 30
    channel = quick.channel()  # nobody else has to wait
    assert channel.basic_get("q")[0] is not None
    channel.close()
    brokers.until(lambda: len(bodies) == 60, slow)
    numbers = [body[0] for body in bodies]
    assert sorted(numbers) == list(range(60))


# --- faults -----------------------------------------------------------------------------------------------------------


def test_down_and_up_again(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 2)
    port = broker.port
    connection = connect(broker)
    connection.channel().basic_get("q")
    brokers.call(broker.set_down, down=True)
    brokers.call(broker.set_down, down=True)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((broker.host, port), LIMIT)
    with pytest.raises(AMQPConnectionError):
        connection.process_data_events(LIMIT)
    assert brokers.call(broker.waiting, "q") == 2
    assert brokers.call(broker.publish, "q", b"2")
    brokers.call(broker.set_down, down=False)
    brokers.call(broker.set_down, down=False)
    assert broker.port == port
    assert brokers.got(connect(broker).channel()) == [("0", True), ("1", False), ("2", False)]
    assert brokers.call(broker.drop_connections) == 1


def test_old_messages_can_be_forgotten(brokers: Brokers, broker: Broker, connect: Connect) -> None:
    brokers.fill(broker, 3)
    channel = connect(broker).channel()
    channel.basic_get("q")
    assert brokers.call(broker.expire, 3600) == 0
    assert brokers.call(broker.expire, -1) == 2
    assert brokers.call(broker.waiting, "q") == 1  # a client has it
    channel.basic_nack(1)
    brokers.until(lambda: brokers.call(broker.expire, -1) == 1)
    assert brokers.call(broker.waiting, "q") == 0


def test_a_port_in_use_is_refused(brokers: Brokers, broker: Broker) -> None:
    with pytest.raises(OSError, match="in use"):
        brokers.start(port=broker.port)


def test_stop_ends_connections_and_can_be_repeated(brokers: Brokers, connect: Connect) -> None:
    broker = brokers.start()
    connection = connect(broker)
    with socket.create_connection((broker.host, broker.port), LIMIT) as raw:
        brokers.stop(broker)
        raw.settimeout(LIMIT)
        with contextlib.suppress(ConnectionResetError):
            assert raw.recv(1) == b""
    with pytest.raises(AMQPConnectionError):
        connection.process_data_events(LIMIT)
