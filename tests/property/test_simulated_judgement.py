"""Failure attribution in virtual time: an endpoint that lacks something that tasks need."""

from __future__ import annotations

import pytest

from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.simulation.scenario import SimEndpoint, SimTask
from diaspora_parsl.testing.simulation.simulator import Simulator


@pytest.mark.parametrize("functions", [1, 4, 40])
@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_environment_costs_time_never_tasks(functions: int, seed: int) -> None:
    """Two hundred applications of four tasks without retries are never much slower than without the bad endpoint."""
    endpoints = [SimEndpoint(label="alpha", slots=4), SimEndpoint(label="beta", slots=4)]
    tasks = [SimTask(function=f"f{i % functions}", seconds=0.5, idempotent=True) for i in range(800)]
    bad = f.WrongEnvironment(at=0.0, endpoint="alpha", until=1e6)
    report = Simulator(endpoints=endpoints, tasks=tasks, faults=[bad], seed=seed, validate_every=50).run()
    assert (report.resolved, report.lost, report.twice) == (800, 0, 0)
    alone = Simulator(endpoints=endpoints[1:], tasks=tasks, seed=seed).run()
    assert report.makespan <= 1.2 * alone.makespan


@pytest.mark.parametrize("seed", range(3))
def test_nobody_waits_behind_a_function_that_a_place_lacks(seed: int) -> None:
    endpoints = [SimEndpoint(label="alpha", slots=4), SimEndpoint(label="beta", slots=1)]
    tasks = [SimTask(function="bad", seconds=1.0, idempotent=True) for _ in range(100)]
    tasks += [SimTask(function="good", seconds=1.0, idempotent=True) for _ in range(380)]
    bad = f.WrongEnvironment(at=0.0, endpoint="alpha", until=1e6, function="bad")
    report = Simulator(endpoints=endpoints, tasks=tasks, faults=[bad], seed=seed, validate_every=50).run()
    assert (report.resolved, report.lost) == (480, 0)
    assert report.makespan <= 1.25 * report.ideal_makespan
