"""The walltime of every job of one Slurm cluster ends under a pool: what ran there runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.testing.services.slurm import LocalSlurm

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_an_expired_walltime_costs_no_task(
    pool_of: PoolOf, two_clusters: tuple[LocalSlurm, LocalSlurm], the_cluster_fault: Callable[..., None]
) -> None:
    alpha, beta = two_clusters
    with pool_of(alpha.endpoint(walltime="00:01:00"), beta.endpoint()) as run:
        before = {job.number for job in alpha.jobs()}

        def expire() -> None:
            for job in alpha.jobs():
                before.add(job.number)
                alpha.expire(job.number)

        the_cluster_fault(run, alpha, expire)
        run.until(lambda: _states(alpha, before) == {"TIMEOUT"}, 45.0, "the scheduler ends no job")
        assert run.results(run.tasks(20, 0.1))
        run.with_load(lambda: any(j.state == "RUNNING" and j.number not in before for j in alpha.jobs()))
        run.warm_up("alpha")
        run.assert_each_ran_once(but=run.rerouted())


def _states(cluster: LocalSlurm, numbers: set[str]) -> set[str]:
    return {job.state for job in cluster.jobs(ended=True) if job.number in numbers}
