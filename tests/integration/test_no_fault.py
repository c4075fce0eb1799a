"""Without a fault, every one of many short tasks runs exactly once, and nothing is ever rerouted or suspected."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


def test_three_hundred_short_tasks_over_three_sites(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha") as alpha,
        LocalSite("beta") as beta,
        LocalSite("gamma", workers=2) as gamma,
        pool_of(alpha, beta, gamma) as run,
    ):
        run.warm_up("alpha", "beta", "gamma")
        futures = run.tasks(300)
        assert run.results(futures) == [future.result() for future in futures]
        run.assert_each_ran_once()
        assert {e.site for e in run.executions()} == {"alpha", "beta", "gamma"}
        for kind in (ev.TaskRerouted, ev.TaskFailed, ev.EndpointDown, ev.EndpointReviving):
            assert not run.events(kind)
        run.until(lambda: {e.task for e in run.events(ev.TaskFinished)} == {e.task for e in run.executions()})
        # On a machine that is busy elsewhere a task may stand still long enough to be hedged.
        hedged = {event.task for event in run.events(ev.TaskHedged)}
        assert {event.task for event in run.events(ev.TaskLate)} <= hedged
        assert all(event.attempts == 1 for event in run.events(ev.TaskFinished) if event.task not in hedged)
        assert all(event.reason for event in run.events(ev.TaskDispatched))
