"""How often an endpoint may ask its scheduler for blocks, when that refuses them or they die at once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from diaspora_parsl.backoff import Backoff

#: Seconds without requests after the first refusal; doubled by each further one.
FIRST_PAUSE: Final = 2.0
LONGEST_PAUSE: Final = 120.0
#: A block that has not ended for so many seconds, after the next look at its state, shows that the scheduler is well.
PROVEN_AFTER: Final = 10.0


class ScaleOutBackoff:
    """Keeps a scheduler in trouble from being asked again and again; belongs to an endpoint over all its generations.

    While nothing goes wrong, everything asked for is granted. A refused request, or a block that ended without bringing
    a worker, begins a pause; after it one block may be asked for, and the rest only once that one has proved itself.
    Then all is forgotten.

    Args:
        told: called with each pause that begins: why, and how long it is in seconds.
    """

    def __init__(self, reported: Callable[[str, float], None]) -> None:
        self._reported = reported
        self._lock = threading.Lock()  # the poller of an old generation may still run
        self._until: float | None = None
        self._backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        #: Blocks that have not proved themselves: when they will have.
        self._fresh: dict[object, float] = {}

    def may_ask(self, now: float) -> bool:
        """Whether one block may be requested now."""
        with self._lock:
            self._review(now)
            return self._until is None or (now >= self._until and not self._fresh)

    def accepted(self, block: object, now: float, *, proven_at: float | None = None) -> None:
        """The scheduler took the request; if the block has not ended until then, it is a good one."""
        with self._lock:
            self._fresh[block] = now + PROVEN_AFTER if proven_at is None else proven_at

    def refused(self, now: float, why: str) -> None:
        """The scheduler did not take the request."""
        self._failed(now, f"a request for a block was refused: {why}")

    def ended(self, block: object, now: float, why: str) -> None:
        """A block ended without having brought a worker."""
        with self._lock:
            known = self._fresh.pop(block, None) is not None
        if known:
            self._failed(now, f"a block ended and had brought no worker: {why}")

    def forget(self) -> None:
        """A new generation begins: what became of the blocks of the old one is not known."""
        with self._lock:
            self._fresh.clear()

    def _failed(self, now: float, what: str) -> None:
        with self._lock:
            if self._until is not None and now < self._until:
                return  # one incident: all blocks of a request die together
            pause = self._backoff.next()
            self._until = now + pause
            count = self._backoff.failures
        again = "" if count == 1 else f" ({count} times in a row)"
        self._reported(f"{what}{again}; no more blocks are requested for {pause:.0f} s, then one", pause)

    def _review(self, now: float) -> None:
        proven = [block for block, at in self._fresh.items() if now >= at]
        for block in proven:
            del self._fresh[block]
        if proven and self._until is not None and now >= self._until:
            self._until = None
            self._backoff.reset()
