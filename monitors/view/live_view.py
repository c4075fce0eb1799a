"""The live view of a run, from another process."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.live import Live

from .fabric_state import FabricState, age
from .terminal import ConnectionState, frame, local_time, plain

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console, RenderableType

    from .event_feed import EventFeed

#: Seconds between two frames.
PERIOD: Final = 0.25


class Watch:
    """Keeps a picture of what a feed says, and shows it.

    Args:
        feed: where events come from.
        console: where to show it.
        clock: seconds that only go forward.
    """

    def __init__(self, feed: EventFeed, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.state = FabricState()
        self._feed = feed
        self._console = console
        self._clock = clock
        self._ran = False

    def once(self, timeout: float = 10.0) -> None:
        """Show one frame of all that is there.

        Args:
            timeout: seconds to read at most; what was read until then is shown.
        """
        end = self._clock() + timeout
        while not self._feed.caught_up and self._clock() < end:
            self._read(PERIOD)
        self._console.print(self._frame())

    def live(self) -> None:
        """Show frames until the run has ended."""
        with Live(console=self._console, auto_refresh=False, transient=False) as live:
            while not self._over():
                if self._feed.caught_up or self._feed.lost_since is not None:
                    live.update(self._frame(), refresh=True)
                self._read(PERIOD)
            self._read_the_rest()
            live.update(self._frame(), refresh=True)

    def lines(self, interval: float = 5.0) -> None:
        """Print a plain line now and then, whenever there is something new, until the run has ended.

        Args:
            interval: seconds between two lines at least.
        """
        said = ""
        due = float("-inf")
        while True:
            over = self._over()
            if over:
                self._read_the_rest()
            text = plain(self.state, self._line())
            known = self._feed.caught_up or self._feed.lost_since is not None
            if over or (known and self._clock() >= due and text != said):
                self._console.print(
                    f"{local_time(_now())} {text}", markup=False, highlight=False, soft_wrap=True, emoji=False
                )
                self._console.file.flush()
                said, due = text, self._clock() + interval
            if over:
                return
            self._read(PERIOD)

    def _read(self, seconds: float) -> None:
        """Read events for a bounded time, so that a flood of events does not stop the display."""
        end = self._clock() + seconds
        while (left := end - self._clock()) > 0:
            events = self._feed.read(left)
            received = self._clock()
            for event in events:
                self.state.apply(event, received - (0.0 if self._feed.caught_up else age(event)))

    def _read_the_rest(self) -> None:
        """A pool's goodbye may overtake the last words on its tasks, which travel in another topic."""
        if self._feed.lost_since is None and not self._feed.is_finished_run:
            self._read(2 * PERIOD)

    def _over(self) -> bool:
        """True if nothing new can come: every run has ended, and we saw it end or the fabric went with it."""
        if not self._feed.caught_up and self._feed.lost_since is None:
            return False
        pools = self.state.pools()
        if self._feed.is_finished_run or self._feed.is_over:
            return True
        running = any(not pool.stopped for pool in pools)
        self._ran = self._ran or running
        return bool(pools) and not running and (self._ran or self._feed.lost_since is not None)

    def _line(self) -> ConnectionState:
        now = self._clock()
        lost = self._feed.lost_since
        return ConnectionState(
            clock=now,
            lost_for=None if lost is None else now - lost,
            finished_run=self._feed.is_finished_run or self._feed.is_over,
            resyncs=self._feed.resyncs,
        )

    def _frame(self) -> RenderableType:
        return frame(self.state, self._line(), self._console.width, self._console.height)


def _now() -> str:
    return datetime.now(UTC).isoformat()
