"""One script of every kind of infrastructure fault, simulated and on real sites: no task is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.testing.faults import ClockJump, FaultScript, Freeze, Kill, LoseFabric, LoseNode, LoseWorker, Mute
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.local_sites import LocalSite
from diaspora_parsl.testing.simulation.simulator import SimEndpoint, SimTask, Simulator

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


SCRIPT = FaultScript(
    (
        LoseWorker(at=0.5, endpoint="alpha"),
        LoseFabric(at=1.0, until=3.0),
        LoseNode(at=2.0, endpoint="alpha", node=1),
        ClockJump(at=4.0, seconds=2.0),
        Mute(at=8.0, endpoint="beta", until=10.0),
        Freeze(at=11.0, endpoint="beta", until=16.0),
        Kill(at=17.0, endpoint="alpha", until=19.0),
    )
)


def test_the_script_costs_no_simulated_task() -> None:
    endpoints = [SimEndpoint(label="alpha", slots=2, nodes=2), SimEndpoint(label="beta", slots=2, heartbeat=1.0)]
    tasks = [SimTask(seconds=0.25)] * 300
    report = Simulator(endpoints=endpoints, tasks=tasks, faults=SCRIPT, seed=1, validate_every=1).run()
    assert (report.lost, report.twice, report.rejected, report.resolved) == (0, 0, 0, 300)
    assert report.makespan > SCRIPT.faults[-1].at
    assert report.rerouted


@pytest.mark.serial
@pytest.mark.timeout(300)
def test_the_script_costs_no_real_task(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha", workers=1, nodes=2) as alpha,
        LocalSite("beta", workers=2, node_agent=True) as beta,
        pool_of(alpha, beta) as run,
    ):
        run.warm_up("alpha", "beta")
        with Injector(SCRIPT, [alpha, beta], run_dir=run.run_dir) as injector:
            while not injector.is_over:
                run.results(run.tasks(16, 0.25))
        assert [type(step.fault) for step in injector.done if not step.ended] == [type(fault) for fault in SCRIPT]
        run.warm_up("alpha", "beta", seconds=0.25)
        run.assert_each_ran_once(but=run.rerouted())
        assert run.rerouted()
