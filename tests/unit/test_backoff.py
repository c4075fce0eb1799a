from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from diaspora_parsl.backoff import Backoff, backoff_delay


@given(st.floats(0.001, 100.0), st.floats(0.001, 10_000.0), st.integers(0, 10_000))
def test_a_delay_never_shrinks_and_never_exceeds_the_longest(first: float, longest: float, failures: int) -> None:
    delay = backoff_delay(first, longest, failures)
    assert 0.0 < delay <= longest
    assert delay <= backoff_delay(first, longest, failures + 1) <= 2.0 * delay


def test_delays_double_until_the_longest_and_start_again_after_a_reset() -> None:
    backoff = Backoff(0.5, 3.0)
    assert [backoff.next() for _ in range(4)] == [0.5, 1.0, 2.0, 3.0]
    assert (backoff.failures, backoff.delay) == (4, 3.0)
    backoff.reset()
    assert (backoff.failures, backoff.delay) == (0, 0.5)
