"""One direction of a bridge, and a ring of three, on a virtual clock, with faults and deaths at any point."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from diaspora_parsl import events as ev
from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.fabric.base import Position
from diaspora_parsl.fabric.bridge import link as link_module
from diaspora_parsl.fabric.bridge.config import LinkConfig
from diaspora_parsl.fabric.bridge.cursor_store import Cursor
from diaspora_parsl.fabric.bridge.link import Link
from diaspora_parsl.fabric.dedup import Deduplicator
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.transports import memory
from diaspora_parsl.fabric.transports.memory import MemoryFabric, MemorySubscription

KEYS = ("alpha", "beta", "gamma")
#: Links between three fabrics, by their numbers.
CHAIN = ((0, 1), (1, 0), (1, 2), (2, 1))
RING = ((0, 1), (1, 2), (2, 0))


@pytest.fixture(autouse=True, scope="module")
def small_batches() -> Iterator[None]:
    """As with many events: several batches wait, and each takes several writes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(link_module, "_BATCH", 5)
        patch.setattr(link_module, "_SLICE", 2)
        yield


class Torn(MemorySubscription):
    """A reader whose next read may fail."""

    fabric: Faulty

    def read(self, timeout: float) -> list[ev.Event]:
        self.fabric.strike("read")
        return super().read(timeout)


class Faulty(MemoryFabric):
    """A log whose next call may fail before, during or after its work."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.fault = ""

    def strike(self, where: str) -> None:
        if self.fault == where:
            self.fault = ""
            raise FabricUnavailableError(f"{where}: as was asked for")

    def publish(self, events: Sequence[ev.Event]) -> None:
        self.strike("before")
        if self.fault == "middle":
            super().publish(events[: len(events) // 2])
        self.strike("middle")
        super().publish(events)
        self.strike("after")

    def subscribe(self, topics: Sequence[str], position: Position = "latest") -> Torn:
        self.strike("subscribe")
        reader = Torn(self._log, topics, position)
        reader.fabric = self
        return reader

    def close(self) -> None:
        """Do not close the log, which all links share."""


class Log:
    """A fabric and its events."""

    def __init__(self, site: str) -> None:
        self.site = site
        self.name = secrets.token_hex(6)
        self.fabric = Faulty(self.name)
        self._builder = EventBuilder(f"/{site}/pool/run")

    def emit(self, key: str) -> ev.Event:
        payload = ev.TaskLate(task=1, attempt=1, endpoint=key, site=self.site)
        event = self._builder.wrap(payload, "1", key, 1.0)
        self.fabric.fault = ""
        self.fabric.publish([event])
        return event

    def all(self) -> list[ev.Event]:
        return MemorySubscription(self.fabric._log, (ev.TOPIC_TASK,), "earliest").read(0)

    def distinct(self) -> list[ev.Event]:
        """Return the events that a reader without duplicates sees."""
        return list({(event.source, event.id): event for event in reversed(self.all())}.values())[::-1]


def ids(events: list[ev.Event], key: str = "") -> list[str]:
    return [event.id for event in events if key in {"", event.partitionkey}]


class OneLink(RuleBasedStateMachine):
    """Whatever fails and whenever the bridge dies: nothing is lost, nothing is out of order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.source, self.destination = Log("anl"), Log("cloud")
        self.now = 0.0
        self.reported: list[ev.Event] = []
        self.open()

    def open(self) -> None:
        self.life = 0
        config = LinkConfig(from_site="anl", to_site="cloud", read_ahead=20)
        cursor = Cursor(self.folder / "cursor.json")
        self.link = Link(config, lambda: self.source.fabric, lambda: self.destination.fabric, cursor, lambda: self.now)

    @initialize(keys=st.lists(st.sampled_from(KEYS), max_size=8))
    def begin(self, keys: list[str]) -> None:
        self.emit(keys)

    @rule(keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=8))
    def emit(self, keys: list[str]) -> None:
        self.reported += [self.source.emit(key) for key in keys]

    @rule(fault=st.sampled_from(["", "", "read", "subscribe"]))
    def fill(self, fault: str) -> None:
        self.source.fabric.fault = fault
        try:
            self.link.fill(0)
        except FabricUnavailableError:
            assert not self.link.stats().reads

    @rule(fault=st.sampled_from(["", "", "", "before", "middle", "after"]), seconds=st.sampled_from([0.01, 0.3, 10.0]))
    def drain(self, fault: str, seconds: float) -> None:
        self.now += seconds
        self.life += 1
        self.destination.fabric.fault = fault
        try:
            self.link.drain(0)
        except FabricUnavailableError:
            assert not self.link.stats().writes

    @precondition(lambda self: self.life >= 3)
    @rule(in_good_order=st.booleans())
    def end(self, *, in_good_order: bool) -> None:
        if in_good_order:
            self.link.save()
            self.link.close()
        self.open()

    @precondition(lambda self: (self.folder / "cursor.json").exists())
    @invariant()
    def the_cursor_is_never_ahead(self) -> None:
        saved = Cursor(self.folder / "cursor.json").position
        assert saved is not None
        behind = self.reported[: int(saved[ev.TOPIC_TASK])]
        assert set(ids(behind)) <= set(ids(self.destination.all()))

    @invariant()
    def memory_is_bounded(self) -> None:
        # One read may go beyond what is allowed; a memory log gives all it has.
        assert self.link.stats().waiting <= 20 + len(self.reported)

    def teardown(self) -> None:
        self.source.fabric.fault = self.destination.fabric.fault = ""
        for _ in range(100):
            if not (self.link.fill(0) + self.link.drain(0)) and self.link.is_idle:
                break
        assert self.link.is_idle
        arrived = self.destination.distinct()
        assert sorted(ids(arrived)) == sorted(ids(self.reported))
        for key in KEYS:
            assert ids(arrived, key) == ids(self.reported, key)
        assert all((event.originsite, event.viasite, event.hops) == ("anl", "anl", 1) for event in arrived)
        memory.forget(self.source.name)
        memory.forget(self.destination.name)
        shutil.rmtree(self.folder)


