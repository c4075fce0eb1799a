"""When silence of an endpoint that says "online" counts, and when it is normal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.executors.globus.canary import SignsOfLife


def test_with_a_free_worker_a_canary_decides() -> None:
    life = SignsOfLife(10.0)
    life.accepted(0.0, 2)
    assert not life.wants_canary(4.0, slots=4)
    assert life.wants_canary(6.0, slots=4)
    assert life.silent_since(20.0, slots=4) is None, "nothing was asked yet"
    life.canary_sent(6.0)
    assert not life.wants_canary(7.0, slots=4)
    assert life.silent_since(9.0, slots=4) is None
    assert life.silent_since(10.5, slots=4) == 0.0
    life.returned(11.0)
    assert life.silent_since(11.0, slots=4) is None


def test_long_tasks_are_no_trouble_while_canaries_come_back() -> None:
    life = SignsOfLife(10.0)
    life.accepted(0.0)
    at, sent = 0.0, 0
    while at < 3600.0:
        at += 1.0
        if life.wants_canary(at, slots=4):
            life.canary_sent(at)
            life.canary_returned(at + 0.5)
            sent += 1
        assert life.silent_since(at + 0.5, slots=4) is None
    assert sent < 50, "canaries become rare"


def test_where_all_workers_may_be_busy_what_was_seen_before_counts() -> None:
    life = SignsOfLife(10.0)
    life.accepted(0.0, 4)
    life.canary_sent(5.0)
    assert life.silent_since(100.0, slots=4) is None, "nothing is known of such tasks"
    assert life.silent_since(201.0, slots=4) == 0.0
    life.returned(202.0)
    for at in (203.0, 204.0):
        life.accepted(at)
        life.returned(at)
    quick = SignsOfLife(1.0)
    quick.accepted(0.0, 5)
    quick.returned(4.0)
    quick.canary_sent(5.0)
    assert quick.silent_since(15.9, slots=4) is None
    assert quick.silent_since(16.1, slots=4) == 4.0, "three times the longest pause so far"


def test_what_was_lost_says_nothing() -> None:
    life = SignsOfLife(1.0)
    life.accepted(0.0)
    life.canary_sent(1.0)
    life.forgotten(2.0)
    assert life.outstanding == 0
    assert life.silent_since(100.0, slots=1) is None
    assert not life.wants_canary(100.0, slots=1)


@given(st.lists(st.tuples(st.sampled_from(["accept", "return", "forget", "canary", "back"]), st.floats(0.0, 20.0))))
def test_nobody_without_tasks_is_silent(steps: list[tuple[str, float]]) -> None:
    life, at = SignsOfLife(5.0), 0.0
    for what, pause in steps:
        at += pause
        if what == "accept":
            life.accepted(at)
        elif what == "canary":
            life.canary_sent(at)
        elif what == "back":
            life.canary_returned(at)
        elif life.outstanding:
            (life.returned if what == "return" else life.forgotten)(at)
        assert life.outstanding >= 0
        if life.outstanding == 0:
            assert life.silent_since(at + 1000.0, slots=2) is None
            assert not life.wants_canary(at + 1000.0, slots=2)
        since = life.silent_since(at, slots=2)
        assert since is None or since <= at
