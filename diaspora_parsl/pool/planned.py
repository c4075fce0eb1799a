"""What is known before: drains, windows of maintenance, quarantine by hand, ends of blocks, environments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from diaspora_parsl.health.board import Board
from diaspora_parsl.pool import words
from diaspora_parsl.pool.calendar import Calendar, Window
from diaspora_parsl.pool.chronicle import Chronicle
from diaspora_parsl.pool.deadlines import Deadlines
from diaspora_parsl.pool.scheduler import Scheduler
from diaspora_parsl.pool.tasks import Attempt


class _Judge(Protocol):
    def __call__(self, label: str) -> None: ...


class Planned:
    """The part of a `PoolCore` that follows the calendar.

    Args:
        board: its verdicts follow ``draining`` and the breakers.
        scheduler: asks the horizon before it sends anything.
        deadlines: of the core.
        chronicle: tells the answers to requests.
        judge: looks at an endpoint anew.
        back: called for an endpoint that is not held any more, before it is judged.
    """

    def __init__(
        self,
        board: Board,
        scheduler: Scheduler,
        deadlines: Deadlines,
        chronicle: Chronicle,
        *,
        judge: _Judge,
        back: Callable[[str], None],
    ) -> None:
        self.calendar = Calendar(board.health)
        self._board = board
        self._scheduler = scheduler
        self._deadlines = deadlines
        self._chronicle = chronicle
        self._judge = judge
        self._back = back

    # --- what others ask for --------------------------------------------------------------------------------------

    def on_drain(self, s: words.Drain) -> None:
        """No new attempts; what runs may finish."""
        self.calendar.drain(s.endpoint, s.reason, s.until)
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def on_resume(self, s: words.Resume) -> None:
        """Whatever holds it now is over, a quarantine by hand included."""
        self.calendar.resume(s.endpoint, s.at)
        self._board.health[s.endpoint].breaker.release()
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def on_quarantine(self, s: words.Quarantine) -> None:
        """No new attempts for a while, and then only once a probe succeeded."""
        self._board.health[s.endpoint].breaker.order(s.reason, s.until)
        self._judge(s.endpoint)
        self._answer(s.request, s.endpoint)

    def on_maintenance(self, s: words.Maintenance) -> None:
        """A window was announced, or all of them were called off."""
        if s.start is None or s.end is None:
            self.calendar.cancel(s.endpoint)
        elif s.end > s.at:
            self.calendar.plan(s.endpoint, Window(s.start, s.end, s.reason))
        self._follow(s.endpoint, s.at)
        self._answer(s.request, s.endpoint)

    def _answer(self, request: str, label: str) -> None:
        if request:
            self._chronicle.answered(request, label, self._scheduler.verdicts[label], self._scheduler.live[label])

    # --- what time brings -----------------------------------------------------------------------------------------

    def _follow(self, label: str, at: float) -> None:
        """Do what the calendar says of now, and look again when it says something else."""
        health, calendar = self._board.health[label], self.calendar
        hold = calendar.hold(label, at)
        self._scheduler.horizon.window_at(label, calendar.next_start(label, at))
        was_held = health.draining is not None
        health.draining = None if hold is None else hold.reason
        health.drained_until = None if hold is None else hold.until
        if was_held and hold is None:
            self._back(label)
        change = calendar.next_change(label, at)
        if change is not None:
            # Nothing may be sent, or built anew, at the very time at which that begins to be unwanted.
            self._deadlines.at(change, ("calendar", label), lambda: self._follow(label, change), first=True)
        self._judge(label)

    def blocks_end(self, label: str, until: float | None, at: float) -> None:
        """When the last of its blocks ends, as the endpoint itself says."""
        self._scheduler.horizon.blocks_end(label, until, at)
        if until is not None and until > at:
            self._deadlines.at(until, ("blocks", label), lambda: self._blocks_ended(label, until))

    def _blocks_ended(self, label: str, at: float) -> None:
        """The blocks should be gone. If others came meanwhile, look again when those end."""
        until = self._scheduler.horizon.end_of_blocks(label)
        if until is not None and until > at:
            self.blocks_end(label, until, at)
        else:
            self._scheduler.fill_idle(at)

    # --- what is installed ----------------------------------------------------------------------------------------

    def on_environment(self, s: words.Environment) -> None:
        """An endpoint said what it has: functions that need more go elsewhere first."""
        if s.generation == self._board.health[s.endpoint].generation:
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
