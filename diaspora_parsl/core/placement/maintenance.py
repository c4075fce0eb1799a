"""Planned states: drains, maintenance windows, an operator's quarantine, ends of blocks, environments."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, Protocol

from diaspora_parsl.core import stimuli
from diaspora_parsl.core.health.assessor import HealthAssessor
from diaspora_parsl.core.history import History
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.tasks import Attempt
from diaspora_parsl.core.timers import Deadlines


class _UpdateHealth(Protocol):
    def __call__(self, label: str) -> None: ...


class MaintenancePlanner:
    """The part of `PoolCore` that follows the calendar; ``back`` revives a dead endpoint after a hold ends."""

    def __init__(
        self,
        assessor: HealthAssessor,
        scheduler: Scheduler,
        deadlines: Deadlines,
        history: History,
        *,
        update_health: _UpdateHealth,
        back: Callable[[str], None],
    ) -> None:
        self.calendar = Calendar(assessor.health)
        self._assessor = assessor
        self._scheduler = scheduler
        self._deadlines = deadlines
        self._history = history
        self._update_health = update_health
        self._back = back

    # --- requests of operators ------------------------------------------------------------------------------------

    def on_drain(self, s: stimuli.Drain) -> None:
        """Drain an endpoint."""
        self.calendar.drain(s.endpoint, s.reason, s.until)
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def on_resume(self, s: stimuli.Resume) -> None:
        """End the current hold of an endpoint, including an operator's quarantine."""
        self.calendar.resume(s.endpoint, s.at)
        self._assessor.health[s.endpoint].breaker.end_quarantine()
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def on_quarantine(self, s: stimuli.Quarantine) -> None:
        """Quarantine an endpoint for an operator."""
        self._assessor.health[s.endpoint].breaker.quarantine(s.reason, s.until)
        self._update_health(s.endpoint)
        self._answer(s.request, s.endpoint)

    def on_maintenance(self, s: stimuli.Maintenance) -> None:
        """Plan a maintenance window, or cancel all."""
        if s.start is None or s.end is None:
            self.calendar.cancel(s.endpoint)
        elif s.end > s.at:
            self.calendar.plan(s.endpoint, Window(s.start, s.end, s.reason))
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def _answer(self, request: str, label: str) -> None:
        if request:
            self._history.answered(request, label, self._scheduler.verdicts[label], self._scheduler.live[label])

    # --- timers ---------------------------------------------------------------------------------------------------

    def _follow(self, label: str, at: float) -> None:
        """Apply the calendar's current state, and plan its next change."""
        health, calendar = self._assessor.health[label], self.calendar
        hold = calendar.hold(label, at)
        self._scheduler.walltime_fit.window_at(label, calendar.next_start(label, at))
        was_held = health.draining is not None
        health.draining = None if hold is None else hold.reason
        health.drained_until = None if hold is None else hold.until
        if was_held and hold is None:
            self._back(label)
        change = calendar.next_change(label, at)
        if change is not None:
            # First, so that nothing is dispatched or revived at the start of a window.
            self._deadlines.at(change, ("calendar", label), lambda: self._follow(label, change), first=True)
        self._update_health(label)

    def blocks_end(self, label: str, until: float | None, at: float) -> None:
        """Record when the last block of an endpoint ends, as the endpoint reports."""
        self._scheduler.walltime_fit.blocks_end(label, until, at)
        if until is not None and until > at:
            self._deadlines.at(until, ("blocks", label), lambda: self._blocks_ended(label, until))

    def _blocks_ended(self, label: str, at: float) -> None:
        """Fill idle endpoints at the end of the blocks, or wait for blocks that started meanwhile."""
        until = self._scheduler.walltime_fit.end_of_blocks(label)
        if until is not None and until > at:
            self.blocks_end(label, until, at)
        else:
            self._scheduler.fill_idle(at)

    # --- environments ---------------------------------------------------------------------------------------------

    def on_environment(self, s: stimuli.Environment) -> None:
        """Record the installed modules of an endpoint."""
        if s.generation == self._assessor.health[s.endpoint].generation:
            self._try_again_at(self._scheduler.environments.learn(s.endpoint, s.modules, s.at), s.endpoint)
            self._scheduler.fill_idle(s.at)

    def sent(self, attempt: Attempt) -> None:
        """Record the dispatch of a task with imports."""
        environments = self._scheduler.environments
        self._try_again_at(environments.tried(attempt.endpoint, attempt.task, attempt.dispatched_at), attempt.endpoint)

    def _try_again_at(self, trial: float | None, label: str) -> None:
        """Plan a trial of functions whose imports the endpoint seems to lack."""
        if trial is not None:
            self._deadlines.at(trial, ("trial", label, trial), lambda: self._scheduler.fill_idle(trial))


_NEVER: Final = float("inf")


class Window(NamedTuple):
    """A maintenance window; times are seconds on the clock of the core."""

    start: float
    end: float
    reason: str


class Hold(NamedTuple):
    """Reason for which an endpoint gets no attempts."""

    reason: str
    until: float
    """Time at which the hold ends; infinity: never."""


class Calendar:
    """Drains and maintenance windows of all endpoints, without any effect; queries drop what is over."""

    def __init__(self, labels: Iterable[str]) -> None:
        self._windows: dict[str, list[Window]] = {label: [] for label in labels}
        self._drained: dict[str, Hold] = {}

    def drain(self, label: str, reason: str, until: float | None) -> None:
        """Hold the endpoint until then or until `resume`; the last call counts."""
        self._drained[label] = Hold(reason, _NEVER if until is None else until)

    def plan(self, label: str, window: Window) -> bool:
        """Add a window; return False if one with these times exists."""
        windows = self._windows[label]
        if any(known[:2] == window[:2] for known in windows):
            return False
        windows.append(window)
        windows.sort()
        return True

    def cancel(self, label: str) -> int:
        """Remove every window of an endpoint; return their number."""
        count = len(self._windows[label])
        self._windows[label].clear()
        return count

    def resume(self, label: str, at: float) -> None:
        """End every current hold; future windows stay."""
        self._drained.pop(label, None)
        self._windows[label] = [window for window in self._windows[label] if window.start > at]

    def hold(self, label: str, at: float) -> Hold | None:
        """Return the current hold, an operator's first; adjoining and overlapping windows end together."""
        drained = self._drained.get(label)
        if drained is not None and drained.until <= at:
            del self._drained[label]
            drained = None
        if self._windows[label]:
            self._windows[label] = [window for window in self._windows[label] if window.end > at]
        end, reason = at, ""
        for window in self._windows[label]:
            if window.start <= end:
                reason = reason or window.reason
                end = max(end, window.end)
        if drained is None:
            return Hold(reason, end) if end > at else None
        return drained if end <= drained.until else Hold(drained.reason, end)

    def next_start(self, label: str, at: float) -> float:
        """Time at which the next window begins; infinity without one."""
        return min((window.start for window in self._windows[label] if window.start > at), default=_NEVER)

    def next_change(self, label: str, at: float) -> float | None:
        """Time at which `hold` or `next_start` changes; None: never."""
        drained = self._drained.get(label)
        times = [_NEVER if drained is None else drained.until]
        times += [time for window in self._windows[label] for time in window[:2]]
        soonest = min((time for time in times if time > at), default=_NEVER)
        return None if soonest == _NEVER else soonest
