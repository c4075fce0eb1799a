"""Unit tests of the reader thread."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import pytest

from diaspora_parsl.errors import FabricUnavailableError
from diaspora_parsl.events import TOPIC_TASK, Event
from diaspora_parsl.fabric.base import Fabric, open_fabric
from diaspora_parsl.fabric.consumer import Consumer


class Log:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.calls: list[str] = []

    def reader(self, fabric: Any, **options: Any) -> Consumer:
        options.setdefault("wait", 0.05)
        options.setdefault("position", "earliest")
        return Consumer(
            fabric,
            [TOPIC_TASK],
            self._on_events,
            on_alive=lambda: self.calls.append("alive"),
            on_down=lambda error: self.calls.append(f"down {type(error).__name__}"),
            on_up=lambda: self.calls.append("up"),
            on_resync=lambda n: self.calls.append(f"resync {n}"),
            **options,
        )

    def _on_events(self, events: list[Event]) -> None:
        self.calls.append("events")
        self.events += events


def test_events_then_alive_and_alive_without_events(flaky: Any, tools: Any) -> None:
    log = Log()
    sent = tools.events(3)
    flaky.publish(sent)
    reader = log.reader(flaky.inner)
    tools.wait_for(lambda: len(log.calls) >= 4)
    assert log.calls[:4] == ["up", "events", "alive", "alive"]
    assert log.events == sent
    assert reader.is_up
    assert reader.position == {TOPIC_TASK: "3"}
    reader.close()
    reader.close()
    seen = len(log.calls)
    time.sleep(0.1)
    assert len(log.calls) == seen


def test_doubles_and_older_ones_are_left_out(flaky: Any, tools: Any) -> None:
    one, two, three = tools.events(3)
    flaky.publish([one, two, one, three, two])
    flaky.publish(tools.events(1, is_state=True))
    late = Log()
    reader = late.reader(flaky.inner, skip_older=True)
    tools.wait_for(lambda: len(late.events) == 4)
    assert reader.doubles == 2
    values = {name: getattr(one, name) for name in one.__struct_fields__}
    fresh_but_old = type(one)(**values | {"id": "new-id"})
    flaky.publish([fresh_but_old])
    tools.wait_for(lambda: reader.older == 1)
    assert fresh_but_old not in late.events
    restarted = type(one)(**values | {"id": "other-id", "time": "2026-01-01T00:00:01Z"})
    flaky.publish([restarted])
    tools.wait_for(lambda: late.events[-1] == restarted)
    reader.close()


def test_a_callback_that_fails_is_logged_and_survived(flaky: Any, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()

    def broken(_: list[Event]) -> None:
        log.calls.append("broken")
        raise RuntimeError("my own fault")

    reader = Consumer(flaky.inner, [TOPIC_TASK], broken, wait=0.05, on_alive=lambda: log.calls.append("alive"))
    tools.wait_for(lambda: "alive" in log.calls)
    with caplog.at_level(logging.ERROR):
        for n in (1, 2):
            flaky.publish(tools.events(1))
            tools.wait_for(lambda n=n: log.calls.count("broken") == n)
        tools.wait_for(lambda: caplog.text.count("RuntimeError: my own fault") == 2)
    assert "Traceback" in caplog.text
    reader.close()


def test_an_outage_from_the_start_and_later(valkey: Any, tools: Any) -> None:
    log = Log()
    reader = log.reader(lambda: open_fabric(valkey.url))
    tools.wait_for(lambda: log.calls == ["down FabricUnavailableError"])
    valkey.start()
    tools.wait_for(lambda: "alive" in log.calls)
    assert log.calls[:3] == ["down FabricUnavailableError", "up", "alive"]
    fabric = open_fabric(valkey.url)
    sent = tools.events(5)
    fabric.publish(sent)
    tools.wait_for(lambda: log.events == sent)
    valkey.kill()
    tools.wait_for(lambda: log.calls[-1] == "down FabricUnavailableError")
    assert not reader.is_up
    valkey.start()
    tools.wait_for(lambda: reader.is_up)
    more = tools.events(5)
    fabric.publish(more)
    tools.wait_for(lambda: log.events == sent + more)
    assert log.calls.count("down FabricUnavailableError") == 2
    assert log.calls.count("up") == 2
    reader.close()
    fabric.close()


def test_an_opener_that_raises_anything(flaky: Any, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    log = Log()
    calls = []

    def opener() -> Fabric:
        calls.append(1)
        if len(calls) == 1:
            raise OSError("no such thing")
        fabric: Fabric = flaky.inner
        return fabric

    reader = log.reader(opener)
    tools.wait_for(lambda: "alive" in log.calls)
    assert log.calls[0] == "down OSError"
    assert "unexpected" in caplog.text
    reader.close()
    with pytest.raises(FabricUnavailableError, match="closed"):
        flaky.inner.publish(tools.events(1))  # what the reader opened, it closed


def test_trimmed_events_are_reported(tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    small = open_fabric("memory://reader-trimmed?maxlen=10")
    small.publish(tools.events(30))
    log = Log()
    reader = log.reader(small, position={TOPIC_TASK: "5"})
    tools.wait_for(lambda: log.events)
    assert log.calls[:3] == ["up", "resync 1", "events"]
    assert "trimmed" in caplog.text
    reader.close()
    small.close()


def test_close_is_quick_and_possible_from_a_callback(valkey: Any, tools: Any) -> None:
    valkey.start()
    fabric = open_fabric(valkey.url)
    done = threading.Event()

    def close_it(_: list[Event]) -> None:
        reader.close()
        done.set()

    reader = Consumer(fabric, [TOPIC_TASK], close_it, position="earliest", wait=30)
    fabric.publish(tools.events(1))
    assert done.wait(5)
    reader.close()
    slow = Consumer(fabric, [TOPIC_TASK], lambda _: None, wait=30)
    tools.wait_for(lambda: slow._subscription is not None)
    time.sleep(0.05)
    started = time.monotonic()
    slow.close()
    assert time.monotonic() - started < 0.8
    fabric.close()
