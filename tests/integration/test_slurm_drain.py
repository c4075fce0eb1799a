"""A Slurm node is drained, its job ends, and it comes back: nothing is lost, nothing runs twice without need."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.services.slurm import Job, LocalSlurm

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run


@pytest.mark.serial
def test_a_drained_node_costs_no_task(
    pool_of: PoolOf, two_clusters: tuple[LocalSlurm, LocalSlurm], the_cluster_fault: Callable[..., None]
) -> None:
    alpha, beta = two_clusters
    with pool_of(alpha.endpoint(), beta.endpoint()) as run:

        def drain() -> None:
            alpha.drain(node)
            assert alpha.node_state(node) == "draining"

        job = _running(run, alpha)[0]
        node = job.node
        the_cluster_fault(run, alpha, drain)
        assert not run.events(ev.TaskRerouted), "what runs on a draining node may end"
        alpha.cancel(job.number)
        run.until(lambda: alpha.node_state(node) == "drained")
        run.with_load(lambda: any(job.state == "PENDING" for job in alpha.jobs()), "no block is asked for in its place")
        alpha.resume(node)
        run.with_load(lambda: {job.node for job in alpha.jobs() if job.state == "RUNNING"} == set(alpha.nodes))
        run.assert_each_ran_once(but=run.rerouted())


def _running(run: Run, cluster: LocalSlurm) -> list[Job]:
    run.until(lambda: any(job.state == "RUNNING" for job in cluster.jobs()))
    return [job for job in cluster.jobs() if job.state == "RUNNING"]
