from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.testing.globus.core import Throttle

GAPS = st.lists(st.floats(0.0, 5.0), max_size=100)


@given(GAPS, st.integers(1, 10), st.floats(0.1, 20.0))
def test_no_window_holds_more_than_the_limit(gaps: list[float], limit: int, window: float) -> None:
    throttle, now = Throttle(limit, window), 0.0
    allowed: list[float] = []
    for gap in gaps:
        now += gap
        wait = throttle.wait(now)
        within = [time for time in allowed if time > now - window]
        assert (wait == 0) == (len(within) < limit)
        if wait == 0:
            allowed.append(now)


def test_a_client_that_waits_for_retry_after_is_accepted() -> None:
    throttle = Throttle(2, 10.0)
    assert [throttle.wait(0.0), throttle.wait(3.5), throttle.wait(4.0)] == [0, 0, 6]
    assert throttle.wait(9.99) == 1
    assert throttle.wait(10.0) == 0
    assert throttle.wait(10.0) == pytest.approx(4, abs=0.5)
