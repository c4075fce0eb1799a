"""The executor of a Globus Compute endpoint, on an emulated one."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest

from diaspora_parsl.executors.globus.executor import GlobusExecutor
from diaspora_parsl.executors.globus.rate_limit import RateLimit
from diaspora_parsl.testing.faults import Kill
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute

LIMIT = 30.0
PERIOD = 0.2
QUESTIONS = "POST /v2/batch_status"


@pytest.fixture
def service() -> Iterator[LocalGlobusCompute]:
    with LocalGlobusCompute() as service:
        yield service


@contextlib.contextmanager
def running(service: LocalGlobusCompute, place: EmulatedEndpoint, *, patience: float = 1.0) -> Iterator[GlobusExecutor]:
    executor = GlobusExecutor(
        label=place.label, site=place.label, endpoint_id=place.id, client_factory=service.client, slots=1,
        rate_limit=RateLimit(most=1000), user_endpoint_config=None, status_period=PERIOD, patience=patience,
        payload_limit=10**6,
    )  # fmt: skip
    executor.start()
    try:
        yield executor
    finally:
        executor.shutdown()


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def nothing() -> None:
    pass


def test_an_endpoint_that_is_offline_is_asked_about_less_and_less(service: LocalGlobusCompute) -> None:
    place = service.endpoint("alpha")
    with running(service, place) as executor:
        executor.submit(nothing, {}).result(LIMIT)
        offline = Kill(at=0.0, endpoint="alpha", until=1.0)
        place.begin(offline)
        late = executor.submit(nothing, {})
        until(lambda: service.requests_seen.get(QUESTIONS, 0) >= 2)
        before, since = service.requests_seen[QUESTIONS], time.monotonic()
        until(lambda: time.monotonic() - since > 20 * PERIOD)
        asked = service.requests_seen[QUESTIONS] - before
        assert asked <= 4 + (time.monotonic() - since) / (8 * PERIOD)
        place.end(offline)
        late.result(LIMIT)
