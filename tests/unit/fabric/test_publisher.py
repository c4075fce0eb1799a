"""Unit tests of the publisher: it never blocks, never raises, and tells what it dropped."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.errors import ConfigurationError, FabricUnavailableError
from diaspora_parsl.events import TOPIC_ENDPOINT, Event, FabricDropped
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.dedup import Deduplicator
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.fabric.publisher import Publisher

#: Seconds for what ends by itself, on a machine that is busy elsewhere.
PATIENCE = 30.0


class StuckFabric:
    """A fabric whose server does not answer until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.url = "memory://stuck"

    def publish(self, _: Any) -> None:
        self.go.wait(10)
        raise FabricUnavailableError("timed out")

    def subscribe(self, *_: Any) -> Any:
        raise NotImplementedError

    def close(self) -> None:
        self.go.set()


def tasks(events: list[Event]) -> list[int]:
    return [event.payload().task for event in events]  # type: ignore[union-attr]  # state changes are TaskLate here


def test_what_is_emitted_arrives_as_a_cloudevent(flaky: Any, tools: Any) -> None:
    publisher = Publisher(flaky, source="/site/pool", originsite="alcf", clock=lambda: 1_767_225_600.25)
    publisher.emit(tools.state(7), "task-7", key="endpoint-a")
    publisher.emit(tools.state(8), "task-8")
    publisher.close(PATIENCE)
    one, two = tools.everything(flaky)
    assert (one.source, one.subject, one.partitionkey) == ("/site/pool", "task-7", "endpoint-a")
    assert one.originsite == "alcf"
    assert one.time == "2026-01-01T00:00:00.250000Z"
    assert one.payload() == tools.state(7)
    assert two.partitionkey == "task-8"
    assert two.sequence == one.sequence + 1
    assert publisher.stats()._asdict() == {
        "emitted": 2,
        "published": 2,
        "waiting": 0,
        "dropped_state_changes": 0,
        "dropped_samples": 0,
        "broken": 0,
        "outages": 0,
        "is_connected": True,
    }


def test_ids_are_unique_and_sort_by_time(tools: Any) -> None:
    made = [EventBuilder("/s") for _ in range(3)]
    ids = [one.wrap(tools.state(), "x", "", 1.0 + n / 1000).id for n in range(500) for one in made]
    assert len(set(ids)) == 1500
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)
    assert re.fullmatch(r"[0-9a-f]{12}-[0-9a-f]{12}-[0-9a-f]+", ids[0])


def test_a_slow_fabric_costs_no_events(flaky: Any, tools: Any, tmp_path: Path) -> None:
    busy, go, inner = threading.Semaphore(0), threading.Semaphore(0), flaky.inner

    class Slow:
        def publish(self, events: list[Event]) -> None:
            busy.release()
            go.acquire(timeout=10)
            inner.publish(events)

    flaky.inner = Slow()
    publisher = Publisher(flaky, source="/s", outbox_path=tmp_path / "outbox", capacity=200)
    sent = 0
    for _ in range(4):  # faster than they are sent, and more in all than the queue would take
        publisher.emit(tools.state(sent), "x")
        assert busy.acquire(timeout=10)
        for n in range(sent + 1, sent + 1400):
            publisher.emit(tools.state(n), "x")
        sent += 1400
        go.release()
    for _ in range(1000):
        go.release()
    tools.wait_for(lambda: publisher.stats().published == sent)
    publisher.close()
    flaky.inner = inner
    assert publisher.stats().dropped_state_changes == 0
    assert tasks(tools.everything(flaky)) == list(range(sent))


