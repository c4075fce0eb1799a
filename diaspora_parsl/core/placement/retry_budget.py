"""The retry budget: how many attempts beside the first ones a pool may make."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.core.tasks import Task
from diaspora_parsl.core.timers import Deadlines

#: A pool that starts has saved this many seconds of the floor (Finagle keeps its tokens for ten seconds).
_INITIAL_SECONDS: Final = 10.0
#: Paced tasks are let go together so many times per second, so that many share one deadline.
_RELEASES_PER_SECOND: Final = 10


class RetryBudget:
    """A token bucket: each first attempt brings a share of a token, time brings a floor, each extra attempt costs one.

    The figures are Finagle's (20 % and 10 per second: `finagle.service.RetryBudget`). That one bucket serves
    everything, so that many failures leave nothing for luxuries, is gRPC's retry throttling (proposal A6, "Throttling
    Retry Attempts and Hedged RPCs").

    Luxuries (hedges, second opinions) ask `may_repeat` and are refused while the bucket is empty. Reroutes of lost work
    are never refused: what they take too much is a debt, and `pace` says how long to wait until it is paid off.

    Args:
        settings: of the pool; read are ``retry_budget_ratio``, ``retry_budget_per_second``, ``retry_budget_max``
            and ``retry_max_delay``.
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
        #: First attempts made: the only thing counted for each task.
        self.firsts = 0
        #: Extra attempts made, reroutes among them.
        self.spent = 0
        #: Times that `may_repeat` said no.
        self.refused = 0

    def may_repeat(self, now: float) -> bool:
        """Whether an attempt that is not strictly needed may be made now; `spend` it if it is made."""
        self._refill(now)
        if self._tokens >= 1.0:
            return True
        self.refused += 1
        return False

    def spend(self, now: float) -> None:
        """An extra attempt is made."""
        self._refill(now)
        self._tokens = max(self._tokens - 1.0, -self._floor * self._wait)
        self.spent += 1

    def delay(self, now: float) -> float:
        """Spend a token for work that was lost; returns how many seconds it should wait first, 0 if there was a token.

        The wait is what the floor needs to pay the debt, at most ``retry_max_delay``.
        """
        self._refill(now)
        lacking = 1.0 - self._tokens
        self.spend(now)
        if lacking <= 0.0:
            return 0.0
        return min(self._wait, lacking / self._floor) if self._floor else self._wait

    @property
    def tokens(self) -> float:
        """What was left when it was last looked at; below 0 is a debt."""
        return self._tokens

    def _refill(self, now: float) -> None:
        earned = (self.firsts - self._counted_firsts) * self._share + max(0.0, now - self._refilled_at) * self._floor
        self._counted_firsts = self.firsts
        self._refilled_at = max(self._refilled_at, now)
        self._tokens = min(self._most, self._tokens + earned)


class PacedRequeue:
    """Tasks that wait for the budget before they go back into their line.

    Args:
        deadlines: of the core.
        clock: the time of the stimulus at hand.
        release: puts a task into its line.
    """

    def __init__(self, deadlines: Deadlines, clock: Callable[[], float], release: Callable[[Task], None]) -> None:
        #: By id: the task, and until when it waits.
        self.tasks: dict[int, tuple[float, Task]] = {}
        self._deadlines = deadlines
        self._clock = clock
        self._release = release

    def keep(self, task: Task, seconds: float) -> None:
        """Let a task wait so long, rounded up."""
        until = (int((self._clock() + seconds) * _RELEASES_PER_SECOND) + 1) / _RELEASES_PER_SECOND
        self.tasks[task.id] = (until, task)
        self._deadlines.at(until, ("paced", until), self._open)

    def remove(self, task: Task) -> bool:
        """A task was settled while it waited; False if it is not here."""
        return self.tasks.pop(task.id, None) is not None

    def _open(self) -> None:
        now = self._clock()
        due = [task for until, task in self.tasks.values() if until <= now]
        for task in due:
            if self.tasks.pop(task.id, None) is not None:  # one let go before it may have changed everything
                self._release(task)
