"""What is planned for each endpoint: drained by hand, and windows of maintenance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

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
