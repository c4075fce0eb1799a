"""A circuit breaker per endpoint: closed, open, half-open."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from diaspora_parsl.backoff import Backoff

THRESHOLD: Final = 5
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 300.0
SAME_INCIDENT: Final = 0.5


class CircuitBreaker:
    """Opens after consecutive infrastructure failures; one probe decides whether it closes.

    Failures less than half a second apart are one incident, because a lost node fails all its attempts together. One
    task counts once in a row, so that a bad input does not open the breaker. Each failed probe doubles the pause.

    Silence opens the breaker until it ends. Only a result closes a breaker that failures opened. A successful probe or
    the operator ends a quarantine.

    Args:
        threshold: Number of consecutive incidents that open the breaker.
        first_pause: Seconds until the first probe.
        longest_pause: Upper bound of the pause in seconds.
    """

    __slots__ = ("_backoff", "_last_failure", "_tasks", "_threshold", "open_until", "probe", "quarantine_reason",
                 "tripped_by_silence")  # fmt: skip

    def __init__(
        self, threshold: int = THRESHOLD, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._threshold = threshold
        self._backoff = Backoff(first_pause, longest_pause)
        self._tasks: set[int | str] = set()
        self._last_failure = float("-inf")
        self.open_until: float | None = None
        #: Id of the attempt that is the probe.
        self.probe: int | None = None
        self.tripped_by_silence = False
        #: Reason of an operator's quarantine; only a probe or the operator ends it.
        self.quarantine_reason: str | None = None

    @property
    def failures(self) -> int:
        """Number of consecutive incidents."""
        return len(self._tasks)

    @property
    def is_tripped(self) -> bool:
        """Whether failures or an operator, not silence, opened it."""
        return self.open_until is not None and not self.tripped_by_silence

    def is_half_open(self, at: float) -> bool:
        """Whether one attempt may be dispatched as a probe."""
        return self.open_until is not None and at >= self.open_until and self.probe is None

    def dispatched(self, at: float, attempt: int) -> None:
        """Record a dispatched attempt; in the half-open state it is the probe."""
        if self.is_half_open(at):
            self.probe = attempt

    def probe_succeeded(self, attempt: int | None = None) -> None:
        """Close after a result; an operator's quarantine only ends by the result of the probe."""
        self._tasks.clear()
        if self.quarantine_reason is None or (attempt is not None and attempt == self.probe):
            self._close()

    def quarantine(self, reason: str, until: float) -> None:
        """Open for an operator until this time, and then allow a probe."""
        self.open_until, self.quarantine_reason, self.tripped_by_silence, self.probe = until, reason, False, None

    def postpone_probe(self, at: float, seconds: float) -> None:
        """Delay the next probe by these seconds unless it is due."""
        if self.open_until is not None and self.open_until > at:
            self.open_until += seconds

    def end_quarantine(self) -> None:
        """End an operator's quarantine."""
        if self.quarantine_reason is not None:
            self._close()

    def for_next_generation(self) -> CircuitBreaker:
        """Return a fresh breaker that keeps only an operator's quarantine."""
        fresh = CircuitBreaker(self._threshold, self._backoff.first, self._backoff.longest)
        if self.quarantine_reason is not None and self.open_until is not None:
            fresh.quarantine(self.quarantine_reason, self.open_until)
        return fresh

    def trip_on_silence(self, at: float) -> None:
        """Open on silence; does nothing while open."""
        if self.open_until is None:
            self.open_until = at + self._backoff.delay
            self.tripped_by_silence = True

    def clear_silence(self) -> None:
        """Close if silence had opened it."""
        if self.tripped_by_silence:
            self._close()

    def probe_ended(self, attempt: int) -> None:
        """Record the end of an attempt without evidence; a probe makes room for another."""
        if self.probe == attempt:
            self.probe = None

    def probe_lost(self, at: float) -> None:
        """Double the pause if the endpoint is silent during a probe."""
        if self.probe is not None:
            self._reopen(at)

    def failed(self, at: float, task: int | str, attempt: int, *, may_open: Callable[[], bool] = lambda: True) -> bool:
        """Record a lost attempt.

        Args:
            at: Current time in seconds.
            task: Id of its task, or its function if one bad function could fail many tasks.
            attempt: Id of the attempt.
            may_open: Called last; returns False under the panic threshold.

        Returns:
            Whether the breaker opened.
        """
        if self.open_until is not None:
            if self.probe != attempt:
                return False  # an attempt from before the pause
            if self.quarantine_reason is None and not self.tripped_by_silence and not may_open():
                self.probe_succeeded()  # panic threshold: a bad endpoint is better than none
                return False
            self._reopen(at)
            return True
        if at - self._last_failure >= SAME_INCIDENT:
            self._tasks.add(task)
            self._last_failure = at
        if len(self._tasks) < self._threshold or not may_open():
            return False
        self.open_until = at + self._backoff.delay
        return True

    def _reopen(self, at: float) -> None:
        self.probe = None
        self._backoff.next()
        self.open_until = at + self._backoff.delay

    def _close(self) -> None:
        self._backoff.reset()
        self.open_until = None
        self.probe = None
        self.tripped_by_silence = False
        self.quarantine_reason = None
