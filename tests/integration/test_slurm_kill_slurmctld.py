"""kill -9 of a slurmctld under a pool: work goes on, and when it is back so does scaling."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.services.slurm import LocalSlurm

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_killed_controller_costs_no_task(
    pool_of: PoolOf, two_clusters: tuple[LocalSlurm, LocalSlurm], the_cluster_fault: Callable[..., None]
) -> None:
    alpha, beta = two_clusters
    with pool_of(alpha.endpoint(), beta.endpoint()) as run:
        run.until(lambda: len(_running(alpha)) == len(alpha.nodes))
        alpha.save()
        the_cluster_fault(run, alpha, alpha.kill_controller)
        with pytest.raises(RuntimeError, match="slurm"):
            alpha.jobs()
        assert not run.events(ev.EndpointDown), "its jobs go on without their controller"
        assert not run.rerouted()
        alpha.start_controller()
        run.until(lambda: _running(alpha), what="the controller does not come back with its jobs")
        job = _running(alpha)[0]
        alpha.cancel(job)
        run.with_load(lambda: sum(j.state == "RUNNING" and j.number != job for j in alpha.jobs()) == len(alpha.nodes))
        run.warm_up("alpha")
        run.assert_each_ran_once(but=run.rerouted())


def _running(cluster: LocalSlurm) -> list[str]:
    """Numbers of the jobs that run, as far as the controller answers."""
    try:
        return [job.number for job in cluster.jobs() if job.state == "RUNNING"]
    except RuntimeError:
        return []
