from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint, Maintenance
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.executors.inbox.control_requests import configured


def threads(*windows: Maintenance) -> Endpoint:
    return Endpoint(ThreadPoolExecutor(label="alpha"), maintenance=windows)


def test_times_may_be_text_or_moments() -> None:
    window = Maintenance(start="2026-12-01T08:00:00-06:00", end=datetime(2026, 12, 1, 20, tzinfo=UTC), reason="cooling")
    assert (window.end - window.start) == timedelta(hours=6)
    assert window.sentence == "maintenance until 2026-12-01T20:00:00Z: cooling"


@pytest.mark.parametrize(
    ("start", "end", "said"),
    [
        ("tomorrow", "2026-12-01T08:00:00Z", "start='tomorrow'"),
        ("2026-12-01T08:00:00Z", "2026-12-01T09:00:00", "with its zone"),
        (5, "2026-12-01T09:00:00Z", "start=5"),
        ("2026-12-01T09:00:00Z", "2026-12-01T08:00:00Z", "ends before it starts"),
    ],
)
def test_what_is_no_window_is_refused(start: Any, end: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        Maintenance(start=start, end=end)


def test_an_endpoint_wants_a_list_of_windows() -> None:
    wrong: Any = "2026-12-01"
    with pytest.raises(ConfigurationError, match=r"write maintenance=\[Maintenance"):
        Endpoint(ThreadPoolExecutor(label="alpha"), maintenance=wrong)
    wrong = Maintenance(start="2026-12-01T08:00:00Z", end="2026-12-01T09:00:00Z")
    with pytest.raises(ConfigurationError, match=r"Write a value of type Iterable\[Maintenance\]"):
        Endpoint(ThreadPoolExecutor(label="alpha"), maintenance=wrong)


def test_windows_become_stimuli_on_the_clock_of_the_core() -> None:
    now = datetime.now(UTC)
    over = Maintenance(start=now - timedelta(hours=2), end=now - timedelta(hours=1))
    to_come = Maintenance(start=now + timedelta(hours=1), end=now + timedelta(hours=2), reason="power")
    (stimulus,) = configured([threads(to_come, over)])
    assert stimulus.endpoint == "alpha"
    assert stimulus.start is not None
    assert stimulus.start - time.monotonic() == pytest.approx(3600.0, abs=5.0)
    assert stimulus.reason.endswith(": power")
