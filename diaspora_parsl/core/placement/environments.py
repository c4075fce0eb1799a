"""Installed modules of endpoints: a preference for where a function runs first, never a ban."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from diaspora_parsl.core.placement.load import Load
from diaspora_parsl.core.tasks import Task

#: Seconds between two trials of a function at an endpoint that seems to lack its imports.
TRIAL_PERIOD: Final = 60.0


class Environments:
    """Compares what functions import with what endpoints offer.

    Distributions and modules have different names, so an endpoint that seems to lack a module is skipped only while
    another endpoint that seems to have all is up, and is tried once a minute. A success ends the preference.

    Args:
        loads: Load of each endpoint, with the functions that succeeded there.
    """

    def __init__(self, loads: Mapping[str, Load]) -> None:
        self._loads = loads
        self._offers: dict[str, frozenset[str]] = {}
        self._trials: dict[tuple[str, str], float] = {}
        self._since: dict[str, float] = {}
        self._lacking: dict[tuple[str, frozenset[str]], bool] = {}
        #: Whether any endpoint has reported; read for every task.
        self.known = False

    def learn(self, label: str, modules: frozenset[str], at: float) -> float | None:
        """Record the modules of an endpoint; return the time of the first trial if they changed."""
        if self._offers.get(label) == modules:
            return None
        self._offers[label] = modules
        self._since[label] = at
        self._lacking.clear()
        self._trials = {key: when for key, when in self._trials.items() if key[0] != label}
        self.known = True
        return at + TRIAL_PERIOD

    def lacks(self, label: str, task: Task) -> bool:
        """Whether the endpoint seems to lack an import of the task."""
        if not task.imports or label not in self._offers:
            return False
        key = (label, task.imports)
        known = self._lacking.get(key)
        if known is None:
            known = self._lacking[key] = not task.imports <= self._offers[label]
        return known and self._loads[label].service(task.function) is None

    def missing(self, label: str, task: Task) -> str:
        """Return the names of the imports that seem to be missing."""
        return ", ".join(sorted(task.imports - self._offers.get(label, frozenset())))

    def prefers_elsewhere(self, label: str, task: Task, at: float, is_open: Collection[str]) -> bool:
        """Whether the task prefers another endpoint."""
        if not self.lacks(label, task):
            return False
        trial = self._trials.get((label, task.function), self._since[label] + TRIAL_PERIOD)
        return at < trial and any(
            other != label and other in is_open and other in self._offers and not self.lacks(other, task)
            for other in task.eligible
        )

    def tried(self, label: str, task: Task, at: float) -> float | None:
        """Record a dispatch; return the time of the next trial, if this was one."""
        if not self.lacks(label, task):
            return None
        self._trials[label, task.function] = at + TRIAL_PERIOD
        return at + TRIAL_PERIOD
