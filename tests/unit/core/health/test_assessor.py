from __future__ import annotations

from collections.abc import Callable

import pytest

from diaspora_parsl.core.health.assessor import HealthAssessor, State, Verdict
from diaspora_parsl.core.health.evidence import Health
from diaspora_parsl.core.settings import PoolSettings


class Bench:
    """An assessor of one endpoint that is up since time 0."""

    def __init__(self) -> None:
        self.assessor = HealthAssessor({"alpha": "anl", "beta": "uc"}, PoolSettings(acceptable_pause=2.5))
        self.health: Health = self.assessor.health["alpha"]
        self.health.started_at = 0.0
        self.assessor.observed("alpha", 0.0, 4, blocks_expected=True)

    def verdict(self, at: float, live: int = 0, *, overdue: bool = False) -> Verdict:
        return self.assessor.verdict("alpha", at, live, lambda: overdue)

    def beat_until(self, end: int) -> None:
        for second in range(end + 1):
            self.assessor.record_heartbeat("alpha", "block/node", float(second), 1.0)
            self.assessor.fabric_polled(float(second))

    def read_until(self, start: int, end: int) -> None:
        for second in range(start, end + 1):
            self.assessor.fabric_polled(float(second))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_starting(bench: Bench) -> None:
    verdict = bench.assessor.verdict("beta", 0.0, 0, lambda: False)
    assert (verdict.state, verdict.reason, verdict.accepts) == (State.STARTING, "being started", False)


def test_up(bench: Bench) -> None:
    verdict = bench.verdict(1.0)
    assert (verdict.state, verdict.reason, verdict.accepts) == (State.UP, "4 slots", True)


def test_waiting_for_the_first_worker(bench: Bench) -> None:
    bench.health.started_at = 0.0
    bench.health.had_slots = False
    bench.health.slots = 0
    verdict = bench.verdict(1.0)
    assert (verdict.state, verdict.reason) == (State.WAITING, "no worker has connected yet")


def test_empty_keeps_for_a_grace(bench: Bench) -> None:
    bench.assessor.observed("alpha", 5.0, 0, blocks_expected=True)
    assert bench.verdict(5.5, live=2).keeps
    assert bench.verdict(5.5, live=2).recheck == 6.0
    verdict = bench.verdict(6.0, live=2)
    assert not verdict.keeps
    assert not verdict.fatal
    assert verdict.reason == "no worker is connected while 2 attempts are outstanding"
    assert bench.verdict(100.0).reason == "no worker is connected"


def test_empty_without_blocks_is_the_end(bench: Bench) -> None:
    bench.assessor.observed("alpha", 5.0, 0, blocks_expected=False)
    assert not bench.verdict(5.9, live=1).fatal
    assert bench.verdict(6.0, live=1).fatal


def test_stalled_is_the_end(bench: Bench) -> None:
    bench.assessor.observed("alpha", 5.0, 0, blocks_expected=False)
    bench.health.stalled_since = 5.0
    assert bench.verdict(6.0).recheck == 65.0
    verdict = bench.verdict(65.0)
    assert verdict.fatal
    assert verdict.reason == "for 60 s there was work, but no worker and no block requested"


def test_down_and_reviving_carry_the_reason_of_the_death(bench: Bench) -> None:
    bench.health.dead_reason = "its interchange was killed"
    assert bench.verdict(1.0) == Verdict(State.DOWN, "its interchange was killed", keeps=False)


def test_draining_drained_and_dying_while_drained(bench: Bench) -> None:
    bench.health.draining = "maintenance"
    assert bench.verdict(1.0, live=1) == Verdict(State.DRAINING, "maintenance")
    assert bench.verdict(1.0) == Verdict(State.DRAINED, "maintenance")
    bench.assessor.observed("alpha", 5.0, 0, blocks_expected=False)
    verdict = bench.verdict(7.0, live=1)
    assert not verdict.keeps
    assert verdict.fatal
    assert verdict.reason.startswith("maintenance; no worker is connected")


def test_silence_is_suspect_then_confirmed_then_down_then_cleared(bench: Bench) -> None:
    bench.beat_until(30)
    assert bench.verdict(30.0).state is State.UP
    bench.read_until(31, 34)
    assert bench.verdict(34.0, live=1).state is State.UP
    bench.assessor.fabric_polled(34.2)
    suspect = bench.verdict(34.2, live=1)
    assert (suspect.state, suspect.last_resort, suspect.keeps) == (State.SUSPECT, True, True)
    assert suspect.reason.startswith("no heartbeat for 4.2 s (phi ")
    assert suspect.phi >= 8.0
    assert suspect.recheck == pytest.approx(34.7)
    left = bench.verdict(34.7, live=1, overdue=True)
    assert (left.state, left.keeps, left.last_resort) == (State.DOWN, False, False)
    assert bench.verdict(34.8).state is State.DOWN, "it stays down, though it holds no attempts"
    bench.assessor.record_heartbeat("alpha", "block/node", 35.0, 1.0)
    assert bench.verdict(35.0).state is State.UP


def test_silence_is_probed_when_nothing_is_there(bench: Bench) -> None:
    bench.beat_until(30)
    bench.read_until(31, 35)
    assert not bench.verdict(35.0).probe
    bench.read_until(36, 45)
    assert bench.verdict(45.0).probe
    assert not bench.verdict(45.0, live=1).probe


