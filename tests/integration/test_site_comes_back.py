"""A whole site dies without warning and later comes back: the other carries the load, and every reroute says why."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_site_dies_and_comes_back(
    pool_of: PoolOf,
    two_sites: tuple[LocalSite, LocalSite],
    the_fault: Callable[..., None],
    report: Callable[[str, float], None],
) -> None:
    alpha, _ = two_sites
    with pool_of(*two_sites) as run:
        the_fault(run, alpha, alpha.kill, returns=False)
        assert not alpha.processes()
        reasons = {event.reason for event in run.events(ev.TaskRerouted)}
        assert all("interchange" in reason or "manager" in reason.lower() for reason in reasons), reasons
        run.wait_for(ev.EndpointDown, endpoint="alpha")

        # While the site is closed, revivals fail, are said, and cost nothing.
        run.wait_for(ev.EndpointReviving, endpoint="alpha", generation=2)
        run.results(run.tasks(8, 0.1))
        restored = time.time()
        alpha.restore()
        run.until(lambda: any(up.generation > 0 for up in run.events(ev.EndpointUp, endpoint="alpha")))
        run.warm_up("alpha")
        report("restore to work", time.time() - restored)
        run.assert_each_ran_once(but=run.rerouted())
