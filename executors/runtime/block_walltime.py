"""When the blocks of an endpoint end: what a batch system enforces, as far as Parsl's providers say it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from parsl.executors.base import ParslExecutor
from parsl.jobs.states import JobState
from parsl.providers import CondorProvider
from parsl.providers.cluster_provider import ClusterProvider

_CLOCK_PARTS = 3


class BlockWalltimes:
    """Knows since when each block runs, as far as was seen, and so when the last of them ends.

    A block is as old as it was first seen to run or to have connected, which is late by up to a status poll: what is
    told is late by as much.

    Args:
        executor: any; without a provider that submits to a batch system nothing is known.
    """

    def __init__(self, executor: ParslExecutor) -> None:
        provider: Any = getattr(executor, "provider", None)
        # Others, such as LocalProvider and HTCondor's, have a walltime that nobody enforces, or none.
        is_enforced = isinstance(provider, ClusterProvider) and not isinstance(provider, CondorProvider)
        self._walltime = seconds_of(getattr(provider, "walltime", None)) if is_enforced else None
        self._executor = executor
        self._since: dict[str, float] = {}

    def until(self, connected: Iterable[str]) -> float | None:
        """When the last of these connected blocks ends, on the monotonic clock; None if nothing is known."""
        if self._walltime is None:
            return None
        now = time.monotonic()
        blocks = {block for block in connected if block}
        status: Any = getattr(self._executor, "status_facade", {})
        running = {block for block, seen in list(status.items()) if seen.state is JobState.RUNNING}
        for block in blocks | running:
            self._since.setdefault(block, now)
        if not blocks:
            return None
        return max(self._since[block] for block in blocks) + self._walltime


def seconds_of(walltime: object) -> float | None:
    """Seconds in ``"HH:MM:SS"``, ``"MM:SS"`` or ``"D-HH:MM:SS"``; None for anything else.

    Parsl's providers want ``"HH:MM:SS"``.
    """
    if not isinstance(walltime, str):
        return None
    days, dash, clock = walltime.strip().rpartition("-")
    parts = clock.split(":")
    if not 1 < len(parts) <= _CLOCK_PARTS or not all(part.isdecimal() for part in parts):
        return None
    if dash and not days.isdecimal():
        return None
    seconds = 0
    for part in parts:
        seconds = seconds * 60 + int(part)
    total = seconds + 86_400 * int(days or 0)
    return float(total) if total else None
