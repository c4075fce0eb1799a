from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.bridge.bridge import Bridge
from diaspora_parsl.fabric.bridge.config import BridgeConfig, FabricPlace, LinkConfig
from diaspora_parsl.fabric.bridge.cursor_store import Cursor
from diaspora_parsl.fabric.bridge.link import Link
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.transports import memory
from diaspora_parsl.fabric.transports.memory import MemoryFabric


class Away(MemoryFabric):
    """A log that can be away, and notes how it was written."""

    is_away = False
    hold: threading.Event | None = None

    def __init__(self, name: str, maxlen: int = 100_000) -> None:
        super().__init__(name, maxlen)
        self.writes: list[list[str]] = []
        self.opened = 0

    def publish(self, events: Sequence[ev.Event]) -> None:
        self.writes.append([event.id for event in events])
        if self.hold is not None:
            self.hold.wait(20)
        if self.is_away:
            raise FabricUnavailableError("redis://:***@cloud:6379 cannot be reached")
        super().publish(events)

    def close(self) -> None:
        """The test goes on with it."""


class Two:
    """Two logs, and bridges from one to the other."""

    def __init__(self, folder: Path) -> None:
        self.names = {site: secrets.token_hex(6) for site in ("anl", "cloud")}
        self.fabrics = {site: Away(name) for site, name in self.names.items()}
        self.config = BridgeConfig(
            home="anl",
            state=folder / "state",
            fabrics={site: FabricPlace(url=f"memory://{name}") for site, name in self.names.items()},
            links=(LinkConfig(from_site="anl", to_site="cloud"), LinkConfig(from_site="cloud", to_site="anl")),
        )
        self._builder = EventBuilder("/anl/pool/run")

    def opener(self, place: FabricPlace) -> Fabric:
        (fabric,) = (fabric for site, fabric in self.fabrics.items() if place.url.endswith(self.names[site]))
        fabric.opened += 1
        return fabric

    def bridge(self) -> Bridge:
        return Bridge(self.config, self.opener)

    def link(self, **options: int) -> Link:
        config = LinkConfig(from_site="anl", to_site="cloud", **options)  # type: ignore[arg-type]
        cursor = Cursor(self.config.state.parent / "cursor.json")
        return Link(config, lambda: self.fabrics["anl"], lambda: self.fabrics["cloud"], cursor)

    def emit(self, count: int, site: str = "anl") -> list[str]:
        return self.tell_to(MemoryFabric(self.names[site]), count)

    def tell_to(self, fabric: Fabric, count: int) -> list[str]:
        payload = ev.TaskLate(task=1, attempt=1, endpoint="e", site="s")
        events = [self._builder.wrap(payload, "1", "k", time.time()) for _ in range(count)]
        fabric.publish(events)
        return [event.id for event in events]

    def read(self, site: str, topic: str = ev.TOPIC_TASK) -> list[ev.Event]:
        return MemoryFabric(self.names[site]).subscribe((topic,), "earliest").read(0)

    def ids(self, site: str) -> list[str]:
        return [event.id for event in self.read(site)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Two]:
    pair = Two(tmp_path)
    yield pair
    for name in pair.names.values():
        memory.forget(name)


def until(condition: Callable[[], object], limit: float = 20.0) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_both_directions_and_no_way_back(two: Two) -> None:
    up, down = two.emit(50), two.emit(50, "cloud")
    with two.bridge() as bridge:
        until(lambda: bridge.is_idle and len(two.ids("cloud")) == 100 == len(two.ids("anl")))
    assert two.ids("cloud") == down + up
    assert two.ids("anl") == up + down
    stats = bridge.stats()[0]
    assert (stats.read >= 50, stats.forwarded >= 50, stats.waiting) == (True, True, 0)


def test_a_bridge_goes_on_where_the_last_one_was(two: Two) -> None:
    first = two.emit(10)
    with two.bridge():
        until(lambda: two.ids("cloud") == first)
    second = two.emit(10)
    writes = two.fabrics["cloud"].writes
    writes.clear()
    with two.bridge():
        until(lambda: two.ids("cloud") == first + second)
    assert not {*first} & {one for write in writes for one in write}


