"""Endpoints without blocks scale out on demand, each by its share of the backlog, and in again when idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from parsl.executors import HighThroughputExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl import Endpoint
from diaspora_parsl import events as ev

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run


def elastic(label: str) -> Endpoint:
    executor = HighThroughputExecutor(
        label=label,
        address="127.0.0.1",
        max_workers_per_node=1,
        cores_per_worker=1e-6,
        encrypted=False,
        provider=LocalProvider(
            init_blocks=0,
            min_blocks=0,
            max_blocks=2,
            launcher=SimpleLauncher(),
            worker_init=f"export DIASPORA_PARSL_SITE={label}",
        ),
    )
    return Endpoint(executor)


def slots(run: Run, endpoint: str) -> int:
    return run.events(ev.EndpointStatus, endpoint=endpoint)[-1].slots


def test_out_on_demand_and_in_when_idle(pool_of: PoolOf) -> None:
    with pool_of(
        elastic("alpha"), elastic("beta"), strategy="htex_auto_scale", max_idletime=1.0, strategy_period=0.5
    ) as run:
        run.until(lambda: run.events(ev.EndpointStatus, endpoint="beta"))
        assert (slots(run, "alpha"), slots(run, "beta")) == (0, 0)
        run.results(run.tasks(30, 1.0))
        for label in ("alpha", "beta"):
            most = max(status.slots for status in run.events(ev.EndpointStatus, endpoint=label))
            assert most == 2, f"{label} did not scale out to its limit"
        assert {e.site for e in run.executions()} == {"alpha", "beta"}
        run.until(lambda: slots(run, "alpha") == 0 and slots(run, "beta") == 0, what="both scale in")
        run.until(lambda: not run.processes(), what="the processes of both end")
        assert len(run.results(run.tasks(2))) == 2, "and out again"
        assert not run.events(ev.EndpointDown)
        assert not run.rerouted()
        run.assert_each_ran_once()
