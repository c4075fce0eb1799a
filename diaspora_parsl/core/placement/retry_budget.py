"""The retry budget: a limit of the extra attempts of a pool."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.core.tasks import Task
from diaspora_parsl.core.timers import Deadlines

#: Seconds of the floor in the initial balance (Finagle keeps its tokens for ten seconds).
_INITIAL_SECONDS: Final = 10.0
#: Releases of paced tasks per second, so that many share one deadline.
_RELEASES_PER_SECOND: Final = 10


class RetryBudget:
    """A token bucket: first attempts add a share of a token, time adds a floor, and each extra attempt costs one.

    The figures are Finagle's (20 % and 10 per second: `finagle.service.RetryBudget`). One bucket serves all extra
    attempts, as in gRPC's retry throttling (proposal A6, "Throttling Retry Attempts and Hedged RPCs").

    Hedges and second opinions call `may_repeat`, which refuses them while the bucket is empty. Reroutes of lost work
    are never refused: they may incur a debt, and `delay` returns the seconds until it is paid.

    Args:
        settings: Settings of the pool: ``retry_budget_*`` and ``retry_max_delay``.
    """

    __slots__ = ("_counted_firsts", "_floor", "_most", "_refilled_at", "_share", "_tokens", "_wait", "firsts",
                 "refused", "spent")  # fmt: skip

    def __init__(self, settings: PoolSettings) -> None:
        self._share = settings.retry_budget_ratio
        self._floor = settings.retry_budget_per_second
        self._most = settings.retry_budget_max
        self._wait = settings.retry_max_delay
        self._tokens = min(self._most, self._floor * _INITIAL_SECONDS)
        self._refilled_at = 0.0
        self._counted_firsts = 0
        #: Number of first attempts.
        self.firsts = 0
        #: Number of extra attempts, including reroutes.
        self.spent = 0
        #: Number of refusals of `may_repeat`.
        self.refused = 0

    def may_repeat(self, now: float) -> bool:
        """Whether an optional extra attempt may be made now; the caller calls `spend` for it."""
        self._refill(now)
        if self._tokens >= 1.0:
            return True
        self.refused += 1
        return False

    def spend(self, now: float) -> None:
        """Spend a token for an extra attempt."""
        self._refill(now)
        self._tokens = max(self._tokens - 1.0, -self._floor * self._wait)
        self.spent += 1

    def delay(self, now: float) -> float:
        """Spend a token for lost work; return the seconds until the floor has paid the debt, up to the limit."""
        self._refill(now)
        lacking = 1.0 - self._tokens
        self.spend(now)
        if lacking <= 0.0:
            return 0.0
        return min(self._wait, lacking / self._floor) if self._floor else self._wait

    @property
    def tokens(self) -> float:
        """Balance at the last refill; a negative one is a debt."""
        return self._tokens

    def _refill(self, now: float) -> None:
        earned = (self.firsts - self._counted_firsts) * self._share + max(0.0, now - self._refilled_at) * self._floor
        self._counted_firsts = self.firsts
        self._refilled_at = max(self._refilled_at, now)
        self._tokens = min(self._most, self._tokens + earned)


class PacedRequeue:
    """Tasks that wait for the retry budget before they are queued again."""

    def __init__(self, deadlines: Deadlines, clock: Callable[[], float], release: Callable[[Task], None]) -> None:
        #: Release time and task, by task id.
        self.tasks: dict[int, tuple[float, Task]] = {}
        self._deadlines = deadlines
        self._clock = clock
        self._release = release

    def keep(self, task: Task, seconds: float) -> None:
        """Hold a task for these seconds, rounded up."""
        until = (int((self._clock() + seconds) * _RELEASES_PER_SECOND) + 1) / _RELEASES_PER_SECOND
        self.tasks[task.id] = (until, task)
        self._deadlines.at(until, ("paced", until), self._open)

    def remove(self, task: Task) -> bool:
        """Remove a task that was settled; return False if it is not here."""
        return self.tasks.pop(task.id, None) is not None

    def _open(self) -> None:
        now = self._clock()
        due = [task for until, task in self.tasks.values() if until <= now]
        for task in due:
            if self.tasks.pop(task.id, None) is not None:  # an earlier release may have settled it
                self._release(task)