TestOneLink = OneLink.TestCase
TestOneLink.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)


@given(
    reported=st.lists(st.tuples(st.integers(0, 2), st.sampled_from(KEYS)), min_size=1, max_size=12),
    steps=st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["fill", "drain", "die"])), max_size=60),
    remembers=st.sampled_from([2, 1000]),
    links=st.sampled_from([CHAIN, RING, (*RING, *CHAIN[1::2], (0, 2))]),
)
@settings(max_examples=60, deadline=None)
def test_a_ring_of_three_ends(
    reported: list[tuple[int, str]], steps: list[tuple[int, str]], remembers: int, links: tuple[tuple[int, int], ...]
) -> None:
    """A ring in one or both directions, and a chain: everybody gets everything once, and then there is silence."""
    logs = [Log(site) for site in ("anl", "uc", "cloud")]
    folder = Path(tempfile.mkdtemp())
    clock: Iterator[float] = map(float, count())

    def opened(number: int) -> Link:
        start, end = links[number]
        config = LinkConfig(from_site=logs[start].site, to_site=logs[end].site)
        cursor = Cursor(folder / f"{number}.json")
        link = Link(config, lambda: logs[start].fabric, lambda: logs[end].fabric, cursor, lambda: next(clock))
        link._filter._seen = Deduplicator(remembers)  # what a link remembers may be less than what is on its way
        return link

    running = [opened(number) for number in range(len(links))]
    events = [logs[where].emit(key) for where, key in reported]
    for number, step in steps:
        index = number % len(links)
        if step == "die":
            running[index] = opened(index)
        else:
            getattr(running[index], step)(0)
    rounds = 0
    while any(link.fill(0) + link.drain(0) + (not link.is_idle) for link in running):
        rounds += 1
        assert rounds < 200, "events go round and round"
    copies = {log: len(log.all()) for log in logs}
    for log in logs:
        assert sorted(ids(log.distinct())) == sorted(ids(events))
        for where, _ in reported:
            born = [event for event in log.distinct() if event.source == f"/{logs[where].site}/pool/run"]
            if links in {CHAIN, RING}:  # where there are two ways, order is that of the first to come
                assert ids(born) == [event.id for event in events if event.source == f"/{logs[where].site}/pool/run"]
        memory.forget(log.name)
    if links == CHAIN and not any(step == "die" for _, step in steps):
        assert sum(copies.values()) == 3 * len(events), "in a tree nothing comes twice"
    shutil.rmtree(folder)
