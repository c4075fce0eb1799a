"""Whether an endpoint that says "online" does anything: the flow of its results, and canaries where there is none."""

from __future__ import annotations

from typing import Final

from diaspora_parsl.backoff import backoff_delay

#: While all its workers may be busy, silence is normal: it counts after so many times the longest so far,
_USUAL: Final = 3.0
#: or after so many times the patience, if nothing is known.
_LONGEST: Final = 20.0


class SignsOfLife:
    """Watches what was sent to an endpoint and what came back. Knows no clock; all times are seconds.

    Results are signs of life. Where they are due and do not come, a canary is asked for: a task that does nothing. If
    that does not come back either, the endpoint is silent. A canary can only be expected to come back where a worker
    is free for it; where all may be busy, silence counts only if it is long by what was seen before.

    A canary that comes back while tasks do not makes the next one wait twice as long: long tasks are no trouble.

    Args:
        patience: seconds without a result after which an endpoint with a free worker is silent.
    """

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._most = patience * _LONGEST
        self._out = 0
        self._quiet_since: float | None = None
        self._longest_gap: float | None = None
        self._answered = 0
        self._canary_sent: float | None = None

    @property
    def outstanding(self) -> int:
        """Tasks that were accepted and have not come back."""
        return self._out

    @property
    def has_canary(self) -> bool:
        """A canary is under way."""
        return self._canary_sent is not None

    def accepted(self, at: float, count: int = 1) -> None:
        """The endpoint, or its service, took tasks."""
        if self._out == 0:
            self._quiet_since = at
        self._out += count

    def returned(self, at: float) -> None:
        """A task came back, with whatever result."""
        if self._quiet_since is not None:
            self._longest_gap = max(self._longest_gap or 0.0, at - self._quiet_since)
        self._answered = 0
        self._canary_sent = None
        self.forgotten(at)
        self._quiet_since = at if self._out else None

    def forgotten(self, at: float) -> None:
        """A task will never come back, which says nothing about the endpoint."""
        self._out = max(0, self._out - 1)
        if self._out == 0:
            self._quiet_since = self._canary_sent = None
        elif self._quiet_since is None:
            self._quiet_since = at

    def forgiven(self, at: float) -> None:
        """Until now it could not say anything, as is known: its silence counts from now on."""
        if self._quiet_since is not None:
            self._quiet_since = at
            self._canary_sent = None

    def limit(self, slots: int) -> float:
        """Return the seconds of silence that are normal for a number of workers."""
        patience = backoff_delay(self._patience, self._most, self._answered)
        if self._out < slots:
            return patience
        if self._longest_gap is None:
            return self._most
        return min(self._most, max(patience, _USUAL * self._longest_gap))

    def wants_canary(self, at: float, slots: int) -> bool:
        """Return whether results are due and no canary is pending."""
        if self._quiet_since is None or at - self._quiet_since <= self.limit(slots) / 2:
            return False
        return self._canary_sent is None or at - self._canary_sent > self.limit(slots) * 2

    def canary_sent(self, at: float) -> None:
        """A canary is under way."""
        self._canary_sent = at

    def canary_returned(self, at: float) -> None:
        """It lives; the tasks that it has simply take their time."""
        self._canary_sent = None
        if self._quiet_since is not None:
            self._quiet_since = at
            self._answered += 1

    def silent_since(self, at: float, slots: int) -> float | None:
        """Since when it should have said something and did not, or None."""
        since = self._quiet_since
        if since is None or self._canary_sent is None or at - since <= self.limit(slots):
            return None
        return since
