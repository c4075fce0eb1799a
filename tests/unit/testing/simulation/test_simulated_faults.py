from __future__ import annotations

import pytest

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import (
    BlackHole,
    ClockJump,
    Fault,
    FaultScript,
    Flaky,
    Freeze,
    Kill,
    LoseConnection,
    LoseFabric,
    LoseNode,
    LoseWorker,
    OutOfMemory,
    Slow,
    WrongEnvironment,
)
from diaspora_parsl.testing.simulation.capacity import surviving_makespan
from diaspora_parsl.testing.simulation.scenario import LOADED, Report, SimEndpoint, SimTask, quantile
from diaspora_parsl.testing.simulation.simulator import Simulator

TWO = [SimEndpoint(label=label, slots=4, nodes=4, heartbeat=1.0) for label in ("alpha", "beta")]


def run(*faults: Fault, tasks: list[SimTask] | int = 400, endpoints: list[SimEndpoint] | None = None) -> Report:
    report = Simulator(endpoints=endpoints or TWO, tasks=tasks, faults=faults, seed=3, validate_every=50).run()
    assert report.lost == report.twice == 0
    assert report.resolved + report.rejected == report.submitted
    return report


def test_user_code_that_is_flaky_somewhere_fails_there_only() -> None:
    tasks = [SimTask(function="f", eligible=frozenset({label})) for label in ("alpha", "beta") for _ in range(200)]
    report = run(Flaky(at=0.0, endpoint="alpha", until=1e6, rate=0.5, seed=1), tasks=tasks)
    assert 70 <= report.rejected <= 130


def test_a_black_hole_swallows_what_one_node_gets() -> None:
    tasks = [SimTask(function="f", eligible=frozenset({"alpha"})) for _ in range(200)]
    report = run(BlackHole(at=0.0, endpoint="alpha", until=1e6, node=2), tasks=tasks)
    assert 100 <= report.rejected < 200, "it is always free for the next, and the other three nodes are not"
    assert run(BlackHole(at=0.0, endpoint="alpha", until=1e6), tasks=[SimTask(eligible=frozenset({"beta"}))]).resolved


@pytest.mark.parametrize("kind", [WrongEnvironment, OutOfMemory])
def test_one_function_fails_at_one_place(kind: type[WrongEnvironment | OutOfMemory]) -> None:
    tasks = [SimTask(function=name, eligible=frozenset({"alpha"})) for name in ("f", "g") for _ in range(100)]
    assert run(kind(at=0.0, endpoint="alpha", until=1e6, function="f"), tasks=tasks).rejected == 100
    assert run(kind(at=0.0, endpoint="alpha", until=1e6), tasks=tasks).rejected == 200


@pytest.mark.parametrize(
    "fault",
    [
        WrongEnvironment(at=0.0, endpoint="alpha", until=1e6),
        BlackHole(at=0.0, endpoint="alpha", until=1e6, node=1),
        Flaky(at=0.0, endpoint="alpha", until=1e6, rate=0.3),
    ],
)
def test_a_bad_place_fails_no_task_that_may_run_twice(fault: Fault) -> None:
    report = run(fault, tasks=[SimTask(function="f", idempotent=True)] * 400)
    assert report.rejected == 0
    assert report.executions > 400, "something failed there"


def test_a_lost_node_costs_what_ran_there() -> None:
    report = run(LoseNode(at=10.0, endpoint="alpha", node=1))
    assert report.attempts == report.submitted + 1
    assert report.rerouted == 1


def test_a_closed_site_stays_away() -> None:
    report = run(Kill(at=5.0, endpoint="alpha", until=30.0), tasks=600)
    assert report.surviving_makespan == pytest.approx(surviving_makespan(TWO, [SimTask()] * 600, ()) + 12.5, abs=2.0)
    assert report.makespan < 1.10 * report.surviving_makespan + 8.0


def test_worker_time_is_useful_or_wasted() -> None:
    calm = run(tasks=400)
    assert calm.wasted_seconds == pytest.approx(0.0, abs=1e-6)
    assert calm.useful_seconds == pytest.approx(400.0, rel=0.1)
    lost = run(
        Kill(at=10.0, endpoint="alpha"), LoseNode(at=20.0, endpoint="beta"), LoseWorker(at=25.0, endpoint="beta")
    )
    assert 0.0 < lost.wasted_seconds < 6 * 1.7, "at most what six workers had begun"
    frozen = run(Freeze(at=10.5, endpoint="alpha", until=40.0))
    assert frozen.late > 0
    assert 0.0 < frozen.wasted_seconds < 8 * 1.7
    waited = run(ClockJump(at=10.0, seconds=60.0))
    assert waited.wasted_seconds == pytest.approx(0.0, abs=1e-6)


