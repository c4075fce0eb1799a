"""kill -9 of a worker beside an agent, at Parsl's own heartbeats: the pool does not wait for Parsl to miss it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import psutil

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf

#: Parsl misses a worker between 17 and 27 s after its death, with its own heartbeats of 30 s.
PARSL_TAKES = 17.0


def test_a_workers_death_is_known_before_parsl_misses_it(pool_of: PoolOf, report: Callable[[str, float], None]) -> None:
    with (
        LocalSite("alpha", workers=1, heartbeat_period=None, node_agent=True) as alpha,
        LocalSite("beta", workers=1, heartbeat_period=None) as beta,
        pool_of(alpha, beta, config={"retries": 0}) as run,
    ):
        run.until(lambda: run.events(ev.NodeSampled, endpoint="alpha"))
        run.warm_up("alpha", "beta", seconds=0.25)
        run.until(lambda: run.events(ev.NodeSampled, endpoint="alpha")[-1].workers == 1)
        before = len(run.executions())
        futures = run.tasks(2, 4.0)
        run.until(lambda: any(e.site == "alpha" for e in run.executions()[before:]))
        victim = next(e for e in run.executions()[before:] if e.site == "alpha")
        psutil.Process(victim.pid).kill()
        killed = time.time()
        published = run.wait_for(ev.WorkerDied, endpoint="alpha", pid=victim.pid)
        report("kill to told", time.time() - killed)
        assert published.attempt
        run.wait_for(ev.TaskRerouted, endpoint="alpha", attempt=published.attempt)
        assert time.time() - killed < PARSL_TAKES
        assert "WorkerLost" in run.events(ev.TaskRerouted)[0].reason
        run.results(futures)
        run.assert_each_ran_once(but=run.rerouted())
        assert not run.events(ev.EndpointDown)
        sample = run.events(ev.NodeSampled, endpoint="alpha")[-1]
        assert sample.memory > sample.memory_free > 0
        assert sample.disk >= sample.disk_free > 0
        assert sample.cores >= 1
        assert sample.load >= 0
