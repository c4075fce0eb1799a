"""What receives results survives a connection that breaks while some are not acknowledged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from globus_compute_sdk.sdk import executor as sdk_module

from diaspora_parsl.executors.globus.sdk import Exit, OwnGroupExecutor, leave
from diaspora_parsl.testing.faults import LoseConnection
from diaspora_parsl.testing.globus import LocalGlobusCompute

LIMIT = 30.0


def sleep(seconds: float) -> float:
    import time  # noqa: PLC0415 - it travels alone

    time.sleep(seconds)
    return seconds


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def hold_back(watcher: Any) -> threading.Event:
    """Once this is set, it acknowledges nothing before it connects again."""
    held_back, untouched = threading.Event(), watcher._event_watcher

    def look() -> None:
        if not held_back.is_set():
            watcher.poll_period_s = 100 * LIMIT
        untouched()
        held_back.set()

    watcher._event_watcher = look
    return held_back


def test_a_lost_connection_with_results_that_are_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    # The SDK draws how long it sleeps before it connects again, up to ten seconds.
    monkeypatch.setattr(sdk_module, "random", type("Draw", (), {"uniform": lambda *_: 0.1, "random": lambda: 0.0}))
    with LocalGlobusCompute() as service:
        place, client, leaving = service.endpoint("alpha", workers=2), service.client(), Exit()
        sdk: Any = OwnGroupExecutor(place.id, None, leaving, client=client)
        try:
            warm = sdk.submit(sleep, 0.0)
            assert warm.result(LIMIT) == 0.0
            watcher: Any = sdk._get_result_watcher()
            held_back = hold_back(watcher)
            until(held_back.is_set)
            short, long = sdk.submit(sleep, 0.01), sdk.submit(sleep, 2.0)
            until(lambda: watcher._to_ack)
            watcher.poll_period_s = 0.5
            place.begin(LoseConnection(at=0.0))
            assert [short.result(LIMIT), long.result(LIMIT)] == [0.01, 2.0]
            assert watcher.is_alive()
        finally:
            sdk.shutdown(wait=False, cancel_futures=True)
            leave(client, leaving, LIMIT)
