"""Hedging in virtual time: its gain and cost on a load with and without stragglers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.testing.simulation.scenario import Report, SimEndpoint, SimTask
from diaspora_parsl.testing.simulation.simulator import Simulator

TASKS = 3000
SHARE = 0.05


def run(seed: int, *, hedging: bool, stragglers: float, straggling: float = 10.0, jitter: float = 0.3) -> Report:
    """Tasks of a second come evenly: a third of the slots are busy, and two thirds with stragglers of 20 s.

    Where more are, a hedge may find no idle slot.
    """
    endpoints = [
        SimEndpoint(label=f"e{i}", slots=8, stragglers=stragglers, straggling=straggling, start_delay=0.0)
        for i in range(3)
    ]
    tasks = [SimTask(at=1.0 + i / 8.0, idempotent=True) for i in range(TASKS)]
    pool = PoolSettings(hedging=hedging)
    simulator = Simulator(endpoints=endpoints, tasks=tasks, seed=seed, settings=pool, jitter=jitter, validate_every=97)
    report = simulator.run()
    assert (report.lost, report.twice, report.rejected) == (0, 0, 0)
    return report


@given(seed=st.integers(0, 1 << 16), straggling=st.sampled_from([10.0, 15.0, 20.0]))
@settings(max_examples=8, deadline=None)
@pytest.mark.timeout(300)
def test_the_tail_is_halved_for_no_more_than_the_stragglers(seed: int, straggling: float) -> None:
    without = run(seed, hedging=False, stragglers=SHARE, straggling=straggling)
    report = run(seed, hedging=True, stragglers=SHARE, straggling=straggling)
    assert report.latency_p99 <= without.latency_p99 / 2
    assert report.attempts - TASKS == report.hedged
    # Of all attempts, hedges included, so many straggle; four standard deviations are luck.
    assert report.hedged <= (SHARE / (1 - SHARE) + 0.01) * TASKS + 4 * (SHARE * TASKS) ** 0.5
    assert without.hedged == 0


@given(seed=st.integers(0, 1 << 16), jitter=st.sampled_from([0.1, 0.5, 0.9]))
@settings(max_examples=8, deadline=None)
@pytest.mark.timeout(300)
def test_without_stragglers_it_costs_next_to_nothing(seed: int, jitter: float) -> None:
    assert run(seed, hedging=True, stragglers=0.0, jitter=jitter).hedged <= 0.03 * TASKS