def test_one_stream_alive_is_enough(bench: Bench) -> None:
    bench.beat_until(30)
    for second in range(31, 60):
        bench.assessor.record_heartbeat("alpha", "block/other", float(second), 1.0)
        bench.assessor.fabric_polled(float(second))
    assert bench.verdict(59.0).state is State.UP


def test_a_recent_result_overrules_silence_for_a_while(bench: Bench) -> None:
    bench.beat_until(30)
    bench.read_until(31, 35)
    bench.assessor.record_result("alpha", 34.5)
    assert bench.verdict(35.0).state is State.UP
    bench.read_until(36, 37)
    assert bench.verdict(37.0).state is State.SUSPECT


def test_a_fabric_that_is_not_read_says_nothing(bench: Bench) -> None:
    bench.beat_until(30)
    assert bench.verdict(300.0, live=1, overdue=True).state is State.UP
    assert not bench.assessor.fabric_polled(300.0), "the observer was stalled"
    assert bench.verdict(300.0).state is State.UP


def test_streams_of_disconnected_nodes_are_dropped(bench: Bench) -> None:
    bench.beat_until(30)
    bench.assessor.observed("alpha", 31.0, 0, blocks_expected=True)
    assert not bench.health.heartbeats


def test_an_unanswered_control_channel(bench: Bench) -> None:
    bench.health.unanswered_since = 10.0
    assert bench.verdict(12.0).recheck == 13.0
    suspect = bench.verdict(13.0)
    assert suspect.state is State.SUSPECT
    assert suspect.reason == "its control channel has not answered for 3.0 s, and no result came"
    assert not bench.verdict(14.0, live=1, overdue=True).keeps
    assert not bench.verdict(69.0).fatal
    assert bench.verdict(70.0).fatal
    bench.assessor.observed("alpha", 71.0, 4, blocks_expected=True)
    assert bench.verdict(71.0).state is State.UP


def test_results_overrule_an_unanswered_control_channel(bench: Bench) -> None:
    bench.health.unanswered_since = 10.0
    bench.assessor.record_result("alpha", 14.0)
    verdict = bench.verdict(15.0)
    assert (verdict.state, verdict.recheck) == (State.UP, 16.0)
    assert bench.verdict(16.0).state is State.SUSPECT


def test_a_rumour_avoids_for_a_while(bench: Bench) -> None:
    bench.assessor.peer_report("alpha", 10.0, "another pool says: lost")
    verdict = bench.verdict(11.0, live=1, overdue=True)
    assert (verdict.state, verdict.keeps, verdict.last_resort) == (State.SUSPECT, True, True)
    assert (verdict.reason, verdict.recheck) == ("another pool says: lost", 40.0)
    assert bench.verdict(40.0).state is State.UP


@pytest.mark.parametrize(
    "sign",
    [
        lambda assessor: assessor.record_result("alpha", 12.0),
        lambda assessor: assessor.record_heartbeat("alpha", "block/node", 12.0, 1.0),
    ],
)
def test_a_sign_of_life_ends_a_rumour(bench: Bench, sign: Callable[[HealthAssessor], None]) -> None:
    bench.assessor.peer_report("alpha", 10.0, "lost")
    sign(bench.assessor)
    assert bench.verdict(13.0).state is State.UP


def test_quarantine_and_its_probe(bench: Bench) -> None:
    for task in range(5):
        bench.health.breaker.failed(float(task), task, task)
    verdict = bench.verdict(5.0)
    assert (verdict.state, verdict.accepts, verdict.probe, verdict.last_resort) == (
        State.QUARANTINED, False, False, False,
    )  # fmt: skip
    assert (verdict.reason, verdict.recheck) == ("attempts were lost there in a row", 14.0)
    assert bench.verdict(14.0).probe
    bench.health.breaker.dispatched(14.0, 99)
    assert not bench.verdict(15.0).probe


def test_silence_in_quarantine_is_no_last_resort(bench: Bench) -> None:
    for task in range(5):
        bench.health.breaker.failed(30.0 + task, task, task)
    bench.health.unanswered_since = 31.0
    verdict = bench.verdict(35.0)
    assert verdict.state is State.SUSPECT
    assert not verdict.last_resort
    bench.assessor.observed("alpha", 36.0, 4, blocks_expected=True)
    assert bench.verdict(36.0).state is State.QUARANTINED


def test_an_endpoint_may_recover_by_its_state_and_history(bench: Bench) -> None:
    assessor, health = bench.assessor, bench.health
    for state in (State.UP, State.SUSPECT, State.QUARANTINED, State.STARTING, State.WAITING):
        assert assessor.may_recover("alpha", state, 1.0)
    for state in (State.DOWN, State.DRAINING, State.DRAINED):
        assert not assessor.may_recover("alpha", state, 1.0)
    health.new_generation(1)
    health.deaths = 1
    health.started_at = 100.0
    assessor.observed("alpha", 101.0, 0, blocks_expected=True)
    assert not assessor.may_recover("alpha", State.WAITING, 129.0)
    assert assessor.may_recover("alpha", State.WAITING, 130.0), "its blocks are kept in the queue"
