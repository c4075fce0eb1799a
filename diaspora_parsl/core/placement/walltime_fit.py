"""Walltime fit: compares expected durations with maintenance windows and the ends of blocks."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from diaspora_parsl.core.placement.load import Load, RelativeSpeed
from diaspora_parsl.core.tasks import Task

#: Factor on the learnt duration, which is a mean.
_MARGIN: Final = 1.25
_NEVER: Final = float("inf")


class WalltimeFit:
    """Compares the expected duration of a task with the known end of an endpoint.

    A window is certain: a task that would run into it waits for another endpoint or for the end of the window. The end
    of the blocks is not: the task is dispatched anyway if no open endpoint and no later block here outlives it. A task
    of unknown duration may run anywhere.

    Args:
        loads: Load of each endpoint, with the service times there.
        relative_speed: Mean service times over the pool.
        prefetch_seconds: Seconds of work that may precede an attempt without an idle slot.
    """

    def __init__(self, loads: Mapping[str, Load], relative_speed: RelativeSpeed, prefetch_seconds: float) -> None:
        self._loads = loads
        self._relative_speed = relative_speed
        self._prefetch_seconds = prefetch_seconds
        self._windows: dict[str, float] = {}
        self._blocks: dict[str, tuple[float, float]] = {}
        #: Whether any endpoint has a known end; read for every task.
        self.limits = False

    def window_at(self, label: str, start: float) -> None:
        """Record the start of the next window; infinity: none is planned."""
        if start == _NEVER:
            self._windows.pop(label, None)
        else:
            self._windows[label] = start
        self.limits = bool(self._windows or self._blocks)

    def blocks_end(self, label: str, until: float | None, at: float) -> None:
        """Record the end of the last connected block; None: unknown."""
        if until is None:
            self._blocks.pop(label, None)
        else:
            known = self._blocks.get(label, (0.0, 0.0))
            self._blocks[label] = (until, max(known[1], until - at))
        self.limits = bool(self._windows or self._blocks)

    def end_of_blocks(self, label: str) -> float | None:
        """Return the recorded end of the last block."""
        known = self._blocks.get(label)
        return None if known is None else known[0]

    def expected(self, label: str, task: Task) -> float | None:
        """Return the expected seconds of the task there: the user's walltime, or the learnt mean; None: unknown."""
        load = self._loads[label]
        if task.walltime is not None:
            seconds = task.walltime
        else:
            learnt = load.service(task.function)
            if learnt is None:
                mean = self._relative_speed.mean(task.function)
                learnt = None if mean is None else mean * load.relative_speed
            if learnt is None:
                return None
            seconds = learnt * _MARGIN
        return seconds if load.has_idle_slot() else seconds + self._prefetch_seconds

    def ends_too_late(self, label: str, task: Task, at: float, is_open: Collection[str]) -> str | None:
        """Return the reason for which this task should wait instead of running there now, or None.

        Args:
            label: Label of the endpoint.
            task: The task.
            at: Current time in seconds.
            is_open: Labels of the endpoints that are up.
        """
        expected = self.expected(label, task)
        if expected is None:
            return None
        window = self._windows.get(label, _NEVER)
        if at + expected > window:
            return f"it needs {expected:.0f} s, and maintenance begins in {window - at:.0f} s"
        if not self._outlived(label, at, expected):
            return None
        until, whole = self._blocks[label]
        if whole >= expected or any(
            other != label and other in is_open and self._fits(other, task, at) for other in task.eligible
        ):
            return f"it needs {expected:.0f} s, and the last block there ends in {until - at:.0f} s"
        return None

    def _outlived(self, label: str, at: float, seconds: float) -> bool:
        """Whether the blocks end before an attempt of this duration."""
        until = self._blocks.get(label, (_NEVER, 0.0))[0]
        return at < until < at + seconds  # the end of a block that is overdue is unknown

    def _fits(self, label: str, task: Task, at: float) -> bool:
        expected = self.expected(label, task)
        return expected is None or not (
            at + expected > self._windows.get(label, _NEVER) or self._outlived(label, at, expected)
        )
