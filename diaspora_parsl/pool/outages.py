"""What follows when endpoints of one site are lost together: the rest is suspect, and all are tried again in turn."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from diaspora_parsl.health.board import Board
from diaspora_parsl.health.sites import Sites


class Outages:
    """The part of a `PoolCore` that sees losses of one site together.

    Args:
        board: told of suspects.
        sites: of the endpoints, by label.
        window: seconds within which losses belong together.
        judge: looks at an endpoint anew.
    """

    def __init__(self, board: Board, sites: Mapping[str, str], window: float, *, judge: Callable[[str], None]) -> None:
        self._board = board
        self._sites = Sites(sites, window)
        self._judge = judge

    def lost(self, label: str, at: float) -> None:
        """An endpoint is down. Call it before what it held is given to its neighbours."""
        reason = self._sites.failed(label, at)
        if reason is None:
            return
        for rank, other in enumerate(self._sites.others(label)):
            health = self._board.health[other]
            if health.dead_reason is None:
                health.breaker.put_off(rank)
                self._board.rumour(other, at, reason)
                self._judge(other)

    def delay(self, label: str, at: float) -> float:
        """Seconds that its revival waits for those of its site that were lost before it."""
        return self._sites.delay(label, at)
