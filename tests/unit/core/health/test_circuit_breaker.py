from __future__ import annotations

import pytest

from diaspora_parsl.core.health.circuit_breaker import CircuitBreaker


def _opened(at: float = 10.0) -> CircuitBreaker:
    """A breaker opened by five failures, the last at this time."""
    breaker = CircuitBreaker()
    for task in range(5):
        breaker.failed(at - 4.0 + task, task, attempt=task)
    return breaker


def test_five_incidents_in_a_row_open_it() -> None:
    breaker = CircuitBreaker()
    assert [breaker.failed(float(t), t, t) for t in range(5)] == [False] * 4 + [True]
    assert breaker.is_tripped
    assert breaker.open_until == 14.0


def test_failures_at_once_are_one_incident() -> None:
    breaker = CircuitBreaker()
    for task in range(100):
        assert not breaker.failed(1.0 + task / 1000, task, task)
    assert breaker.failures == 1


def test_one_task_counts_once() -> None:
    breaker = CircuitBreaker()
    assert not any(breaker.failed(float(t), 7, t) for t in range(100))


def test_a_success_between_them_forgets() -> None:
    breaker = CircuitBreaker()
    for task in range(4):
        breaker.failed(float(task), task, task)
    breaker.probe_succeeded()
    assert not breaker.failed(5.0, 5, 5)
    assert breaker.failures == 1


def test_it_stays_closed_while_too_much_is_out() -> None:
    breaker = CircuitBreaker()
    assert not any(breaker.failed(float(t), t, t, may_open=lambda: False) for t in range(50))
    assert breaker.open_until is None


def test_half_open_lets_one_probe_through() -> None:
    breaker = _opened(at=10.0)
    assert not breaker.is_half_open(19.9)
    assert breaker.is_half_open(20.0)
    breaker.dispatched(20.0, 100)
    assert breaker.probe == 100
    assert not breaker.is_half_open(21.0)
    breaker.dispatched(21.0, 101)
    assert breaker.probe == 100


def test_the_pause_doubles_with_each_failed_probe_up_to_a_limit() -> None:
    breaker, at, pauses = _opened(), 20.0, []
    for attempt in range(100, 108):
        breaker.dispatched(at, attempt)
        assert breaker.failed(at, attempt, attempt)
        assert breaker.open_until is not None
        pauses.append(breaker.open_until - at)
        at = breaker.open_until
    assert pauses == [20.0, 40.0, 80.0, 160.0, 300.0, 300.0, 300.0, 300.0]


def test_a_successful_probe_closes_it_and_forgets_the_pause() -> None:
    breaker = _opened()
    breaker.dispatched(20.0, 100)
    breaker.failed(20.0, 100, 100)
    breaker.dispatched(40.0, 101)
    breaker.probe_succeeded()
    assert breaker.open_until is None
    assert not breaker.is_tripped
    for task in range(5):
        breaker.failed(50.0 + task, task, task)
    assert breaker.open_until == pytest.approx(64.0)


def test_an_old_attempt_says_nothing_while_it_is_open() -> None:
    breaker = _opened()
    assert not breaker.failed(12.0, 99, 99)
    assert breaker.open_until == 20.0
    breaker.dispatched(20.0, 100)
    assert not breaker.failed(21.0, 98, 98)
    assert breaker.probe == 100


def test_a_probe_without_an_answer_makes_room_for_another() -> None:
    breaker = _opened()
    breaker.dispatched(20.0, 100)
    breaker.probe_ended(99)
    assert breaker.probe == 100
    breaker.probe_ended(100)
    assert breaker.is_half_open(20.0)


def test_in_panic_a_failed_probe_closes_it() -> None:
    breaker = _opened()
    breaker.dispatched(20.0, 100)
    assert not breaker.failed(21.0, 1, 100, may_open=lambda: False)
    assert breaker.open_until is None


def test_silence_opens_it_and_its_end_closes_it() -> None:
    breaker = CircuitBreaker()
    breaker.failed(1.0, 1, 1)
    breaker.trip_on_silence(5.0)
    assert (breaker.open_until, breaker.is_tripped) == (15.0, False)
    breaker.trip_on_silence(9.0)
    assert breaker.open_until == 15.0
    breaker.clear_silence()
    assert breaker.open_until is None
    assert breaker.failures == 1


def test_the_end_of_silence_does_not_close_what_failures_opened() -> None:
    breaker = _opened()
    breaker.trip_on_silence(11.0)
    breaker.clear_silence()
    assert breaker.is_tripped


def test_a_probe_lost_in_silence_doubles_the_pause() -> None:
    breaker = CircuitBreaker()
    breaker.trip_on_silence(0.0)
    breaker.probe_lost(5.0)
    assert breaker.open_until == 10.0, "there was no probe"
    breaker.dispatched(10.0, 1)
    breaker.probe_lost(12.0)
    assert breaker.open_until == 32.0
