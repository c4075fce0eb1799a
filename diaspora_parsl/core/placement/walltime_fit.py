"""Whether an attempt can end before its place does: known durations against windows and walltimes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from diaspora_parsl.core.placement.load import Load, RelativeSpeed
from diaspora_parsl.core.tasks import Task

#: What is learnt is a mean: this much more is allowed for.
_MARGIN: Final = 1.25
_NEVER: Final = float("inf")


class WalltimeFit:
    """Compares what is known of a task's duration with what is known of an endpoint's end.

    A window is certain: what would run into it waits, for another endpoint or for the end of the window. The end of
    the blocks is not: such a task is sent there all the same, if no other endpoint is up that outlives it and no later
    block of this one would either. A task of unknown duration may go anywhere.

    Args:
        loads: of the endpoints; they know how long functions take there.
        pace: of the pool; it knows how long functions take elsewhere.
        ahead: seconds of work that may be before an attempt for which no slot is idle.
    """

    def __init__(self, loads: Mapping[str, Load], relative_speed: RelativeSpeed, prefetch_seconds: float) -> None:
        self._loads = loads
        self._relative_speed = relative_speed
        self._prefetch_seconds = prefetch_seconds
        self._windows: dict[str, float] = {}
        self._blocks: dict[str, tuple[float, float]] = {}
        #: Whether any endpoint has a known end. Read for every task.
        self.limits = False

    def window_at(self, label: str, start: float) -> None:
        """Its next window begins then; infinity: none is planned."""
        if start == _NEVER:
            self._windows.pop(label, None)
        else:
            self._windows[label] = start
        self.limits = bool(self._windows or self._blocks)

    def blocks_end(self, label: str, until: float | None, at: float) -> None:
        """The last of its connected blocks ends then, as was seen now; None: nothing is known."""
        if until is None:
            self._blocks.pop(label, None)
        else:
            known = self._blocks.get(label, (0.0, 0.0))
            self._blocks[label] = (until, max(known[1], until - at))
        self.limits = bool(self._windows or self._blocks)

    def end_of_blocks(self, label: str) -> float | None:
        """What was told by `blocks_end`."""
        known = self._blocks.get(label)
        return None if known is None else known[0]

    def expected(self, label: str, task: Task) -> float | None:
        """Seconds that the task will need there, if anything is known: what its user says before what was learnt."""
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
        """Why this task should rather wait than go there now, or None.

        Args:
            label: the endpoint in question.
            task: which task.
            at: now.
            is_open: the endpoints that are up.
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
        """Whether its blocks end before an attempt of so many seconds would."""
        until = self._blocks.get(label, (_NEVER, 0.0))[0]
        return at < until < at + seconds  # a block that should have ended and has not: nothing is known

    def _fits(self, label: str, task: Task, at: float) -> bool:
        expected = self.expected(label, task)
        return expected is None or not (
            at + expected > self._windows.get(label, _NEVER) or self._outlived(label, at, expected)
        )
