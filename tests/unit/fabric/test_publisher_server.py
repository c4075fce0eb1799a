"""The publisher against a real server that dies, stops, and comes back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.events import TOPIC_TASK, Event
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.consumer import Consumer
from diaspora_parsl.fabric.dedup import Deduplicator
from diaspora_parsl.fabric.outbox import Outbox
from diaspora_parsl.fabric.publisher import Publisher


def tasks(events: list[Event]) -> list[int]:
    return [event.payload().task for event in events]  # type: ignore[union-attr]  # state changes are TaskLate here


def test_dead_from_the_first_second(valkey: Any, tools: Any, tmp_path: Path) -> None:
    publisher = Publisher(lambda: open_fabric(valkey.url), source="/s", outbox_path=tmp_path / "outbox")
    for n in range(200):
        publisher.emit(tools.state(n), "x")
    tools.wait_for(lambda: publisher._outbox is not None and len(publisher._outbox) == 200)
    valkey.start()
    tools.wait_for(lambda: publisher.stats().published == 200)
    publisher.close()
    fabric = open_fabric(valkey.url)
    assert tasks(tools.everything(fabric)) == list(range(200))
    fabric.close()


def test_killed_and_restarted_again_and_again(valkey: Any, tools: Any, tmp_path: Path) -> None:
    valkey.start()
    fabric = open_fabric(valkey.url)
    got: list[Event] = []
    reader = Consumer(fabric, [TOPIC_TASK], got.extend, position="earliest", skip_older=True)
    publisher = Publisher(fabric, source="/s", outbox_path=tmp_path / "outbox")
    sent = 0
    for _ in range(3):
        for _ in range(1000):
            publisher.emit(tools.state(sent), "x")
            sent += 1
            if sent % 100 == 0:
                time.sleep(0.002)
        valkey.kill()
        for _ in range(500):
            publisher.emit(tools.state(sent), "x")
            sent += 1
        tools.wait_for(lambda: not publisher.is_connected)
        valkey.start()
        tools.wait_for(lambda: publisher.is_connected)
    tools.wait_for(lambda: publisher.stats().waiting == 0)
    publisher.close()
    kept = tools.everything(fabric)
    assert tasks(Deduplicator().drop_duplicates(kept)) == list(range(sent))
    tools.wait_for(lambda: len(got) == sent)
    assert tasks(got) == list(range(sent))
    reader.close()
    fabric.close()


def test_killed_and_never_back(valkey: Any, tools: Any, tmp_path: Path) -> None:
    valkey.start()
    publisher = Publisher(lambda: open_fabric(valkey.url), source="/s", outbox_path=tmp_path / "outbox")
    publisher.emit(tools.state(0), "x")
    tools.wait_for(lambda: publisher.stats().published == 1)
    valkey.kill()
    for n in range(1, 100):
        publisher.emit(tools.state(n), "x")
    started = time.monotonic()
    publisher.close()
    assert time.monotonic() - started < 1
    assert publisher.stats().dropped_state_changes == 0
    box = Outbox(tmp_path / "outbox")
    assert tasks(box.peek(1000)) == list(range(1, 100))
    box.close()


def test_close_against_a_stopped_server(valkey: Any, tools: Any, tmp_path: Path) -> None:
    valkey.start()
    publisher = Publisher(lambda: open_fabric(valkey.url), source="/s", outbox_path=tmp_path / "outbox")
    publisher.emit(tools.state(0), "x")
    tools.wait_for(lambda: publisher.stats().published == 1)
    valkey.signal(signal.SIGSTOP)
    try:
        for n in range(1, 50):
            publisher.emit(tools.state(n), "x")
        started = time.monotonic()
        publisher.close()
        assert time.monotonic() - started < 2.5
        publisher._thread.join(2)
    finally:
        valkey.signal(signal.SIGCONT)
    box = Outbox(tmp_path / "outbox")
    assert set(range(1, 50)) <= set(tasks(box.peek(1000)))
    box.close()


_EMIT_AND_DIE = """
import os, signal, sys, time
from diaspora_parsl.events import TaskLate
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.publisher import Publisher
publisher = Publisher(lambda: open_fabric(sys.argv[1]), source="/s", outbox_path=sys.argv[2])
for n in range(300):
    publisher.emit(TaskLate(task=n, attempt=1, endpoint="e", site="s"), "x")
