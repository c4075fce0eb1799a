"""A node freezes while Parsl notices nothing: its silence on the fabric is enough, and when it thaws it works again."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_frozen_node_is_left_and_comes_back(pool_of: PoolOf, report: Callable[[str, float], None]) -> None:
    with (
        LocalSite("alpha", workers=2, node_agent=True) as alpha,
        LocalSite("beta", workers=2, node_agent=True) as beta,
        # A hedge would bring a result from elsewhere before the silence is noticed.
        pool_of(alpha, beta, hedging=False) as run,
    ):
        for label in ("alpha", "beta"):
            run.until(lambda label=label: len(run.events(ev.NodeHeartbeat, endpoint=label)) > 2)  # type: ignore[misc]
        run.warm_up("alpha", "beta", seconds=0.25)
        futures = run.tasks_that_queue("alpha", count=32)  # so few that beta has a free slot when it is needed
        alpha.freeze(sparing_manager=True)
        frozen = time.time()
        run.results(futures)

        last_beat = max(
            datetime.fromisoformat(published.at).timestamp()
            for published in run.published()
            if isinstance(published.payload, ev.NodeHeartbeat) and published.payload.endpoint == "alpha"
        )
        assert last_beat <= frozen + 0.5
        report("last heartbeat to first rerouted start", run.first_rerouted_start("alpha", last_beat))
        assert run.first_rerouted_start("alpha", last_beat) <= 5.0
        run.assert_each_ran_once(but=run.rerouted())
        assert not run.events(ev.EndpointDown, endpoint="beta")
        down = run.wait_for(ev.EndpointDown, endpoint="alpha")
        assert "no heartbeat for" in down.reason
        assert run.events(ev.EndpointSuspect, endpoint="alpha") or down.in_flight
        left = {event.attempt for event in run.events(ev.TaskRerouted, endpoint="alpha")}
        assert left
        assert not run.events(ev.TaskLate)

        alpha.thaw()
        thawed = time.time()
        run.until(lambda: {event.attempt for event in run.events(ev.TaskLate)} == left, what="late results are told")
        run.until(lambda: run.events(ev.PoolStatus)[-1].late == len(left), what="and counted")
        run.warm_up("alpha")
        report("thaw to new work", time.time() - thawed)
        assert not run.events(ev.EndpointReviving), "it was never dead"
        run.assert_each_ran_once(but=run.rerouted())
