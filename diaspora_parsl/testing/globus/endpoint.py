"""An emulated endpoint as the service sees it: its engine, and what is wrong with it."""

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
    """Troubles whose end can be awaited, in one loop."""

    def __init__(self) -> None:
        super().__init__()
        self._ended = asyncio.Event()

    def end(self, fault: f.Fault) -> bool:
        """Forget it; returns whether it was the last of its kind."""
        was_last = super().end(fault)
        self._ended.set()
        self._ended = asyncio.Event()
        return was_last

    async def over(self, fault: f.Fault, limit: float | None = None) -> None:
        """Wait until it has ended, so many seconds at most."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while fault in self.of(type(fault)):
                    await self._ended.wait()


class Fate(Struct, frozen=True):
    """What becomes of a result."""

    kept: bool
    """The service gets to know it."""
    copies: int
    """So often it is sent to who waits for it."""


class Endpoint:
    """One endpoint, in the thread of the loop."""

    def __init__(self, name: str, engine: Engine) -> None:
        self.name = name
        self.engine = engine
        self.troubles = AwaitedFaults()
        self._draws: dict[f.LoseResults | f.RepeatResults, random.Random] = {}
        #: What was true when the status began to be wrong.
        self._stale: dict[f.WrongStatus, dict[str, int]] = {}

    async def begin(self, fault: f.Fault) -> None:
        """From now on this is wrong with it."""
        self.troubles.begin(fault)
        match fault:
            case f.Kill():
                await self.engine.die()
                if not self.troubles.of(f.Kill):  # it is over at once, and no other lasts
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
        """This is wrong no longer."""
        was_last = self.troubles.end(fault)
        match fault:
            case f.Kill() if was_last:
                self.engine.revive()
            case f.Freeze() if was_last:
                await self.engine.thaw()
            case _:
                self._afflict()

    def _afflict(self) -> None:
        """Let user code meet what is wrong now."""
        met = [fault for kind in get_args(f.WorkerFault) for fault in self.troubles.of(kind)]
        self.engine.afflict(tuple(met))

    # --- for the service ------------------------------------------------------------------------------------------

    async def heard(self) -> None:
        """Wait until it answers questions about its status."""
        while mute := self.troubles.of(f.Mute):
            await self.troubles.over(mute[-1])

    def status(self) -> dict[str, Any]:
        """What it says when it is asked, in the words of the real service."""
        wrong = self.troubles.of(f.WrongStatus)
        if wrong:
            return {"status": wrong[-1].status, "details": self._stale[wrong[-1]]}
        if not self.engine.is_online:
            return {"status": "offline", "details": {}}
        return {"status": "online", "details": self.engine.counts()}

    def fate(self) -> Fate:
        """What becomes of the next result, drawn again for each."""
        lost = [fault for fault in self.troubles.of(f.LoseResults) if self._hits(fault)]
        repeated = [fault for fault in self.troubles.of(f.RepeatResults) if self._hits(fault)]
        return Fate(kept=all(fault.kept for fault in lost), copies=0 if lost else 1 + bool(repeated))

    def _hits(self, fault: f.LoseResults | f.RepeatResults) -> bool:
        return self._draws[fault].random() < fault.rate