deadline = time.monotonic() + 20
while (publisher._queue or publisher._sending) and time.monotonic() < deadline:
    time.sleep(0.005)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_of_the_process_keeps_the_outbox(valkey: Any, tools: Any, tmp_path: Path) -> None:
    command = [sys.executable, "-c", _EMIT_AND_DIE, valkey.url, str(tmp_path / "outbox")]
    assert subprocess.run(command, check=False, timeout=30).returncode == -signal.SIGKILL
    valkey.start()
    publisher = Publisher(lambda: open_fabric(valkey.url), source="/s", outbox_path=tmp_path / "outbox")
    tools.wait_for(lambda: publisher.stats().published == 300)
    publisher.close()
    fabric = open_fabric(valkey.url)
    assert tasks(tools.everything(fabric)) == list(range(300))
    fabric.close()


_DELIVER_AND_DIE = """
import os, signal, sys, time
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.publisher import Publisher
fabric = open_fabric(sys.argv[1])
publish = fabric.publish
def publish_and_die(events):
    publish(events)
    os.kill(os.getpid(), signal.SIGKILL)
fabric.publish = publish_and_die
publisher = Publisher(fabric, source="/s", outbox_path=sys.argv[2])
time.sleep(20)
"""


def test_kill_9_while_the_outbox_is_delivered_doubles_events_which_readers_drop(
    valkey: Any, tools: Any, tmp_path: Path
) -> None:
    outbox = str(tmp_path / "outbox")
    for script in (_EMIT_AND_DIE, _DELIVER_AND_DIE):  # the second one after they arrived, before they are forgotten
        command = [sys.executable, "-c", script, valkey.url, outbox]
        assert subprocess.run(command, check=False, timeout=30).returncode == -signal.SIGKILL
        if script is _EMIT_AND_DIE:
            valkey.start()
    fabric = open_fabric(valkey.url)
    got: list[Event] = []
    reader = Consumer(fabric, [TOPIC_TASK], got.extend, position="earliest")
    publisher = Publisher(fabric, source="/s", outbox_path=outbox)
    tools.wait_for(lambda: publisher.stats().published == 300)
    publisher.emit(tools.state(300), "x")
    tools.wait_for(lambda: len(got) == 301)
    publisher.close()
    reader.close()
    assert tasks(got) == list(range(301))
    assert reader.doubles == 300
    assert not Path(outbox).exists()
    fabric.close()


_EMIT_AND_LEAVE = """
import sys
from diaspora_parsl.events import TaskLate
from diaspora_parsl.fabric.base import open_fabric
from diaspora_parsl.fabric.publisher import Publisher
publisher = Publisher(open_fabric(sys.argv[1]), source="/s")
for n in range(300):
    publisher.emit(TaskLate(task=n, attempt=1, endpoint="e", site="s"), "x")
"""


def test_a_process_that_forgets_to_close_still_flushes(valkey: Any, tools: Any) -> None:
    valkey.start()
    subprocess.run([sys.executable, "-c", _EMIT_AND_LEAVE, valkey.url], check=True, timeout=30)
    fabric = open_fabric(valkey.url)
    assert tasks(tools.everything(fabric)) == list(range(300))
    fabric.close()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # Python 3.12 on: fork with threads
def test_a_fabric_used_before_a_fork_works_after_it(valkey: Any, tools: Any) -> None:
    valkey.start()
    fabric = open_fabric(valkey.url)
    fabric.publish(tools.events(1))
    child = os.fork()
    if child == 0:
        fabric.publish(tools.events(1))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    fabric.publish(tools.events(1))
    assert status == 0
    assert len(tools.everything(fabric)) == 3
    fabric.close()
