"""Idle times of workers between two molecules, from the ledger."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import pairwise
from typing import Final, NamedTuple

from ..records import Row

#: Seconds above which a wait is counted.
LONG: Final = 1.0


class Waits(NamedTuple):
    """What the workers of a session waited for their next molecule, in seconds."""

    workers: int
    longest: float | None
    """None if no worker had a second molecule."""
    long: int
    """Waits of more than one second."""


def idle_times(rows: Iterable[Row], until: float) -> Waits:
    """Measure the waits that began while there was budget.

    Both ends of an idle time come from the clock of the worker.

    Args:
        rows: of one session.
        until: Unix time at which the last molecule was chosen.
    """
    spans: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for row in rows:
        if row.started and row.pid:
            spans[row.host, row.pid].append((row.started, row.ended))
    gaps = []
    for busy in spans.values():
        busy.sort()
        gaps += [after - ended for (_, ended), (after, _) in pairwise(busy) if ended < until]
    return Waits(len(spans), max(gaps, default=None), sum(gap > LONG for gap in gaps))
