"""What follows when endpoints of one site are lost together: the rest is suspect, and all are tried again in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diaspora_parsl.core.health.assessor import Board, State, Verdict
from diaspora_parsl.core.health.correlated_failures import Sites
from diaspora_parsl.core.history import Chronicle
from diaspora_parsl.core.placement.scheduler import Scheduler
from diaspora_parsl.core.timers import Deadlines


class Outages:
    """The part of a `PoolCore` that sees losses of one site together.

    Args:
        board: told of suspects.
        scheduler: sends nothing more to them, unless there is no other place.
        deadlines: of the core.
        chronicle: tells of suspects.
        sites: of the endpoints, by label.
        window: seconds within which losses belong together.
        judge: looks at an endpoint anew.
    """

    def __init__(
        self,
        board: Board,
        scheduler: Scheduler,
        deadlines: Deadlines,
        chronicle: Chronicle,
        *,
        sites: Mapping[str, str],
        window: float,
        judge: Callable[[str], None],
    ) -> None:
        self._board = board
        self._scheduler = scheduler
        self._deadlines = deadlines
        self._chronicle = chronicle
        self._sites = Sites(sites, window)
        self._judge = judge

    def lost(self, label: str, at: float) -> None:
        """An endpoint is down. Call it before what it held is given to its neighbours, and judge nothing meanwhile."""
        reason = self._sites.failed(label, at)
        if reason is None:
            return
        for rank, other in enumerate(self._sites.others(label)):
            health = self._board.health[other]
            if health.dead_reason is not None:
                continue
            health.breaker.put_off(at, rank)
            until = self._board.rumour(other, at, reason)
            if self._scheduler.verdicts[other].accepts:
                suspect = Verdict(State.SUSPECT, reason, last_resort=True)
                self._scheduler.judged(other, suspect, health.slots)
                self._chronicle.judged(other, health, suspect, 0)
                self._deadlines.at(until, ("judge", other), self._judge_later(other))

    def _judge_later(self, label: str) -> Callable[[], None]:
        return lambda: self._judge(label)

    def delay(self, label: str, at: float) -> float:
        """Seconds that its revival waits for those of its site that were lost before it."""
        return self._sites.delay(label, at)
