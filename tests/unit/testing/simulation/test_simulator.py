from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.faults import Fault, FaultScript, Freeze, Kill, LoseFabric, LoseWorker, Mute, Slow
from diaspora_parsl.testing.simulation.simulator import Report, SimEndpoint, SimTask, Simulator

THREE = [SimEndpoint(label=label, slots=4, heartbeat=1.0) for label in ("alpha", "beta", "gamma")]


def run(*faults: Fault, tasks: int = 600, endpoints: list[SimEndpoint] | None = None) -> Report:
    report = Simulator(endpoints=endpoints or THREE, tasks=tasks, faults=faults, seed=3, validate_every=50).run()
    assert report.lost == report.twice == report.rejected == 0
    assert report.settled == report.resolved == tasks
    return report


def test_without_faults_nothing_runs_twice_and_little_time_is_lost() -> None:
    report = run()
    assert report.attempts == report.executions == 600
    assert report.rerouted == report.late == 0
    assert report.ideal_makespan < report.makespan < 1.15 * report.ideal_makespan + 2.0


def test_a_fast_endpoint_gets_more() -> None:
    fast = [SimEndpoint(label="fast", speed=4.0), SimEndpoint(label="slow")]
    assert run(endpoints=fast).makespan < 1.15 * run(endpoints=fast).ideal_makespan + 3.0


def test_a_killed_endpoint_costs_what_it_held() -> None:
    report = run(Kill(at=10.0, endpoint="alpha"))
    assert 4 <= report.rerouted <= 8
    assert [d.seconds for d in report.detections] == [1.0]


def test_a_frozen_endpoint_is_left_by_its_silence() -> None:
    report = run(Freeze(at=10.5, endpoint="alpha", until=40.0))
    (detection,) = report.detections
    assert detection.seconds <= 5.0
    assert report.late > 0, "what it brings after the thaw is late"


def test_a_mute_endpoint_that_works_keeps_its_work() -> None:
    assert run(Mute(at=10.0, endpoint="alpha", until=20.0)).executions == 600


def test_a_lost_worker_costs_one_attempt() -> None:
    assert run(LoseWorker(at=10.0, endpoint="beta")).attempts == 601


def test_a_slow_endpoint_loses_no_task() -> None:
    run(Slow(at=10.0, endpoint="gamma", until=20.0, factor=5.0))


def test_a_fabric_outage_costs_nothing() -> None:
    assert run(LoseFabric(at=5.0, until=1e6)).rerouted == 0
    assert run(LoseFabric(at=10.0, until=30.0)).rerouted == 0


def test_users_exceptions_and_poison_end_their_task_only() -> None:
    tasks = [SimTask(function="f", raises=i == 5, kills=i == 7) for i in range(200)]
    report = Simulator(endpoints=THREE, tasks=tasks, seed=1, validate_every=10).run()
    assert (report.lost, report.twice, report.rejected, report.resolved) == (0, 0, 2, 198)
    assert report.attempts == 200 + 2


def test_everything_dead_for_good_is_said_in_time() -> None:
    settings = PoolSettings(unavailable_timeout=60.0, revive_first=1e6, revive_longest=1e6)
    faults = [Kill(at=5.0, endpoint=spec.label) for spec in THREE]
    report = Simulator(endpoints=THREE, tasks=600, faults=faults, settings=settings, seed=1).run()
    assert report.lost == report.twice == 0
    assert report.rejected > 0
    assert report.makespan == pytest.approx(66.0)


def test_wrong_input_says_so() -> None:
    with pytest.raises(ConfigurationError, match="share a label"):
        Simulator(endpoints=[THREE[0], THREE[0]], tasks=1)
    with pytest.raises(ConfigurationError, match="no such simulated endpoint: delta"):
        Simulator(endpoints=THREE, tasks=1, faults=[Kill(at=1.0, endpoint="delta")])


SCRIPT = """
from diaspora_parsl.testing.faults import FaultScript
from diaspora_parsl.testing.simulation.simulator import SimEndpoint, Simulator
labels = ["alpha", "beta", "gamma", "delta"]
endpoints = [SimEndpoint(label=label, heartbeat=1.0) for label in labels]
faults = FaultScript.drawn(5, labels, count=12, seconds=60.0)
print(Simulator(endpoints=endpoints, tasks=1500, faults=faults, seed=5).run().digest)
"""


def test_the_same_seed_gives_the_same_run_in_every_process() -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "4711")
    }
    assert len(digests) == 1


@pytest.mark.timeout(600)
def test_two_hundred_endpoints_and_a_hundred_thousand_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    labels = [f"e{i:03}" for i in range(200)]
    endpoints = [
        SimEndpoint(label=label, site=f"site-{i // 10}", speed=(0.5, 1.0, 2.0)[i % 3]) for i, label in enumerate(labels)
    ]
    deaths = FaultScript.drawn(7, labels, count=100, seconds=100.0, kinds=(Kill,))
    began = time.perf_counter()
    report = Simulator(endpoints=endpoints, tasks=100_000, faults=deaths, seed=7, validate_every=50_000).run()
    took = time.perf_counter() - began
    with capsys.disabled():
        print(f"\n200 endpoints, 100,000 tasks, {len(deaths)} deaths: {took:.1f} s")  # noqa: T201 - a figure to see
    assert (report.settled, report.resolved, report.lost, report.twice) == (100_000, 100_000, 0, 0)
    assert report.rerouted > 100
    assert report.makespan < 1.2 * report.ideal_makespan


def test_what_is_announced_costs_no_attempt() -> None:
    tasks = [SimTask(function="f", seconds=4.0) for _ in range(400)]
    strikes = [Kill(at=50.0, endpoint="alpha", until=80.0)]

    def outcome(*windows: tuple[float, float]) -> Report:
        places = [SimEndpoint(label="alpha", maintenance=windows), SimEndpoint(label="beta")]
        report = Simulator(endpoints=places, tasks=tasks, faults=strikes, seed=3, validate_every=10).run()
        assert (report.lost, report.twice, report.rejected) == (0, 0, 0)
        return report

    assert outcome().rerouted >= 4, "unannounced, what ran there is lost"
    announced = outcome((50.0, 80.0))
    assert announced.rerouted == announced.late == 0
    assert announced.attempts == announced.executions == 400
    assert announced.makespan <= outcome().makespan + 4.0, "keeping clear of it costs about what it saves"
