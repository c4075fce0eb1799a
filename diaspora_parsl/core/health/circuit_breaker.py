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

    Failures less than half a second apart are one incident (a lost node fails all it held at once), and one task counts
    once in a row, so that a single bad input opens nothing. The pause doubles each time the probe fails.

    A doubt (silence) opens it too, and closes it by ending; what failures opened only a result closes. What was opened
    by order closes by the result of a probe, or by order.

    Args:
        threshold: incidents in a row, without a success between them, that open it.
        first_pause: seconds until the first probe.
        longest_pause: upper bound of the doubling, seconds.
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
        #: The attempt that is the probe now.
        self.probe: int | None = None
        #: A doubt, not failures, opened it.
        self.tripped_by_silence = False
        #: Reason of the operator who quarantined it.
        self.quarantine_reason: str | None = None

    @property
    def failures(self) -> int:
        """Incidents in a row."""
        return len(self._tasks)

    @property
    def is_tripped(self) -> bool:
        """Failures opened it."""
        return self.open_until is not None and not self.tripped_by_silence

    def is_half_open(self, at: float) -> bool:
        """Exactly one attempt may go there now, as a probe."""
        return self.open_until is not None and at >= self.open_until and self.probe is None

    def dispatched(self, at: float, attempt: int) -> None:
        """An attempt went there; in the half-open state it is the probe."""
        if self.is_half_open(at):
            self.probe = attempt

    def probe_succeeded(self, attempt: int | None = None) -> None:
        """A result of this attempt came back: closed, and all is forgotten."""
        self._tasks.clear()
        if self.quarantine_reason is None or (attempt is not None and attempt == self.probe):
            self._close()

    def quarantine(self, reason: str, until: float) -> None:
        """Open it by order; from then on a probe may go."""
        self.open_until, self.quarantine_reason, self.tripped_by_silence, self.probe = until, reason, False, None

    def postpone_probe(self, at: float, seconds: float) -> None:
        """If no probe may go yet, let the next one wait for so much longer."""
        if self.open_until is not None and self.open_until > at:
            self.open_until += seconds

    def end_quarantine(self) -> None:
        """Close it, if it was opened by order."""
        if self.quarantine_reason is not None:
            self._close()

    def for_next_generation(self) -> CircuitBreaker:
        """Return a fresh breaker that keeps only an operator's quarantine."""
        fresh = CircuitBreaker(self._threshold, self._backoff.first, self._backoff.longest)
        if self.quarantine_reason is not None and self.open_until is not None:
            fresh.quarantine(self.quarantine_reason, self.open_until)
        return fresh

    def trip_on_silence(self, at: float) -> None:
        """Open it now, on other evidence than failures; does nothing if it is open already."""
        if self.open_until is None:
            self.open_until = at + self._backoff.delay
            self.tripped_by_silence = True

    def clear_silence(self) -> None:
        """The doubt is gone: closed, if the doubt had opened it."""
        if self.tripped_by_silence:
            self._close()

    def probe_ended(self, attempt: int) -> None:
        """An attempt ended, or is not waited for any more; a probe that told nothing makes room for another."""
        if self.probe == attempt:
            self.probe = None

    def probe_lost(self, at: float) -> None:
        """The probe, if there is one, found no sign of life: pause for twice as long."""
        if self.probe is not None:
            self._reopen(at)

    def failed(self, at: float, task: int | str, attempt: int, *, may_open: Callable[[], bool] = lambda: True) -> bool:
        """An attempt was lost there.

        Args:
            at: time, seconds.
            task: whose attempt it was; the function, if one bad function could fail many tasks.
            attempt: which it was.
            may_open: asked last; False while too much of the pool is out already, or nobody else could do better.

        Returns:
            True if the breaker opened now.
        """
        if self.open_until is not None:
            if self.probe != attempt:
                return False  # an old attempt; the pause is running already
            if self.quarantine_reason is None and not self.tripped_by_silence and not may_open():
                self.probe_succeeded()  # panic: a bad place is better than none
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
