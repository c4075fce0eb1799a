"""What Mofka does that a transport must bear, by the double of its interface."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import TOPIC_RESOURCE, TOPIC_TASK, Event
from diaspora_parsl.fabric.base import Fabric, Subscription, open_fabric
from diaspora_parsl.fabric.consumer import Consumer
from diaspora_parsl.fabric.publisher import Publisher
from diaspora_parsl.testing.services import fake_diaspora_stream
from diaspora_parsl.testing.services.fake_diaspora_stream import Driver, MofkaServer


@pytest.fixture
def mofka(tmp_path: Path) -> Iterator[MofkaServer]:
    server = MofkaServer(tmp_path)
    server.start()
    with fake_diaspora_stream.installed():
        yield server


@pytest.fixture
def fabric(mofka: MofkaServer) -> Iterator[Fabric]:
    opened = open_fabric(f"diaspora+mofka://{mofka.group_file}?timeout=0.2")
    yield opened
    opened.close()


def read_until(reader: Subscription, n: int) -> list[Event]:
    got: list[Event] = []
    deadline = time.monotonic() + 10
    while len(got) < n and time.monotonic() < deadline:
        got += reader.read(0.05)
    return got


def test_without_the_package_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "diaspora_stream", None)
    monkeypatch.delitem(sys.modules, "diaspora_stream.api", raising=False)
    with pytest.raises(ConfigurationError, match=r"not on PyPI.*spack install diaspora-stream-api"):
        open_fabric(f"diaspora+mofka://{tmp_path}/group_file")


@pytest.mark.parametrize("content", [None, "", '{"members":[{"address":"ofi+tcp://127.0.0.1:1"}]}', "{}"])
def test_a_group_file_that_names_no_server(content: str | None, fabric: Fabric, mofka: MofkaServer, tools: Any) -> None:
    mofka.group_file.unlink()
    if content is not None:
        mofka.group_file.write_text(content, encoding="utf-8")
    started = time.monotonic()
    with pytest.raises(FabricUnavailableError):
        fabric.publish(tools.events(1))
    assert time.monotonic() - started < 5


def test_more_than_a_batch(fabric: Fabric, tools: Any) -> None:
    reader = fabric.subscribe([TOPIC_TASK, TOPIC_RESOURCE], "earliest")
    states, samples = tools.events(2500), tools.events(1001, is_state=False)
    fabric.publish(states + samples)
    got = read_until(reader, 3501)
    assert [event for event in got if event.is_state_change] == states
    assert [event for event in got if not event.is_state_change] == samples


def test_a_server_that_is_gone_is_noticed_by_a_quiet_reader_too(fabric: Fabric, mofka: MofkaServer, tools: Any) -> None:
    reader = fabric.subscribe([TOPIC_TASK])
    assert reader.read(0.05) == []
    mofka.kill()
    started = time.monotonic()
    with pytest.raises(FabricUnavailableError):
        reader.read(30)
    assert time.monotonic() - started < 10
    with pytest.raises(FabricUnavailableError):
        fabric.publish(tools.events(1))
    mofka.start()
    new = tools.event()
    fabric.publish([new])
    assert read_until(reader, 1) == [new]


def test_a_quiet_server_is_not_taken_for_one_that_is_gone(fabric: Fabric) -> None:
    reader = fabric.subscribe([TOPIC_TASK])
    assert reader.read(0.7) == []  # longer than the time-out
    assert reader.resyncs == 0


def test_cursors_that_the_server_lost_bring_nothing_twice(fabric: Fabric, mofka: MofkaServer, tools: Any) -> None:
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    before, after = tools.events(50), tools.events(50)
    fabric.publish(before)
    assert read_until(reader, 50) == before
    mofka.kill()
    mofka.start()
    with pytest.raises(FabricUnavailableError):
        fabric.publish(after)  # the driver of before cannot reach it
    fabric.publish(after)
    assert read_until(reader, 50) == after
    assert reader.resyncs == 0


def test_topics_that_the_server_lost_are_made_again(fabric: Fabric, mofka: MofkaServer, tools: Any) -> None:
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    fabric.publish(tools.events(50))
    read_until(reader, 50)
    mofka.kill()
    mofka.start(forgets_topics=True)
    with pytest.raises(FabricUnavailableError):
        fabric.publish(tools.events(1))
    new = tools.events(3)
    fabric.publish(new)
    assert read_until(reader, 3) == new
    assert reader.resyncs == 1


def test_a_cursor_goes_on_where_its_consumer_was(fabric: Fabric, mofka: MofkaServer, tools: Any) -> None:
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    for _ in range(3):
        fabric.publish(tools.events(10))
        read_until(reader, 10)
    saved = dict(reader.position)
    reader.close()
    (acknowledged,) = mofka.cursors.values()
    assert 20 <= acknowledged < 31  # the last one is not, until there is another
    new = tools.events(5)
    fabric.publish(new)
    assert read_until(fabric.subscribe([TOPIC_TASK], saved), 5) == new


def test_a_cursor_that_another_reader_went_on_with(fabric: Fabric, tools: Any) -> None:
    first = fabric.subscribe([TOPIC_TASK], "earliest")
    sent = tools.events(40)
    fabric.publish(sent[:10])
    read_until(first, 10)
    saved = dict(first.position)
    first.close()
    ahead = fabric.subscribe([TOPIC_TASK], saved)
    for start in (10, 20, 30):
        fabric.publish(sent[start : start + 10])
        read_until(ahead, 10)
    ahead.close()
    late = fabric.subscribe([TOPIC_TASK], saved)
    assert read_until(late, 30) == sent[10:]
    assert late.resyncs == 0


def test_what_is_no_event_is_counted_and_skipped(fabric: Fabric, mofka: MofkaServer, tools: Any) -> None:
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    driver = Driver(backend="mofka", options={"group_file": str(mofka.group_file)})
    producer = driver.open_topic(TOPIC_TASK).producer(batch_size=10) if driver.topic_exists(TOPIC_TASK) else None
    assert producer is None  # nothing was asked of the server yet
    good = tools.event()
    fabric.publish([good])
    producer = driver.open_topic(TOPIC_TASK).producer(batch_size=10)
    for data in (b"", b"nonsense", b"\xff"):
        producer.push({"type": "other"}, data)
    assert producer.flush().wait(timeout_ms=100)
    new = tools.event()
    fabric.publish([new])
    assert read_until(reader, 2) == [good, new]
    assert reader.malformed == 3


def test_an_event_that_the_server_cannot_give_is_counted_and_told_as_a_gap(
    fabric: Fabric, mofka: MofkaServer, tools: Any
) -> None:
    reader = fabric.subscribe([TOPIC_TASK], "earliest")
    sent = tools.events(5)
    fabric.publish(sent)
    mofka.damaged.add((TOPIC_TASK, 2))
    assert read_until(reader, 4) == sent[:2] + sent[3:]
    assert (reader.malformed, reader.resyncs) == (1, 1)


def test_the_outbox_sends_what_a_killed_server_lost(mofka: MofkaServer, tools: Any, tmp_path: Path) -> None:
    fabric = open_fabric(f"diaspora+mofka://{mofka.group_file}?timeout=0.2")
    got: list[Event] = []
    reader = Consumer(fabric, [TOPIC_TASK], got.extend, position="earliest", wait=0.05)
    publisher = Publisher(fabric, source="/s", outbox_path=tmp_path / "outbox")
    for n in range(300):
        publisher.emit(tools.state(n), "x")
        if n % 100 == 50:
            mofka.kill()
            tools.wait_for(lambda: not publisher.is_connected)
            mofka.start()
            tools.wait_for(lambda: publisher.is_connected)
    tools.wait_for(lambda: len(got) >= 300)
    publisher.close()
    reader.close()
    fabric.close()
    assert [event.payload().task for event in got] == list(range(300))  # type: ignore[union-attr]  # all TaskLate


def test_closing_does_not_wait_for_a_server_that_is_gone(mofka: MofkaServer, tools: Any) -> None:
    fabric = open_fabric(f"diaspora+mofka://{mofka.group_file}?timeout=0.2")
    fabric.publish(tools.events(1))
    mofka.kill()
    started = time.monotonic()
    fabric.close()
    assert time.monotonic() - started < 5


def test_the_double_has_the_traps_of_the_real_one(mofka: MofkaServer) -> None:
    driver = Driver(backend="mofka", options={"group_file": str(mofka.group_file)})
    driver.create_topic("t", options={"config": {"partition": {"path": "/data"}}})
    topic = driver.open_topic("t")
    producer, consumer = topic.producer(batch_size=2), topic.consumer("c")
    futures = [producer.push({"n": n}) for n in range(2)]
    assert futures[1].wait(timeout_ms=1) is None  # a full batch waits for the next push
    producer.push({"n": 2})
    assert [future.wait(timeout_ms=1) for future in futures] == [0, 1]
    assert producer.flush().wait(timeout_ms=1) is True
    abandoned, taken = consumer.pull(), consumer.pull()
    assert taken.wait(timeout_ms=1).metadata == {"n": 1}  # the abandoned one has swallowed the first
    taken.wait(timeout_ms=1).acknowledge()
    assert abandoned.completed()
    started = time.monotonic()
    assert topic.consumer("c").pull().wait(timeout_ms=1).event_id == 2
    assert topic.consumer("none").pull().wait(timeout_ms=1).event_id == 0
    mofka.kill()
    assert consumer.pull().wait(timeout_ms=2148) is None  # overflows
    assert time.monotonic() - started < 2
    assert producer.flush().wait(timeout_ms=1) is None
    with pytest.raises(fake_diaspora_stream.Exception, match="with the GIL"):
        [producer.push({"n": n}) for n in range(10)]