def test_an_outage_is_told_and_nothing_is_lost(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    cloud = two.fabrics["cloud"]
    cloud.is_away = True
    reported = two.emit(10)
    with two.bridge() as bridge:
        until(lambda: [event for event in two.read("anl", ev.TOPIC_ENDPOINT) if "link.down" in event.type])
        assert not bridge.stats()[0].is_up
        assert not bridge.is_idle
        reported += two.emit(10)
        cloud.is_away = False
        until(lambda: two.ids("cloud") == reported)
        until(lambda: any("link.up" in event.type and event.subject == "anl-to-cloud"
                          for event in two.read("anl", ev.TOPIC_ENDPOINT)))  # fmt: skip
        until(lambda: any("link.status" in event.type for event in two.read("anl", ev.TOPIC_RESOURCE)))
    (down,) = (event.payload() for event in two.read("anl", ev.TOPIC_ENDPOINT) if "link.down" in event.type)
    assert isinstance(down, ev.LinkDown)
    assert (down.bridge, down.from_site, down.to_site) == ("anl", "anl", "cloud")
    assert "cannot be reached" in down.reason
    assert caplog.text.count("is down") == 1


def test_the_same_batch_is_written_again(two: Two) -> None:
    link, cloud = two.link(), two.fabrics["cloud"]
    first = two.emit(3)
    link.fill(0)
    cloud.is_away = True
    for _ in range(3):
        with pytest.raises(FabricUnavailableError):
            link.drain(0)
        two.emit(3)
        link.fill(0)
    cloud.is_away = False
    link.drain(0)
    assert cloud.writes == [first] * 4
    link.close()


def test_reading_stops_while_the_destination_is_away(two: Two) -> None:
    link = two.link(read_ahead=10)
    for _ in range(10):
        two.emit(4)
        link.fill(0)
    assert link.stats().waiting == 12
    while link.drain(0):
        pass
    assert link.fill(0) == 28
    link.close()


def test_reading_stops_when_events_are_large(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diaspora_parsl.fabric.bridge.link._MOST_BYTES", 100)
    link = two.link()
    two.emit(10)
    assert link.fill(0) == 10
    two.emit(10)
    assert link.fill(0) == 0
    assert link.drain(0) == 10
    assert link.fill(0) == 10
    link.close()


def test_a_fabric_that_stays_away_is_opened_anew(two: Two) -> None:
    now, made = [0.0], []

    def opener() -> Fabric:
        made.append(1)
        return two.fabrics["cloud"]

    cursor = Cursor(two.config.state.parent / "cursor.json")
    link = Link(two.config.links[0], lambda: two.fabrics["anl"], opener, cursor, lambda: now[0])
    two.emit(1)
    link.fill(0)
    two.fabrics["cloud"].is_away = True
    for second in range(13):
        now[0] = float(second)
        with pytest.raises(FabricUnavailableError):
            link.drain(0)
    assert len(made) == 3
    link.close()


def test_what_was_trimmed_is_counted(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    two.fabrics["anl"]._log.topic(ev.TOPIC_TASK).events = type(two.fabrics["anl"]._log.topic("x").events)(maxlen=5)
    two.emit(1)
    with two.bridge():
        until(lambda: len(two.ids("cloud")) == 1)
    kept = two.emit(20)[-5:]
    with two.bridge() as bridge:
        until(lambda: two.ids("cloud")[1:] == kept)
        assert bridge.stats()[0].resyncs == 1
        until(lambda: "events were trimmed before they were read" in caplog.text)


def test_a_second_bridge_is_refused(two: Two) -> None:
    with two.bridge(), pytest.raises(ConfigurationError, match="Another bridge works with the state"):
        two.bridge()
    two.bridge().close()


def test_a_cursor_of_another_transport_is_a_mistake_to_be_told(two: Two) -> None:
    two.config.state.mkdir()
    Cursor(two.config.state / "anl-to-cloud.json").save({ev.TOPIC_TASK: "17-0"})
    with two.bridge() as bridge:
        until(lambda: bridge.error)
        assert "anl-to-cloud.json was kept for another kind of fabric" in str(bridge.error)


def test_a_damaged_cursor_leaves_the_state_free(two: Two) -> None:
    two.config.state.mkdir()
    (two.config.state / "anl-to-cloud.json").write_text("x", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="Remove it"):
            two.bridge()


def test_the_end_is_bounded_though_a_fabric_hangs(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    cloud = two.fabrics["cloud"]
    cloud.hold = threading.Event()
    two.emit(5)
    bridge = two.bridge()
    until(lambda: cloud.writes)
    began = time.monotonic()
    bridge.close(timeout=0.3)
    assert time.monotonic() - began < 10
    assert "did not end within" in caplog.text
    with pytest.raises(ConfigurationError, match="Another bridge"):
        two.bridge()
    cloud.hold.set()
    for thread in bridge._threads:
        thread.join(10)
    bridge._publisher.close()
    bridge._folder.close()


def test_what_was_read_before_the_end_is_written(two: Two) -> None:
    cloud = two.fabrics["cloud"]
    cloud.hold = threading.Event()
    reported = two.emit(5)
    bridge = two.bridge()
    until(lambda: cloud.writes)
    reported += two.emit(5)
    until(lambda: bridge.stats()[0].waiting >= 10)
    ending = threading.Thread(target=bridge.close)
    ending.start()
    until(bridge._ended.is_set)
    cloud.hold.set()
    ending.join(20)
    assert two.ids("cloud") == reported
    assert bridge.stats()[0].waiting == 0


def test_an_end_does_not_wait_for_a_destination_that_is_away(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    cloud = two.fabrics["cloud"]
    cloud.hold = threading.Event()
    reported = two.emit(5)
    bridge = two.bridge()
    until(lambda: cloud.writes)
    reported += two.emit(5)
    until(lambda: bridge.stats()[0].waiting >= 10)
    ending = threading.Thread(target=bridge.close)
    ending.start()
    until(bridge._ended.is_set)
    cloud.is_away = True
    cloud.hold.set()
    ending.join(20)
    assert "did not end within" not in caplog.text
    assert two.ids("cloud") == []
    cloud.is_away = False
    with two.bridge():
        until(lambda: two.ids("cloud") == reported)


def test_a_transport_that_raises_anything_is_tried_again(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    failures = iter([RuntimeError("a defect"), OSError("a socket")])
    publish = two.fabrics["cloud"].publish

    def fail_first(events: Sequence[ev.Event]) -> None:
        for error in failures:
            raise error
        publish(events)

    monkeypatch.setattr(two.fabrics["cloud"], "publish", fail_first)
    reported = two.emit(5)
    with two.bridge():
        until(lambda: two.ids("cloud") == reported)


def test_from_what_comes_now_on(two: Two) -> None:
    two.emit(5)
    config = LinkConfig(from_site="anl", to_site="cloud", start="latest")
    cursor = Cursor(two.config.state.parent / "cursor.json")
    link = Link(config, lambda: two.fabrics["anl"], lambda: two.fabrics["cloud"], cursor)
    link.fill(0)
    reported = two.emit(2)
    link.fill(0)
    while link.drain(0):
        pass
    assert two.ids("cloud") == reported
    link.close()


def test_from_one_transport_to_another_and_back(two: Two, tmp_path: Path) -> None:
    server = open_fabric("embedded", tmp_path / "server")
    try:
        fabrics = {"anl": FabricPlace(url=f"memory://{two.names['anl']}"), "cloud": FabricPlace(url=server.url)}
        reported = two.emit(2000)
        there = two.tell_to(server, 2000)
        config = BridgeConfig(home="anl", state=tmp_path / "state", fabrics=fabrics, links=two.config.links)
        with Bridge(config) as bridge:
            until(lambda: bridge.is_idle and len(two.ids("anl")) == 4000)
        reader = server.subscribe((ev.TOPIC_TASK,), "earliest")
        arrived: list[str] = []
        while batch := reader.read(0.1):
            arrived += [event.id for event in batch]
        assert arrived == there + reported
        assert two.ids("anl") == reported + there
    finally:
        server.close()
