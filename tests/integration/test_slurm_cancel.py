"""scancel of a Slurm job under a pool: what ran there runs elsewhere, and a new block is asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl.testing.services.slurm import LocalSlurm

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_cancelled_job_costs_no_task(
    pool_of: PoolOf, two_clusters: tuple[LocalSlurm, LocalSlurm], the_cluster_fault: Callable[..., None]
) -> None:
    alpha, beta = two_clusters
    with pool_of(alpha.endpoint(), beta.endpoint()) as run:

        def cancel() -> None:
            alpha.cancel(next(job.number for job in alpha.jobs() if job.state == "RUNNING"))

        the_cluster_fault(run, alpha, cancel)
        assert [job.state for job in alpha.jobs(ended=True)].count("CANCELLED") == 1
        assert run.rerouted(), "what ran in the job was lost"
        run.with_load(lambda: sum(job.state == "RUNNING" for job in alpha.jobs()) == len(alpha.nodes))
        run.warm_up("alpha")
