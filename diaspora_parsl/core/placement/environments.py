"""What endpoints have installed, as far as known: a preference for where a function runs first, never a ban."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from diaspora_parsl.core.placement.load import Load
from diaspora_parsl.core.tasks import Task

#: Seconds between two trials of a function at an endpoint that seems to lack what it imports.
TRIAL_PERIOD: Final = 60.0


class Environments:
    """Compares what functions import with what endpoints offer.

    Names of distributions are not names of modules, and modules come in other ways: an endpoint that seems to lack one
    is passed over only while another is up that seems to have all, and is tried once a minute; a success settles it.

    Args:
        loads: of the endpoints; they know which functions succeeded there.
    """

    def __init__(self, loads: Mapping[str, Load]) -> None:
        self._loads = loads
        self._offers: dict[str, frozenset[str]] = {}
        self._trials: dict[tuple[str, str], float] = {}
        self._since: dict[str, float] = {}
        self._lacking: dict[tuple[str, frozenset[str]], bool] = {}
        #: Whether anything is known. Read for every task.
        self.known = False

    def learn(self, label: str, modules: frozenset[str], at: float) -> float | None:
        """These modules are there; returns when trials begin, if this is news."""
        if self._offers.get(label) == modules:
            return None
        self._offers[label] = modules
        self._since[label] = at
        self._lacking.clear()
        self._trials = {key: when for key, when in self._trials.items() if key[0] != label}
        self.known = True
        return at + TRIAL_PERIOD

    def lacks(self, label: str, task: Task) -> bool:
        """Whether something that the task imports seems to be missing there."""
        if not task.imports or label not in self._offers:
            return False
        key = (label, task.imports)
        known = self._lacking.get(key)
        if known is None:
            known = self._lacking[key] = not task.imports <= self._offers[label]
        return known and self._loads[label].service(task.function) is None

    def missing(self, label: str, task: Task) -> str:
        """What seems to be missing, in words."""
        return ", ".join(sorted(task.imports - self._offers.get(label, frozenset())))

    def prefers_elsewhere(self, label: str, task: Task, at: float, is_open: Collection[str]) -> bool:
        """Whether the task should rather go elsewhere."""
        if not self.lacks(label, task):
            return False
        trial = self._trials.get((label, task.function), self._since[label] + TRIAL_PERIOD)
        return at < trial and any(
            other != label and other in is_open and other in self._offers and not self.lacks(other, task)
            for other in task.eligible
        )

    def tried(self, label: str, task: Task, at: float) -> float | None:
        """The task was sent there; returns the time of the next trial, if this was one."""
        if not self.lacks(label, task):
            return None
        self._trials[label, task.function] = at + TRIAL_PERIOD
        return at + TRIAL_PERIOD
