from __future__ import annotations

from diaspora_parsl.core.placement.maintenance import Calendar, Hold, Window

INFINITY = float("inf")


def test_a_window_holds_from_its_start_to_its_end() -> None:
    calendar = Calendar(["alpha"])
    calendar.plan("alpha", Window(10.0, 20.0, "cooling"))
    assert calendar.hold("alpha", 9.9) is None
    assert calendar.next_start("alpha", 9.9) == 10.0
    assert calendar.hold("alpha", 10.0) == Hold("cooling", 20.0)
    assert calendar.next_start("alpha", 10.0) == INFINITY
    assert calendar.hold("alpha", 20.0) is None


def test_windows_that_meet_or_overlap_end_as_one() -> None:
    calendar = Calendar(["alpha"])
    for window in (Window(20.0, 30.0, "c"), Window(10.0, 20.0, "a"), Window(15.0, 18.0, "b"), Window(40.0, 50.0, "d")):
        assert calendar.plan("alpha", window)
    assert calendar.hold("alpha", 12.0) == Hold("a", 30.0)
    assert calendar.hold("alpha", 30.0) is None
    assert calendar.next_change("alpha", 30.0) == 40.0


def test_a_window_is_noted_once() -> None:
    calendar = Calendar(["alpha"])
    assert calendar.plan("alpha", Window(10.0, 20.0, "cooling"))
    assert not calendar.plan("alpha", Window(10.0, 20.0, "said again"))
    assert calendar.cancel("alpha") == 1
    assert calendar.next_change("alpha", 0.0) is None


def test_by_hand_comes_before_planned_and_the_longer_of_the_two_counts() -> None:
    calendar = Calendar(["alpha"])
    calendar.plan("alpha", Window(10.0, 20.0, "cooling"))
    calendar.drain("alpha", "by hand", 15.0)
    assert calendar.hold("alpha", 5.0) == Hold("by hand", 15.0)
    assert calendar.hold("alpha", 12.0) == Hold("by hand", 20.0)
    assert calendar.hold("alpha", 15.0) == Hold("cooling", 20.0)
    calendar.drain("alpha", "by hand", None)
    assert calendar.hold("alpha", 16.0) == Hold("by hand", INFINITY)


def test_resume_ends_what_is_in_force_and_keeps_what_is_to_come() -> None:
    calendar = Calendar(["alpha"])
    calendar.plan("alpha", Window(10.0, 20.0, "cooling"))
    calendar.plan("alpha", Window(50.0, 60.0, "power"))
    calendar.drain("alpha", "by hand", None)
    calendar.resume("alpha", 12.0)
    assert calendar.hold("alpha", 12.0) is None
    assert calendar.next_start("alpha", 12.0) == 50.0
