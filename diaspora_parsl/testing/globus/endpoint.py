"""An emulated endpoint inside the service: its engine and its active faults."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any, get_args

from msgspec import Struct

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults.targets import ActiveFaults
from diaspora_parsl.testing.globus.engines.base import Engine


class AwaitedFaults(ActiveFaults):
    """Active faults whose end can be awaited, in one loop."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    def end(self, fault: f.Fault) -> bool:
        """Remove the fault; return whether it was the last of its kind."""
        was_last = super().end(fault)
        self._ended.set()
        self._ended = asyncio.Event()
        return was_last

    async def over(self, fault: f.Fault, limit: float | None = None) -> None:
        """Wait until the fault has ended, at most ``limit`` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while fault in self.of(type(fault)):
                    await self._ended.wait()


class Delivery(Struct, frozen=True):
    """How the service handles a result."""

    kept: bool
    """Whether the service records it."""
    copies: int
    """Number of times it is sent to the client."""


class Endpoint:
    """One endpoint, in the thread of the loop."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.faults = AwaitedFaults()
        self._draws: dict[f.LoseResults | f.RepeatResults, random.Random] = {}
        #: True counts at the begin of each wrong status.
        self._stale: dict[f.WrongStatus, dict[str, int]] = {}

    async def begin(self, fault: f.Fault) -> None:
        """Begin a fault."""
        self.faults.begin(fault)
        match fault:
            case f.Kill():
                await self.engine.die()
                if not self.faults.of(f.Kill):  # it has no `until`, and no other Kill is active
                    self.engine.revive()
            case f.LoseNode():
                await self.engine.lose_node(fault.node)
            case f.LoseWorker():
                await self.engine.lose_worker()
            case f.Freeze():
                await self.engine.freeze()
            case f.LoseResults() | f.RepeatResults():
                self._draws[fault] = random.Random(fault.seed)  # noqa: S311 - reproducible on purpose
            case f.WrongStatus():
                self._stale[fault] = self.engine.counts() if fault.counts else {}
            case _:
                self._afflict()

    async def end(self, fault: f.Fault) -> None:
        """End a fault."""
        was_last = self.faults.end(fault)
        match fault:
            case f.Kill() if was_last:
                self.engine.revive()
            case f.Freeze() if was_last:
                await self.engine.thaw()
            case _:
                self._afflict()

    def _afflict(self) -> None:
        """Pass the active faults of user functions to the engine."""
        met = [fault for kind in get_args(f.WorkerFault) for fault in self.faults.of(kind)]
        self.engine.afflict(tuple(met))

    # --- for the service ------------------------------------------------------------------------------------------

    async def answering(self) -> None:
        """Wait until no `Mute` is active."""
        while mute := self.faults.of(f.Mute):
            await self.faults.over(mute[-1])

    def status(self) -> dict[str, Any]:
        """Return the status document, as the real service does."""
        wrong = self.faults.of(f.WrongStatus)
        if wrong:
            return {"status": wrong[-1].status, "details": self._stale[wrong[-1]]}
        if not self.engine.is_online:
            return {"status": "offline", "details": {}}
        return {"status": "online", "details": self.engine.counts()}

    def draw_delivery(self) -> Delivery:
        """Draw the delivery of the next result."""
        lost = [fault for fault in self.faults.of(f.LoseResults) if self._hits(fault)]
        repeated = [fault for fault in self.faults.of(f.RepeatResults) if self._hits(fault)]
        return Delivery(kept=all(fault.kept for fault in lost), copies=0 if lost else 1 + bool(repeated))

    def _hits(self, fault: f.LoseResults | f.RepeatResults) -> bool:
        return self._draws[fault].random() < fault.rate
