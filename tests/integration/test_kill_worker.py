"""kill -9 of one worker of one of two HTEX endpoints: its task goes elsewhere, the endpoint stays and heals itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import Execution, PoolOf


@pytest.mark.serial
def test_a_killed_worker_costs_no_task_and_no_endpoint(
    pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], the_fault: Callable[..., None]
) -> None:
    alpha, _ = two_sites
    with pool_of(*two_sites) as run:

        def kill() -> None:
            begun: list[Execution] = []

            def begins() -> list[Execution]:
                """A task of a quarter of a second that has just begun cannot have ended before the kill."""
                now = time.time()
                begun.extend(e for e in run.executions() if e.site == "alpha" and now - e.start < 0.1)
                return begun

            run.until(begins)
            psutil.Process(begun[-1].pid).kill()

        the_fault(run, alpha, kill, returns=False)
        assert len(run.rerouted()) == 1
        assert "WorkerLost" in run.events(ev.TaskRerouted)[0].reason
        assert not run.events(ev.EndpointDown)
        run.warm_up("alpha")
        assert len({e.pid for e in run.executions() if e.site == "alpha"}) > 1
