"""Small pools under random faults: no task is lost, none settles twice."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from diaspora_parsl.testing.faults import (
    BlackHole,
    ClockJump,
    FaultScript,
    Flaky,
    Freeze,
    Kill,
    LoseFabric,
    LoseNode,
    LoseWorker,
    Mute,
    OutOfMemory,
    Slow,
    WrongEnvironment,
)
from diaspora_parsl.testing.simulation.simulator import SimEndpoint, SimTask, Simulator

INFRASTRUCTURE = (Kill, LoseNode, LoseWorker, Freeze, Mute, Slow, LoseFabric, ClockJump)
LABELS = ["alpha", "beta", "gamma"]


@given(
    seed=st.integers(0, 1 << 32),
    count=st.integers(0, 15),
    endpoints=st.integers(1, 3),
    slots=st.integers(1, 4),
    heartbeat=st.sampled_from([None, 1.0]),
    seconds=st.sampled_from([0.05, 1.0, 10.0]),
    notice=st.sampled_from([0.1, 1.0, 5.0]),
)
@settings(max_examples=60, deadline=None)
def test_no_task_is_lost_and_none_settles_twice(
    *, seed: int, count: int, endpoints: int, slots: int, heartbeat: float | None, seconds: float, notice: float
) -> None:
    labels = LABELS[:endpoints]
    pool = [SimEndpoint(label=label, slots=slots, heartbeat=heartbeat, notice=notice) for label in labels]
    tasks = [SimTask(function=f"f{i % 2}", seconds=seconds, raises=i % 17 == 3) for i in range(60)]
    faults = FaultScript.drawn(seed, labels, count=count, seconds=40.0, kinds=INFRASTRUCTURE)
    simulator = Simulator(endpoints=pool, tasks=tasks, faults=faults, seed=seed, validate_every=1)
    report = simulator.run()
    assert report.lost == report.twice == 0
    assert report.resolved == sum(not task.raises for task in tasks)
    assert simulator.run() == report


@given(seed=st.integers(0, 1 << 32), nodes=st.sampled_from([1, 2, 4]), heartbeat=st.sampled_from([None, 1.0]))
@settings(max_examples=40, deadline=None)
def test_every_fault_at_once_still_settles_every_task(*, seed: int, nodes: int, heartbeat: float | None) -> None:
    pool = [SimEndpoint(label=label, slots=4, nodes=nodes, heartbeat=heartbeat, notice=None) for label in LABELS]
    clustered = FaultScript.clustered(seed, {"a": LABELS[:2], "b": LABELS[2:]}, seconds=40.0, between=40.0, down=10.0)
    kinds = (*INFRASTRUCTURE, Flaky, BlackHole, WrongEnvironment, OutOfMemory)
    faults = clustered + FaultScript.drawn(seed, LABELS, count=10, seconds=40.0, kinds=kinds)
    simulator = Simulator(endpoints=pool, tasks=80, faults=faults, seed=seed, validate_every=1)
    report = simulator.run()
    assert report.lost == report.twice == 0
    assert simulator.run() == report
