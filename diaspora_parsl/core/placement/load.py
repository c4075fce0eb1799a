"""Load model: slots, bound work and observed speed of an endpoint."""

from __future__ import annotations

from typing import Final

#: Weight of a new sample in the moving average of service times.
_ALPHA: Final = 0.2
#: Upper bound of attempts per slot.
_DEEPEST: Final = 1024


class Load:
    """Work that one endpoint holds, its speed, and its room for more.

    An endpoint holds as many attempts as it has slots, plus, for functions whose service time is known from successes,
    up to ``prefetch_seconds`` of work per slot (Little's law: work in the system = arrival rate x time). Each failure
    of a function makes its service time unknown.

    Args:
        prefetch_seconds: Seconds of known work bound per slot beyond what runs.
    """

    __slots__ = ("_last_done", "_service", "_work", "in_flight", "prefetch_seconds", "relative_speed", "slots")

    def __init__(self, prefetch_seconds: float = 1.0) -> None:
        self.slots = 0
        self.in_flight = 0
        self.relative_speed = 1.0
        """Service time here over the pool's mean of the same function: 2.0 is half as fast."""
        self.prefetch_seconds = prefetch_seconds
        self._work = 0.0
        self._service: dict[str, float] = {}
        self._last_done = float("-inf")

    def service(self, function: str) -> float | None:
        """Return the service time of this function in seconds; None if not known from successes."""
        return self._service.get(function)

    def has_idle_slot(self) -> bool:
        """Whether a worker waits for work."""
        return self.in_flight < self.slots

    def has_room(self, function: str) -> bool:
        """Whether one more attempt of this function may be bound."""
        if self.in_flight < self.slots:
            return True
        service = self._service.get(function)
        return (
            service is not None
            and self._work + service <= self.slots * self.prefetch_seconds
            and self.in_flight < self.slots * _DEEPEST
        )

    def backlog(self) -> float:
        """Seconds of known work per slot."""
        return self._work / max(1, self.slots)

    def bind(self, function: str) -> float:
        """Bind an attempt; return its seconds of work for `release`."""
        self.in_flight += 1
        work = self._service.get(function, self.prefetch_seconds)
        self._work += work
        return work

    def release(self, work: float) -> None:
        """Remove an attempt."""
        self.in_flight -= 1
        self._work = self._work - work if self.in_flight else 0.0

    def record_success(self, function: str, at: float, dispatched_at: float, *, queued: bool) -> float:
        """Learn from a success, before `release`; return the new estimate of the service time in seconds.

        While attempts queue, the time between two results is the service time over the number of busy slots.
        """
        if queued:
            gap = max(0.0, at - max(dispatched_at, self._last_done))
            sample = gap * min(max(1, self.slots), self.in_flight)
        else:
            sample = max(0.0, at - dispatched_at)
        self._last_done = at
        known = self._service.get(function)
        estimate = sample if known is None else known + _ALPHA * (sample - known)
        self._service[function] = estimate
        return estimate

    def record_failure(self, function: str) -> None:
        """Forget the service time of a function that failed."""
        self._service.pop(function, None)

    def reset(self) -> None:
        """Start a new generation without bound work or known service times."""
        self.in_flight = 0
        self._work = 0.0
        self._service.clear()
        self._last_done = float("-inf")

    def score(self) -> float:
        """Return the load per slot, weighted by the relative service time; lower is better."""
        return self.relative_speed * (1.0 + self.in_flight / max(1, self.slots))


class RelativeSpeed:
    """Mean service time per function over the pool, to compare endpoints."""

    __slots__ = ("_mean",)

    def __init__(self) -> None:
        self._mean: dict[str, float] = {}

    def mean(self, function: str) -> float | None:
        """Return the mean service time of this function in seconds; None if unknown."""
        return self._mean.get(function)

    def learn(self, load: Load, function: str, estimate: float) -> None:
        """Update the pool's mean for the function, and the endpoint's relative speed."""
        mean = self._mean.get(function, estimate)
        mean += 0.05 * (estimate - mean)
        self._mean[function] = mean
        if mean > 0.0:
            load.relative_speed += _ALPHA * (min(10.0, max(0.1, estimate / mean)) - load.relative_speed)