def test_many_threads_emit_and_nothing_is_lost(flaky: Any, tools: Any) -> None:
    publisher = Publisher(flaky, source="/s", capacity=2000)

    def emit(t: int) -> None:
        for n in range(1000):
            publisher.emit(tools.state(t * 1000 + n), "x")

    threads = [threading.Thread(target=emit, args=(t,)) for t in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    publisher.close(PATIENCE)
    got = tasks(tools.everything(flaky))
    assert len(got) == 4000
    for t in range(4):
        assert [task for task in got if task // 1000 == t] == list(range(t * 1000, t * 1000 + 1000))


def test_what_gathers_is_sent_together_and_at_the_end(tools: Any) -> None:
    class Counted(StuckFabric):
        def __init__(self) -> None:
            super().__init__()
            self.batches: list[list[Event]] = []

        def publish(self, events: Any) -> None:
            self.batches.append(list(events))

    fabric = Counted()
    publisher = Publisher(fabric, source="/site/pool", gather=0.5)
    for number in range(20):
        publisher.emit(tools.state(number), "x")
        time.sleep(0.002)
    publisher.close(PATIENCE)
    assert tasks([event for batch in fabric.batches for event in batch]) == list(range(20))
    assert len(fabric.batches) < 20  # one or two, if nothing else keeps the machine busy


def test_an_idle_publisher_notices_at_once(flaky: Any, tools: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diaspora_parsl.fabric.publisher._IDLE_SECONDS", 60.0)  # it would look by itself only then
    publisher = Publisher(flaky, source="/s")
    tools.wait_for(lambda: publisher._is_idle)
    publisher.emit(tools.state(), "x")
    tools.wait_for(lambda: publisher.stats().published == 1)
    publisher.close()


def test_an_outage_is_waited_out_in_order(
    flaky: Any, tools: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    publisher = Publisher(flaky, source="/s", outbox_path=tmp_path / "outbox")
    for n in range(10):
        publisher.emit(tools.state(n), "x")
    tools.wait_for(lambda: publisher.stats().published == 10)
    flaky.is_down = True
    with caplog.at_level(logging.WARNING):
        for n in range(10, 1510):
            publisher.emit(tools.state(n), "x")
        tools.wait_for(lambda: publisher._outbox is not None and len(publisher._outbox) == 1500)
    assert not publisher.is_connected
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "redis://:***@flaky:1/0" in caplog.text
    assert str(tmp_path / "outbox") in caplog.text
    assert "secret" not in caplog.text
    flaky.is_down = False
    for n in range(1510, 1600):
        publisher.emit(tools.state(n), "x")
    tools.wait_for(lambda: publisher.stats().waiting == 0)
    assert publisher.is_connected
    publisher.close()
    assert tasks(tools.everything(flaky)) == list(range(1600))
    assert publisher.stats().outages == 1


def test_a_lost_answer_doubles_events_which_readers_drop(flaky: Any, tools: Any) -> None:
    publisher = Publisher(flaky, source="/s")
    flaky.loses_answers = 2
    for n in range(50):
        publisher.emit(tools.state(n), "x")
        time.sleep(0.001)
    publisher.close(PATIENCE)
    got = tools.everything(flaky)
    assert len(got) > 50
    assert tasks(Deduplicator().drop_duplicates(got)) == list(range(50))


def test_attempts_back_off(flaky: Any, tools: Any) -> None:
    flaky.is_down = True
    publisher = Publisher(flaky, source="/s")
    publisher.emit(tools.state(), "x")
    tools.wait_for(lambda: len(flaky.attempts) >= 5)
    gaps = [later - earlier for earlier, later in zip(flaky.attempts, flaky.attempts[1:], strict=False)]
    # Each pause is between half and the whole of twice the one before; a busy machine can only make it longer.
    assert all(gap >= 0.05 * 2**number / 2 for number, gap in enumerate(gaps[:4])), gaps
    assert len(flaky.attempts) < 8
    publisher.close()


def test_a_fabric_that_cannot_be_opened_at_first(flaky: Any, tools: Any, tmp_path: Path) -> None:
    calls = []

    def opener() -> Fabric:
        calls.append(time.monotonic())
        if len(calls) < 3:
            raise FabricUnavailableError("not yet")
        fabric: Fabric = flaky
        return fabric

    publisher = Publisher(opener, source="/s", outbox_path=tmp_path / "outbox")
    publisher.emit(tools.state(1), "x")
    tools.wait_for(lambda: publisher.stats().published == 1)
    assert len(calls) == 3
    publisher.close()
    with pytest.raises(FabricUnavailableError, match="closed"):
        flaky.inner.publish(tools.events(1))  # what the publisher opened, it closed


def test_full_queue_drops_samples_first_and_says_so(tools: Any, tmp_path: Path, flaky: Any) -> None:
    stuck = StuckFabric()
    publisher = Publisher(stuck, source="/s", outbox_path=tmp_path / "outbox", capacity=100)
    publisher.emit(tools.state(-1), "x")
    tools.wait_for(lambda: not publisher._queue)  # the thread is in `publish` now
    for n in range(300):
        publisher.emit(tools.state(n), "x")
        publisher.emit(tools.sample(), "x")
    stats = publisher.stats()
    assert stats.dropped_state_changes == 0
    assert stats.dropped_samples == 250
    for n in range(300, 1000):
        publisher.emit(tools.state(n), "x")
    assert publisher.stats().dropped_state_changes == 50  # ten times the capacity is the end
    assert publisher.stats().emitted == 1301
    stuck.go.set()
    publisher._fabric = flaky
    tools.wait_for(lambda: publisher.stats().waiting == 0)
    publisher.close()
    assert tasks(tools.everything(flaky, ["parsl-task"])) == [-1, *range(950)]
    (dropped,) = tools.everything(flaky, [TOPIC_ENDPOINT])
    assert dropped.payload() == FabricDropped(state_changes=50, samples=250)


def test_a_payload_that_cannot_be_encoded(flaky: Any, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    publisher = Publisher(flaky, source="/s")
    publisher.emit(tools.state(threading.Lock()), "x")
    publisher.emit(tools.state(threading.Lock()), "x")
    publisher.emit(tools.state(1), "x")
    publisher.close(PATIENCE)
    assert tasks(tools.everything(flaky)) == [1]
    assert publisher.stats().broken == 2
    assert caplog.text.count("cannot be published") == 1


def test_close_is_bounded_and_keeps_the_rest(tools: Any, tmp_path: Path) -> None:
    stuck = StuckFabric()
    publisher = Publisher(stuck, source="/s", outbox_path=tmp_path / "outbox")
    publisher.emit(tools.state(1), "x")
    started = time.monotonic()
    publisher.close(timeout=0.2)
    assert time.monotonic() - started < 1
    publisher.close()
    stuck.go.set()
    publisher._thread.join(5)
    again = Publisher(open_fabric("memory://close-bounded"), source="/s", outbox_path=tmp_path / "outbox")
    tools.wait_for(lambda: again.stats().published == 1)  # the next process sends what was kept
    again.close()


def test_after_close_nothing_happens_but_counting(flaky: Any, tools: Any) -> None:
    publisher = Publisher(flaky, source="/s")
    publisher.close()
    publisher.emit(tools.state(), "x")
    publisher.emit(tools.sample(), "x")
    assert publisher.stats().dropped_state_changes == 1
    assert publisher.stats().dropped_samples == 1
    assert tools.everything(open_fabric(flaky.inner.url)) == []


def test_memory_only_says_what_is_lost_at_the_end(flaky: Any, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    flaky.is_down = True
    publisher = Publisher(flaky, source="/s")
    publisher.emit(tools.state(), "x")
    tools.wait_for(lambda: publisher.stats().outages)
    publisher.close()
    assert "1 state changes and 0 resource samples were not published" in caplog.text


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on: fork with threads
def test_a_forked_child_is_silent_and_does_not_hang(flaky: Any, tools: Any, tmp_path: Path) -> None:
    flaky.is_down = True
    publisher = Publisher(flaky, source="/s", outbox_path=tmp_path / "outbox")
    for n in range(50):
        publisher.emit(tools.state(n), "x")
    child = os.fork()
    if child == 0:
        publisher.emit(tools.state(1000), "x")
        publisher.close()
        os._exit(0 if publisher.stats().published == 0 else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    flaky.is_down = False
    tools.wait_for(lambda: publisher.stats().published == 50)
    publisher.close()
    assert tasks(tools.everything(flaky)) == list(range(50))


def test_arguments_are_checked(flaky: Any) -> None:
    with pytest.raises(ConfigurationError, match="source"):
        Publisher(flaky, source="")
    with pytest.raises(ConfigurationError, match="capacity"):
        Publisher(flaky, source="/s", capacity=0)
