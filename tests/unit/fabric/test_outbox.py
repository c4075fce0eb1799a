"""Unit tests of the outbox: order, caps by class, broken files."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.fabric.outbox import Outbox


@pytest.fixture(params=["file", "memory"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return tmp_path / "deep" / "outbox" if request.param == "file" else None


def test_first_in_first_out(path: Path | None, tools: Any) -> None:
    box = Outbox(path)
    events = tools.events(25)
    box.keep(events[:10])
    box.keep([])
    box.keep(events[10:])
    assert len(box) == 25
    assert box.peek(7) == events[:7]
    box.forget(7)
    assert box.peek(100) == events[7:]
    box.forget(18)
    assert (box.peek(5), len(box), bool(box)) == ([], 0, False)
    assert (box.dropped_state_changes, box.dropped_samples) == (0, 0)
    box.close()


def test_samples_go_first_and_oldest_first(path: Path | None, tools: Any) -> None:
    box = Outbox(path, max_bytes=200_000)
    states, samples = tools.events(400), tools.events(400, is_state=False)
    for state, sample in zip(states, samples, strict=True):
        box.keep([state, sample])
    kept = []
    while batch := box.peek(100):
        kept += batch
        box.forget(len(batch))
    assert [event for event in kept if event.is_state_change] == states
    kept_samples = [event for event in kept if not event.is_state_change]
    assert kept_samples == samples[-len(kept_samples) :]
    assert box.dropped_samples == 400 - len(kept_samples) > 0
    assert box.dropped_state_changes == 0
    box.close()


def test_state_changes_go_only_when_there_is_nothing_else(path: Path | None, tools: Any) -> None:
    box = Outbox(path, max_bytes=100_000)
    box.keep(tools.events(100, is_state=False))
    states = tools.events(2000)
    for start in range(0, 2000, 100):
        box.keep(states[start : start + 100])
    assert box.dropped_samples == 100
    assert 0 < box.dropped_state_changes < 2000
    assert len(box) == 2000 - box.dropped_state_changes
    assert box.peek(3000) == states[box.dropped_state_changes :]
    box.close()


def test_what_is_left_is_there_the_next_time(tmp_path: Path, tools: Any) -> None:
    events = tools.events(5)
    box = Outbox(tmp_path / "outbox")
    box.keep(events)
    box.close()
    box.close()
    again = Outbox(tmp_path / "outbox")
    assert again.peek(10) == events
    again.forget(5)
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_after_close_events_are_counted(tmp_path: Path, tools: Any) -> None:
    box = Outbox(tmp_path / "outbox")
    box.close()
    box.keep([tools.event(), tools.event(is_state=False)])
    assert (len(box), box.dropped_state_changes, box.dropped_samples) == (0, 1, 1)


def test_closing_memory_counts_what_is_lost(tools: Any) -> None:
    box = Outbox()
    box.keep([tools.event(), tools.event(), tools.event(is_state=False)])
    box.close()
    assert (box.dropped_state_changes, box.dropped_samples) == (2, 1)


@pytest.mark.parametrize("kind", ["folder", "garbage", "below a file", "locked"])
def test_without_a_file_it_goes_on_in_memory(
    kind: str, tmp_path: Path, tools: Any, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "outbox"
    other = None
    if kind == "folder":
        path.mkdir()
    elif kind == "garbage":
        path.write_bytes(b"this is no database, it only looks like a file" * 100)
    elif kind == "below a file":
        path.write_text("")
        path = path / "outbox"
    else:
        other = Outbox(path)
    with caplog.at_level(logging.WARNING):
        box = Outbox(path)
    assert "kept in memory" in caplog.text
    assert box.where == "memory"
    events = tools.events(3)
    box.keep(events)
    assert box.peek(3) == events
    box.close()
    if other:
        other.close()


def test_a_disk_that_fills_up(tmp_path: Path, tools: Any, caplog: pytest.LogCaptureFixture) -> None:
    box = Outbox(tmp_path / "outbox")
    before = tools.events(5)
    box.keep(before)
    pages = box._stores[0].db.execute("PRAGMA page_count").fetchone()[0]
    box._stores[0].db.execute(f"PRAGMA max_page_count = {pages}")  # SQLite's own "disk is full"
    after = tools.events(500)
    with caplog.at_level(logging.WARNING):
        for start in range(0, 500, 100):
            box.keep(after[start : start + 100])
    assert caplog.text.count("kept in memory") == 1
    kept = []
    while batch := box.peek(50):
        kept += batch
        box.forget(len(batch))
    assert kept == before + after
    box.close()


def test_a_damaged_row_does_not_hold_back_the_rest(tmp_path: Path, tools: Any) -> None:
    path = tmp_path / "outbox"
    box = Outbox(path)
    events = tools.events(5)
    box.keep(events)
    box.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE events SET body = 'nonsense' WHERE n IN (1, 3)")
    db.close()
    again = Outbox(path)
    kept = []
    while batch := again.peek(10):
        kept += batch
        again.forget(len(batch))
    assert kept == [events[1], events[3], events[4]]
    assert again.dropped_state_changes == 2
    again.close()


_KEEP_AND_DIE = """
import os, signal, sys
from diaspora_parsl.events import Event, TaskLate, encode_payload
from diaspora_parsl.fabric.outbox import Outbox
payload = TaskLate(task=1, attempt=1, endpoint="e", site="s")
box = Outbox(sys.argv[1])
for n in range(500):
    box.keep([Event(id=str(n), source="/s", type=payload.event_type(), subject="x", time="t", partitionkey="k",
                    sequence=n, data=encode_payload(payload))])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_kill_9_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    done = subprocess.run([sys.executable, "-c", _KEEP_AND_DIE, path], check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    box = Outbox(path)
    assert [event.id for event in box.peek(1000)] == [str(n) for n in range(500)]
    box.close()


_FORK_AND_DIE = """
import os, signal, sys
from diaspora_parsl.fabric.outbox import Outbox
from diaspora_parsl.events import Event, TaskLate, encode_payload
payload = TaskLate(task=1, attempt=1, endpoint="e", site="s")
def event(n):
    return Event(id=str(n), source="/s", type=payload.event_type(), subject="x", time="t", partitionkey="k",
                 sequence=n, data=encode_payload(payload))
box = Outbox(sys.argv[1])
box.keep([event(0)])
if os.fork() == 0:
    box.leave_to_parent()
    sys.exit(0)
os.wait()
box.keep([event(1)])
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_forked_child_leaves_the_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "outbox"
    subprocess.run([sys.executable, "-c", _FORK_AND_DIE, path], check=False, timeout=30)
    box = Outbox(path)
    assert [event.id for event in box.peek(10)] == ["0", "1"]
    box.close()


def test_too_small() -> None:
    with pytest.raises(ConfigurationError, match="10000 or more"):
        Outbox(max_bytes=10)


def test_the_folder_is_private(tmp_path: Path) -> None:
    Outbox(tmp_path / "own" / "outbox").close()
    assert os.stat(tmp_path / "own").st_mode & 0o077 == 0  # noqa: PTH116 - the mode is what is tested
