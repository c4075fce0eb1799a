"""kill -9 of a slurmd, and of a whole Slurm node, under a pool: what ran there runs elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.services.slurm import LocalSlurm

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_a_killed_node_costs_no_task(
    pool_of: PoolOf, two_clusters: tuple[LocalSlurm, LocalSlurm], the_cluster_fault: Callable[..., None]
) -> None:
    alpha, beta = two_clusters
    with pool_of(alpha.endpoint(), beta.endpoint()) as run:
        node = alpha.nodes[0]
        the_cluster_fault(run, alpha, lambda: alpha.kill_slurmd(node))
        assert not run.events(ev.EndpointDown), "its jobs go on without their daemon"
        alpha.start_slurmd(node)
        run.until(lambda: alpha.node_state(node) in {"idle", "allocated"})
        the_cluster_fault(run, alpha, lambda: alpha.kill_node(node))
        assert run.rerouted(), "what ran on the node was lost"
        alpha.start_slurmd(node)
        run.with_load(lambda: sum(job.state == "RUNNING" for job in alpha.jobs()) == len(alpha.nodes))
        run.warm_up("alpha")
        run.assert_each_ran_once(but=run.rerouted())
