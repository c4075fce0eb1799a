"""Exponential back-off without a clock: the caller waits, or plans a timer."""

from __future__ import annotations

#: Doublings after which a delay grows no further; keeps the power within the range of a float.
_MOST_DOUBLINGS = 64


def backoff_delay(first: float, longest: float, failures: int) -> float:
    """Return ``first``, doubled by each earlier failure, up to ``longest``; in seconds."""
    return min(longest, first * 2.0 ** min(failures, _MOST_DOUBLINGS))


class Backoff:
    """Counts failures in a row, and says how long to wait before the next try.

    Args:
        first: delay after the first failure, in seconds.
        longest: upper bound of the delay, in seconds.
    """

    __slots__ = ("failures", "first", "longest")

    def __init__(self, first: float, longest: float) -> None:
        self.first = first
        self.longest = longest
        self.failures = 0

    @property
    def delay(self) -> float:
        """The delay that `next` returns, in seconds."""
        return backoff_delay(self.first, self.longest, self.failures)

    def next(self) -> float:
        """Count one failure and return the delay before the next try, in seconds."""
        delay = self.delay
        self.failures += 1
        return delay

    def reset(self) -> None:
        """Forget all failures."""
        self.failures = 0
