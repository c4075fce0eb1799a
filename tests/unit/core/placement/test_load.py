from __future__ import annotations

import pytest

from diaspora_parsl.core.placement.load import Load, RelativeSpeed


def _load(slots: int = 4, prefetch_seconds: float = 1.0) -> Load:
    load = Load(prefetch_seconds)
    load.slots = slots
    return load


def _run(load: Load, function: str, seconds: float, at: float = 0.0) -> None:
    """Run one attempt on an idle slot successfully."""
    work = load.bind(function)
    load.record_success(function, at + seconds, at, queued=False)
    load.release(work)


def _room(load: Load, function: str) -> int:
    count = 0
    while load.has_room(function):
        load.bind(function)
        count += 1
    return count


def test_an_unknown_function_gets_no_prefetch() -> None:
    assert _room(_load(slots=4), "f") == 4


def test_no_slots_no_room() -> None:
    load = _load(slots=0)
    assert not load.has_room("f")
    _run(load, "f", 0.01)
    assert not load.has_room("f")


@pytest.mark.parametrize(("seconds", "room"), [(0.1, 40), (0.25, 16), (2.0, 4), (60.0, 4)])
def test_a_success_widens_to_a_second_of_work_per_slot(seconds: float, room: int) -> None:
    load = _load(slots=4)
    _run(load, "f", seconds)
    assert _room(load, "f") == pytest.approx(room, abs=1)


def test_the_window_is_per_function() -> None:
    load = _load(slots=4)
    _run(load, "short", 0.01)
    assert _room(load, "long") == 4


def test_the_window_has_an_upper_bound() -> None:
    load = _load(slots=2)
    _run(load, "f", 0.0)
    assert _room(load, "f") == 2 * 1024


def test_any_failure_collapses_the_window() -> None:
    load = _load(slots=4)
    _run(load, "f", 0.01)
    load.record_failure("f")
    assert load.service("f") is None
    assert _room(load, "f") == 4


def test_an_idle_slot_measures_the_run_time() -> None:
    load = _load(slots=4)
    bound = [load.bind("f") for _ in range(4)]
    for work in bound:
        load.record_success("f", 1.0, 0.0, queued=False)
        load.release(work)
    assert load.service("f") == pytest.approx(1.0)


def test_two_results_at_once_do_not_make_a_long_function_look_short() -> None:
    load = _load(slots=2)
    works = [load.bind("short"), load.bind("long")]
    load.record_success("short", 100.0, 99.0, queued=False)
    load.release(works[0])
    assert load.record_success("long", 100.0, 0.0, queued=False) == 100.0


def test_queued_attempts_measure_the_rate() -> None:
    load = _load(slots=2)
    for _ in range(200):
        load.bind("f")
    at = 0.0
    for _ in range(100):  # two slots of 0.1 s each: a result every 0.05 s
        at += 0.05
        load.record_success("f", at, 0.0, queued=True)
        load.release(0.0)
    assert load.service("f") == pytest.approx(0.1, rel=0.05)


def test_books_are_balanced() -> None:
    load = _load(slots=1)
    work = load.bind("f")
    assert (load.in_flight, load.has_idle_slot()) == (1, False)
    load.release(work)
    assert (load.in_flight, load.has_idle_slot()) == (0, True)
    load.bind("f")
    load.reset()
    assert load.in_flight == 0


def test_less_busy_and_faster_is_better() -> None:
    idle, busy = _load(), _load()
    busy.bind("f")
    assert idle.score() < busy.score()
    slow, fast = _load(), _load()
    slow.relative_speed, fast.relative_speed = 2.0, 0.5
    assert fast.score() < slow.score()


def test_pace_compares_the_same_function_only() -> None:
    relative_speed, fast, slow = RelativeSpeed(), _load(), _load()
    for _ in range(50):
        relative_speed.learn(fast, "f", 1.0)
        relative_speed.learn(slow, "f", 4.0)
    assert slow.relative_speed > 2 * fast.relative_speed
    other = _load()
    relative_speed.learn(other, "g", 1000.0)
    assert other.relative_speed == pytest.approx(1.0)