def test_a_pool_that_stood_still_blames_nobody() -> None:
    report = run(ClockJump(at=10.0, seconds=60.0))
    assert (report.rerouted, report.quarantined, report.false_suspicions) == (0, 0, 0)
    assert report.attempts == report.executions == 400
    assert report.makespan > 60.0


def test_the_capacity_that_survives_is_counted_over_time() -> None:
    pool = [SimEndpoint(label="a", slots=4, nodes=4), SimEndpoint(label="b", slots=4)]
    tasks = [SimTask(seconds=1.0)] * 80

    def ideal(*faults: Fault) -> float:
        return surviving_makespan(pool, tasks, FaultScript(faults))

    assert ideal() == 10.0
    assert ideal(Kill(at=5.0, endpoint="a")) == 10.0, "it may be rebuilt at once"
    assert ideal(Kill(at=5.0, endpoint="a", until=1e9)) == 15.0
    assert ideal(Freeze(at=0.0, endpoint="a", until=5.0), Kill(at=2.0, endpoint="a", until=4.0)) == 12.5
    assert ideal(Slow(at=0.0, endpoint="b", until=1e9, factor=4.0)) == 16.0
    assert ideal(BlackHole(at=0.0, endpoint="a", until=1e9, node=3)) == pytest.approx(80 / 7)
    assert ideal(WrongEnvironment(at=0.0, endpoint="a", until=1e9)) == 20.0
    assert ideal(OutOfMemory(at=0.0, endpoint="a", until=1e9, function="f")) == 10.0, "others can run there"
    assert ideal(*(Kill(at=1.0, endpoint=label, until=1e9) for label in "ab")) == pytest.approx(1e9 + 9.0)


def test_the_fabric_away_for_ten_minutes_costs_nothing() -> None:
    pool = [SimEndpoint(label=f"e{i}", heartbeat=1.0, lateness=LOADED) for i in range(10)]
    tasks = [SimTask(function=f"f{i % 3}", at=i / 30) for i in range(30 * 750)]
    report = run(LoseFabric(at=60.0, until=660.0), endpoints=pool, tasks=tasks)
    assert (report.rejected, report.rerouted, report.quarantined, report.false_suspicions) == (0, 0, 0, 0)


@pytest.mark.parametrize("notice", [1.0, None])
def test_all_endpoints_but_one_are_lost_in_sequence(notice: float | None) -> None:
    labels = [f"e{i}" for i in range(10)]
    pool = [SimEndpoint(label=label, heartbeat=1.0, lateness=LOADED, notice=notice) for label in labels]
    faults = [Kill(at=12.0 * (i + 1), endpoint=label, until=1e9) for i, label in enumerate(labels[:-1])]
    report = run(*faults, endpoints=pool, tasks=2800)
    assert len(report.detections) == 9
    detection = report.detection_times()[-1]
    assert detection <= 5.0
    assert report.surviving_makespan > 108.0, "the last one works alone for a while"
    assert report.makespan <= 1.10 * report.surviving_makespan + detection


def test_clustered_and_correlated_failures_lose_nothing() -> None:
    sites = {f"s{i}": [f"s{i}e{j}" for j in range(5)] for i in range(20)}
    pool = [
        SimEndpoint(label=label, site=site, heartbeat=1.0, lateness=LOADED, notice=None)
        for site, labels in sites.items()
        for label in labels
    ]
    script = FaultScript.clustered(
        5, sites, seconds=90.0, between=400.0, down=15.0, soon=15.0, kinds=(Kill, Freeze, LoseWorker, LoseNode)
    )
    report = Simulator(endpoints=pool, tasks=40_000, faults=script, seed=5, validate_every=20_000).run()
    assert (report.lost, report.twice, report.rejected, report.false_suspicions) == (0, 0, 0, 0)
    assert len(report.detections) > 20
    assert report.precautions, "what was left of a site that was failing was doubted"
    assert report.wasted <= 0.03 * report.submitted
    assert (quantile(report.detection_times(), 0.99) or 0.0) <= 5.0
    assert report.makespan <= 1.10 * report.surviving_makespan + 5.0


def test_wrong_input_says_so() -> None:
    with pytest.raises(ConfigurationError, match="give every node as many slots"):
        SimEndpoint(label="a", slots=4, nodes=3)
    with pytest.raises(ConfigurationError, match="alpha has 4 nodes"):
        Simulator(endpoints=TWO, tasks=1, faults=[LoseNode(at=1.0, endpoint="alpha", node=4)])
    with pytest.raises(
        ConfigurationError, match=r"LoseConnection.* cannot be simulated: only Globus Compute has this fault"
    ):
        Simulator(endpoints=TWO, tasks=1, faults=[LoseConnection(at=1.0)])
    assert quantile([], 0.5) is None
