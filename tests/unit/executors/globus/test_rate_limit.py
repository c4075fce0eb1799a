"""The allowance of requests that endpoints of one account share."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.executors.globus.rate_limit import RateLimit, shared_rate_limit


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@given(
    most=st.integers(1, 20),
    steps=st.lists(st.tuples(st.floats(0.0, 3.0), st.booleans()), max_size=100),
)
def test_no_window_has_more_than_allowed_and_waiting_helps(most: int, steps: list[tuple[float, bool]]) -> None:
    clock = Clock()
    rate_limit = RateLimit(most, 10.0, clock)
    taken: list[float] = []
    for pause, urgent in steps:
        clock.now += pause
        wait = rate_limit.wait_time(urgent=urgent)
        if wait > 0.0:
            clock.now += wait + 1e-9
            assert rate_limit.wait_time(urgent=urgent) == 0.0
        taken.append(clock.now)
        assert sum(at > clock.now - 10.0 for at in taken) <= most


def test_what_is_not_urgent_leaves_half_to_the_rest_and_comes_evenly() -> None:
    clock = Clock()
    rate_limit = RateLimit(10, 10.0, clock)
    times = []
    while clock.now < 20.0:
        if rate_limit.try_take():
            times.append(clock.now)
        clock.now += 0.5
    assert times == [2.0 * number for number in range(10)]
    assert [rate_limit.wait_time() == 0.0 for _ in range(7)] == [True] * 6 + [False]


def test_those_who_always_have_something_to_send_leave_a_third_to_what_is_not_urgent() -> None:
    clock = Clock()
    rate_limit = RateLimit(12, 10.0, clock)
    for _ in range(5):
        assert [rate_limit.wait_time() == 0.0 for _ in range(20)].count(True) == 8
        for _ in range(4):
            clock.now += 2.5
            assert rate_limit.try_take()


def test_after_a_refusal_nobody_asks_for_a_while() -> None:
    clock = Clock()
    rate_limit = RateLimit(10, 10.0, clock)
    rate_limit.bar(4.0)
    assert rate_limit.wait_time() == pytest.approx(4.0)
    clock.now = 4.0
    assert rate_limit.wait_time() == 0.0


def test_whoever_waits_can_be_told_to_stop() -> None:
    rate_limit, stop = RateLimit(1, 1000.0), threading.Event()
    assert rate_limit.take(stop)
    waiting = threading.Timer(0.05, stop.set)
    waiting.start()
    assert not rate_limit.take(stop)
    waiting.join()


def test_the_same_name_is_the_same_account_as_long_as_anybody_holds_it() -> None:
    first = shared_rate_limit("someone")
    assert shared_rate_limit("someone") is first
    assert shared_rate_limit("someone else") is not first
