"""A window of maintenance in the configuration: kept clear, drained, and over by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint, Maintenance
from diaspora_parsl import events as ev

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


def test_a_pool_works_around_the_window_of_one_endpoint(pool_of: PoolOf) -> None:
    start = datetime.now(UTC) + timedelta(seconds=4)
    window = Maintenance(start=start, end=start + timedelta(seconds=3), reason="cooling")
    alpha = Endpoint(ThreadPoolExecutor(label="alpha", max_threads=2), maintenance=[window])
    beta = Endpoint(ThreadPoolExecutor(label="beta", max_threads=1))
    with pool_of(alpha, beta) as run:
        long = run.tasks(3, 0.1, walltime=120)
        run.results(long)
        assert not run.events(ev.TaskDispatched, endpoint="alpha")  # two minutes do not fit before the window
        run.results(run.tasks(6, 0.1))
        run.until(lambda: run.events(ev.TaskDispatched, endpoint="alpha"), what="short tasks may go there")
        drained = run.wait_for(ev.EndpointDrained, endpoint="alpha")
        assert drained.reason.endswith(": cooling")
        ups = len(run.events(ev.EndpointUp, endpoint="alpha"))
        run.until(lambda: len(run.events(ev.EndpointUp, endpoint="alpha")) > ups)
        again = run.tasks(6, 0.2, walltime=120)
        run.results(again)
        run.until(lambda: any(e.task > 9 for e in run.events(ev.TaskDispatched, endpoint="alpha")))
        run.assert_each_ran_once()
