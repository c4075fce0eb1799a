"""A circuit breaker per endpoint: closed, open, half-open."""

from __future__ import annotations

from typing import Final

THRESHOLD: Final = 5
FIRST_PAUSE: Final = 10.0
LONGEST_PAUSE: Final = 300.0
SAME_INCIDENT: Final = 0.5


class Breaker:
    """Opens after consecutive infrastructure failures; one probe decides whether it closes.

    Failures less than half a second apart are one incident (a lost node fails all it held at once), and one task counts
    once in a row, so that a single bad input opens nothing. The pause doubles each time the probe fails.

    Args:
        threshold: incidents in a row, without a success between them, that open it.
        first_pause: seconds until the first probe.
        longest_pause: upper bound of the doubling, seconds.
    """

    __slots__ = ("_first_pause", "_last_failure", "_longest_pause", "_pause", "_tasks", "_threshold", "open_until",
                 "probing")  # fmt: skip

    def __init__(
        self, threshold: int = THRESHOLD, first_pause: float = FIRST_PAUSE, longest_pause: float = LONGEST_PAUSE
    ) -> None:
        self._threshold = threshold
        self._first_pause = first_pause
        self._longest_pause = longest_pause
        self._pause = first_pause
        self._tasks: set[int] = set()
        self._last_failure = float("-inf")
        self.open_until: float | None = None
        self.probing = False

    @property
    def failures(self) -> int:
        """Incidents in a row."""
        return len(self._tasks)

    def is_open(self, at: float) -> bool:
        """No attempt may go there now, a probe neither."""
        return self.open_until is not None and (at < self.open_until or self.probing)

    def is_half_open(self, at: float) -> bool:
        """Exactly one attempt may go there now, as a probe."""
        return self.open_until is not None and at >= self.open_until and not self.probing

    def dispatched(self, at: float) -> None:
        """An attempt went there; in the half-open state it is the probe."""
        if self.is_half_open(at):
            self.probing = True

    def succeeded(self) -> None:
        """A result came back: closed, and all is forgotten."""
        self._tasks.clear()
        self._pause = self._first_pause
        self.open_until = None
        self.probing = False

    def trip(self, at: float) -> None:
        """Open it now, on other evidence than failures; does nothing if it is open already."""
        if self.open_until is None:
            self.open_until = at + self._pause

    def undecided(self) -> None:
        """The probe ended without telling anything about the place: another may go."""
        self.probing = False

    def failed(self, at: float, task: int, *, may_open: bool = True) -> bool:
        """An attempt was lost there.

        Args:
            at: time, seconds.
            task: whose attempt it was.
            may_open: False while too much of the pool is out already.

        Returns:
            True if the breaker opened now.
        """
        if self.open_until is not None:
            if not self.probing:
                return False  # an old attempt; the pause is running already
            self.probing = False
            self._pause = min(self._longest_pause, self._pause * 2)
            self.open_until = at + self._pause
            return True
        if at - self._last_failure >= SAME_INCIDENT:
            self._tasks.add(task)
            self._last_failure = at
        if len(self._tasks) < self._threshold or not may_open:
            return False
        self.open_until = at + self._pause
        return True
