"""What is known before: drains, windows of maintenance, quarantine by hand, ends of blocks, environments."""

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
    """The part of a `PoolCore` that follows the calendar.

    Args:
        board: its verdicts follow ``draining`` and the breakers.
        scheduler: asks the horizon before it sends anything.
        deadlines: of the core.
        chronicle: tells the answers to requests.
        judge: looks at an endpoint again.
        back: called for an endpoint that is not held any more, before it is judged.
    """

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

    # --- what others ask for --------------------------------------------------------------------------------------

    def on_drain(self, s: stimuli.Drain) -> None:
        """No new attempts; what runs may finish."""
        self.calendar.drain(s.endpoint, s.reason, s.until)
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def on_resume(self, s: stimuli.Resume) -> None:
        """Whatever holds it now is over, a quarantine by hand included."""
        self.calendar.resume(s.endpoint, s.at)
        self._assessor.health[s.endpoint].breaker.end_quarantine()
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def on_quarantine(self, s: stimuli.Quarantine) -> None:
        """No new attempts for a while, and then only once a probe succeeded."""
        self._assessor.health[s.endpoint].breaker.quarantine(s.reason, s.until)
        self._update_health(s.endpoint)
        self._answer(s.request, s.endpoint)

    def on_maintenance(self, s: stimuli.Maintenance) -> None:
        """A window was announced, or all of them were called off."""
        if s.start is None or s.end is None:
            self.calendar.cancel(s.endpoint)
        elif s.end > s.at:
            self.calendar.plan(s.endpoint, Window(s.start, s.end, s.reason))
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def _answer(self, request: str, label: str) -> None:
        if request:
            self._history.answered(request, label, self._scheduler.verdicts[label], self._scheduler.live[label])

    # --- what time brings -----------------------------------------------------------------------------------------

    def _follow(self, label: str, at: float) -> None:
        """Do what the calendar says of now, and look again when it says something else."""
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
            # Nothing may be sent, or rebuilt, at the very time at which that begins to be unwanted.
            self._deadlines.at(change, ("calendar", label), lambda: self._follow(label, change), first=True)
        self._update_health(label)

    def blocks_end(self, label: str, until: float | None, at: float) -> None:
        """When the last of its blocks ends, as the endpoint itself says."""
        self._scheduler.walltime_fit.blocks_end(label, until, at)
        if until is not None and until > at:
            self._deadlines.at(until, ("blocks", label), lambda: self._blocks_ended(label, until))

    def _blocks_ended(self, label: str, at: float) -> None:
        """The blocks should be gone. If others came meanwhile, look again when those end."""
        until = self._scheduler.walltime_fit.end_of_blocks(label)
        if until is not None and until > at:
            self.blocks_end(label, until, at)
        else:
            self._scheduler.fill_idle(at)

    # --- what is installed ----------------------------------------------------------------------------------------

    def on_environment(self, s: stimuli.Environment) -> None:
        """An endpoint said what it has: functions that need more go elsewhere first."""
        if s.generation == self._assessor.health[s.endpoint].generation:
            self._try_again_at(self._scheduler.environments.learn(s.endpoint, s.modules, s.at), s.endpoint)
            self._scheduler.fill_idle(s.at)

    def sent(self, attempt: Attempt) -> None:
        """An attempt of a task that imports something was sent off."""
        environments = self._scheduler.environments
        self._try_again_at(environments.tried(attempt.endpoint, attempt.task, attempt.dispatched_at), attempt.endpoint)

    def _try_again_at(self, trial: float | None, label: str) -> None:
        """Functions that an endpoint seems to have no environment for may go there then, once."""
        if trial is not None:
            self._deadlines.at(trial, ("trial", label, trial), lambda: self._scheduler.fill_idle(trial))


_NEVER: Final = float("inf")


class Window(NamedTuple):
    """A time in which an endpoint is not to be used; seconds on the clock of the core."""

    start: float
    end: float
    reason: str


class Hold(NamedTuple):
    """Why an endpoint gets nothing now."""

    reason: str
    until: float
    """When that ends by itself; infinity: never."""


class Calendar:
    """Knows what is planned, does nothing about it. What is over is forgotten as time is told.

    Args:
        labels: of the endpoints.
    """

    def __init__(self, labels: Iterable[str]) -> None:
        self._windows: dict[str, list[Window]] = {label: [] for label in labels}
        self._drained: dict[str, Hold] = {}

    def drain(self, label: str, reason: str, until: float | None) -> None:
        """Hold it from now on, until then or until `resume`; the last word counts."""
        self._drained[label] = Hold(reason, _NEVER if until is None else until)

    def plan(self, label: str, window: Window) -> bool:
        """Note a window; False if it is known, with these times."""
        windows = self._windows[label]
        if any(known[:2] == window[:2] for known in windows):
            return False
        windows.append(window)
        windows.sort()
        return True

    def cancel(self, label: str) -> int:
        """Forget every window of an endpoint; returns how many there were."""
        count = len(self._windows[label])
        self._windows[label].clear()
        return count

    def resume(self, label: str, at: float) -> None:
        """End every hold that is in force; windows to come stay."""
        self._drained.pop(label, None)
        self._windows[label] = [window for window in self._windows[label] if window.start > at]

    def hold(self, label: str, at: float) -> Hold | None:
        """What holds it now: by hand before planned; windows that meet or overlap end as one."""
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
        """When the next window begins; infinity if none is planned."""
        return min((window.start for window in self._windows[label] if window.start > at), default=_NEVER)

    def next_change(self, label: str, at: float) -> float | None:
        """When time alone will change `hold` or `next_start`."""
        drained = self._drained.get(label)
        times = [_NEVER if drained is None else drained.until]
        times += [time for window in self._windows[label] for time in window[:2]]
        soonest = min((time for time in times if time > at), default=_NEVER)
        return None if soonest == _NEVER else soonest
