"""Hedging: a second attempt elsewhere for an attempt that is slow for its function and endpoint."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final

from diaspora_parsl.core.placement.retry_budget import RetryBudget
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.core.tasks import Attempt, AttemptState, Task
from diaspora_parsl.core.timers import Deadlines

#: Number of durations kept per function and endpoint.
_REMEMBERED: Final = 100
#: Number of new durations after which the quantile is computed again.
_REFRESH_RESULTS: Final = 10
#: Seconds between two checks of an endpoint whose slow attempts cannot be hedged now.
_RECHECK_SECONDS: Final = 0.5
#: Seconds for which a superseded attempt occupies its slot at a live endpoint.
SLOT_HOLD_SECONDS: Final = 60.0
#: Number of idle endpoints compared for one hedge.
_COMPARED: Final = 32


class RunTimes:
    """Last durations of one function at one endpoint, and their quantile."""

    __slots__ = ("_computed_at", "_durations", "_quantile", "count")

    def __init__(self) -> None:
        self.count = 0
        self._durations: deque[float] = deque(maxlen=_REMEMBERED)
        self._quantile = 0.0
        self._computed_at = -_REFRESH_RESULTS

    def add(self, seconds: float) -> None:
        """Record the duration of an attempt."""
        self.count += 1
        self._durations.append(seconds)

    def quantile(self, share: float) -> float:
        """Return this quantile of the last durations, in seconds; up to ten results old."""
        if self.count - self._computed_at >= _REFRESH_RESULTS:
            self._computed_at = self.count
            ordered = sorted(self._durations)
            self._quantile = ordered[math.ceil(share * len(ordered)) - 1]
        return self._quantile


class Hedger:
    """Sends a second attempt for an attempt that runs too long.

    Hedged requests follow Dean and Barroso, "The Tail at Scale" (CACM 56:2, 2013): the second attempt starts when the
    first exceeds a high quantile. They use the 95th percentile; here it is a multiple of the 90th, as Spark uses a
    multiple of the median. If every twentieth run is slow, the 95th percentile is itself slow; without slow runs, a
    multiple excludes the ordinary tail (1 % of exponential run times exceed twice the 90th percentile).

    Time counts from the estimated start: the dispatch if a slot was idle, otherwise the time at which enough earlier
    attempts had ended, as endpoints run attempts in order.

    Args:
        settings: Settings of the pool.
        scheduler: Finds an endpoint and dispatches the hedge.
        budget: Retry budget of the pool.
        deadlines: Timers of the core; each endpoint has at most one here.
        clock: Returns the time of the current stimulus.
        update_health: Updates the health of an endpoint.
    """

    def __init__(
        self,
        settings: PoolSettings,
        scheduler: Scheduler,
        budget: RetryBudget,
        deadlines: Deadlines,
        clock: Callable[[], float],
        update_health: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._scheduler = scheduler
        self._budget = budget
        self._deadlines = deadlines
        self._clock = clock
        self._update_health = update_health
        self._is_on = settings.hedging and len(scheduler.loads) > 1
        self._histories: dict[str, dict[str, RunTimes]] = {label: {} for label in scheduler.loads}
        #: Prefetched attempts that have not begun, in order.
        self._prefetched: dict[str, deque[Attempt]] = {label: deque() for label in scheduler.loads}
        #: Time of the next check of each endpoint.
        self._next = dict.fromkeys(scheduler.loads, float("inf"))
        self._live: list[Task] = []
        #: Number of hedges dispatched.
        self.count = 0

    # --- called for every task: kept cheap ------------------------------------------------------------------------

    def dispatched(self, attempt: Attempt) -> None:
        """Record a dispatched attempt."""
        if not self._is_on:
            return
        label = attempt.endpoint
        if attempt.queued:
            self._prefetched[label].append(attempt)
        if attempt.task.idempotent and self._next[label] > attempt.dispatched_at + self._settings.hedge_min_seconds:
            limit = self.limit(label, attempt.task.function)
            if limit is not None:
                self._check_at(label, attempt.dispatched_at + limit)

    def observe_end(self, attempt: Attempt, at: float, *, succeeded: bool) -> None:
        """Learn from an attempt that ended, and mark the next prefetched one as begun."""
        if not self._is_on:
            return
        label, began = attempt.endpoint, attempt.began
        if succeeded and began is not None and attempt.task.idempotent:
            histories = self._histories[label]
            history = histories.get(attempt.task.function)
            if history is None:
                history = histories[attempt.task.function] = RunTimes()
            history.add(at - began)
            if history.count == self._settings.hedge_min_results:
                self._check_at(label, at + self._settings.hedge_min_seconds)
        if self._prefetched[label]:
            self._begin(label, at)

    def _begin(self, label: str, at: float) -> None:
        prefetched, held, load = self._prefetched[label], self._scheduler.held[label], self._scheduler.loads[label]
        while prefetched:
            if prefetched[0].id not in held:
                prefetched.popleft()
            elif load.in_flight - len(prefetched) < load.slots:
                prefetched.popleft().began = at
            else:
                return

    # --- slow attempts --------------------------------------------------------------------------------------------

    def limit(self, label: str, function: str) -> float | None:
        """Seconds after which an attempt of this function counts as slow there; None if not known yet."""
        history = self._histories[label].get(function)
        s = self._settings
        if history is None or history.count < s.hedge_min_results:
            return None
        # With deeper prefetch, results arrive in larger groups.
        floor = s.hedge_min_seconds * max(1.0, self._scheduler.loads[label].prefetch_seconds / s.prefetch_seconds)
        return max(floor, s.hedge_factor * history.quantile(s.hedge_quantile))

    def _check_at(self, label: str, at: float) -> None:
        if at < self._next[label]:
            self._next[label] = at
            self._deadlines.at(at, ("hedge", label), lambda: self._check(label))

    def _check(self, label: str) -> None:
        """Hedge slow attempts at this endpoint, and plan the next check while others may become slow."""
        now = self._clock()
        self._next[label] = float("inf")
        self._begin(label, now)  # the endpoint may have more slots
        following = float("inf")
        for attempt in list(self._scheduler.held[label].values()):
            task, began = attempt.task, attempt.began
            if began is None:
                following = min(following, now + _RECHECK_SECONDS)
                break  # later ones have not begun either
            if attempt.state is not AttemptState.BOUND or not task.idempotent or task.hedge is not None:
                continue
            limit = self.limit(label, task.function)
            if limit is None:
                continue
            if now - began < limit:
                following = min(following, began + limit)
            elif not self._hedge(attempt, now - began, limit):
                following = min(following, now + _RECHECK_SECONDS)
        if following < float("inf"):
            # Limit the rate, as a check of ten thousand slots is expensive.
            self._check_at(label, max(following, now + self._settings.hedge_min_seconds / 2))

    def _hedge(self, late: Attempt, age: float, limit: float) -> bool:
        """Dispatch a second attempt if an endpoint, the budget and the number of live hedges allow it."""
        task, now, s = late.task, self._clock(), self._settings
        if task.attempts + 1 >= s.max_attempts:
            return False  # keep one attempt for a loss
        label = self._place(late, age)
        if label is None or not self._has_room() or not self._budget.may_repeat(now):
            return False
        history = self._histories[late.endpoint][task.function]
        usual = history.quantile(s.hedge_quantile)
        reason = (
            f"hedge: attempt {late.id} at {late.endpoint} has run for {age:.3g} s; the limit is {limit:.3g} s, "
            f"{s.hedge_factor:g} times the {s.hedge_quantile:g} quantile ({usual:.3g} s) of the last "
            f"{min(history.count, _REMEMBERED)} there; {label} has an idle slot"
        )
        self._budget.spend(now)
        self.count += 1
        self._live.append(task)
        self._scheduler.hedge(task, label, now, reason)
        return True

    def _place(self, late: Attempt, age: float) -> str | None:
        """Return the best other open endpoint with an idle slot that would have finished the task by now."""
        task, scheduler = late.task, self._scheduler
        best, best_score = None, float("inf")
        for count, label in enumerate(scheduler.idle):
            if count >= _COMPARED and best is not None:
                break
            if label == late.endpoint or label not in scheduler.open or label not in task.eligible:
                continue
            if (task.avoided is not None and label in task.avoided) or scheduler.declines(label, task, self._clock()):
                continue
            load = scheduler.loads[label]
            service = load.service(task.function)
            if (service is None or service < age) and load.score() < best_score:
                best, best_score = label, load.score()
        return best

    def _has_room(self) -> bool:
        self._live = [task for task in self._live if task.hedge is not None]
        scheduler = self._scheduler
        slots = sum(scheduler.loads[label].slots for label in scheduler.open)
        return len(self._live) < max(1.0, self._settings.hedge_max_ratio * slots)

    # --- superseded attempts --------------------------------------------------------------------------------------

    def lost(self, loser: Attempt) -> None:
        """Hold the slot of a superseded attempt, which cannot be cancelled, until it ends."""
        label = loser.endpoint
        self._deadlines.at(self._clock() + SLOT_HOLD_SECONDS, ("losers", label), lambda: self._vacate(label))

    def _vacate(self, label: str) -> None:
        """Free the slots of superseded attempts at an endpoint that is not open, so that it can be probed."""
        scheduler = self._scheduler
        losers = [a for a in scheduler.held[label].values() if a.state is AttemptState.SUPERSEDED]
        if losers and label in scheduler.open:
            self.lost(losers[0])
        elif losers:
            scheduler.vacate(label, [loser.id for loser in losers])
            self._update_health(label)
