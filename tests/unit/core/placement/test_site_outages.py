"""Correlated failures: the outage of a site, or of the path of all heartbeats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.core import settings, stimuli
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.machine import PoolCore

if TYPE_CHECKING:
    from tests.unit.core.conftest import Bench

SITES = {"a1": "anl", "a2": "anl", "a3": "anl", "a4": "anl", "u1": "uc"}


@pytest.fixture
def b(bench: type[Bench]) -> Bench:
    """Four endpoints of one site that are up, and one of another site that is not."""
    b = bench(*SITES, slots=2)
    b.core = PoolCore([settings.EndpointSpec(label=label, site=site) for label, site in SITES.items()])
    return b.up("a1", "a2", "a3", "a4")


def test_one_endpoint_lost_says_nothing_of_its_site(b: Bench) -> None:
    b.die("a1")
    b.wait(31.0)  # two that are lost long after each other do not either
    b.die("a2")
    assert [b.state(label) for label in ("a3", "a4")] == [State.UP, State.UP]


def test_two_lost_together_make_the_rest_of_the_site_suspect_at_once(b: Bench) -> None:
    b.up("u1")
    b.die("a1")
    b.wait(3.0)
    b.die("a2")
    reason = "site outage: a1, a2 of anl failed within 3 s"
    assert b.core.state("a3") == b.core.state("a4") == (State.SUSPECT, reason)
    assert b.state("u1") is State.UP
    assert [reported.reason for reported in b.of(ev.EndpointSuspect)] == [reason, reason]
    assert {b.where(b.submit()) for _ in range(2)} == {"u1"}


def test_their_attempts_are_not_rerouted_to_their_neighbours(b: Bench) -> None:
    tasks = [b.submit() for _ in range(8)]
    held = {task: b.where(task) for task in tasks}
    b.up("u1", slots=8)
    b.die("a1")
    b.die("a2")
    second = [task for task in tasks if held[task] == "a2"]
    assert len(second) == 2
    assert {b.where(task) for task in second} == {"u1"}


def test_a_result_clears_a_suspect(b: Bench) -> None:
    tasks = [b.submit() for _ in range(8)]
    at = {b.where(task): task for task in tasks}
    b.die("a1")
    b.die("a2")
    b.wait(0.1)
    b.finish(at["a3"])
    assert [b.state(label) for label in ("a3", "a4")] == [State.UP, State.SUSPECT]
    b.wait(31.0)
    assert b.state("a4") is State.UP  # suspicion without evidence ends


def test_if_nothing_else_is_up_the_suspects_work(b: Bench) -> None:
    b.die("a1")
    b.die("a2")
    assert b.where(b.submit()) in {"a3", "a4"}


def test_revivals_of_one_site_are_spread(b: Bench) -> None:
    for label in ("a1", "a2", "a3", "a4"):
        b.die(label)
    assert [reported.delay for reported in b.of(ev.EndpointReviving)] == [1.0, 2.0, 3.0, 4.0]


def test_probes_of_one_site_are_spread(b: Bench) -> None:
    b.send(stimuli.Quarantine, "a3", "odd", b.now + 10.0)
    b.send(stimuli.Quarantine, "a4", "odd", b.now + 10.0)
    b.die("a1")
    b.die("a2")
    until = [b.core.assessor.health[label].breaker.open_until for label in ("a3", "a4")]
    assert until == [11.0, 12.0]


def test_planned_losses_are_no_outage(b: Bench) -> None:
    for label in ("a1", "a2"):
        b.send(stimuli.Drain, label, "maintenance")
        b.die(label)
    assert b.state("a3") is State.UP


def test_endpoints_without_a_site_fail_alone(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", "gamma")
    b.core = PoolCore([settings.EndpointSpec(label=label) for label in b.labels])
    b.up()
    b.die("alpha")
    b.die("beta")
    assert b.state("gamma") is State.UP


# --- common silence -----------------------------------------------------------------------------------------------


def test_common_silence_of_all_sites_makes_no_endpoint_suspect_at_first(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", "gamma").up()
    tasks = [b.submit() for _ in range(3)]  # of a function of which nothing is known
    b.live(10.0, *b.labels)
    b.live(50.0)
    assert {b.state(label) for label in b.labels} == {State.UP}
    assert not b.of(ev.TaskRerouted)
    for task in tasks:
        b.finish(task)


def test_common_silence_counts_after_a_minute(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    b.submit()
    b.submit()
    b.live(10.0, *b.labels)
    b.live(70.0)
    assert {b.state(label) for label in b.labels} == {State.DOWN}


def test_one_silent_endpoint_of_many_is_suspect_at_once(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", "gamma").up()
    b.live(10.0, *b.labels)
    b.live(5.0, "beta", "gamma")
    assert [b.state(label) for label in b.labels] == [State.SUSPECT, State.UP, State.UP]


def test_one_after_the_other_is_no_common_silence(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    b.live(10.0, *b.labels)
    b.live(12.0, "beta")
    b.live(5.0)
    assert [b.state(label) for label in b.labels] == [State.SUSPECT, State.SUSPECT]


def test_one_site_that_falls_silent_is_a_site_that_may_be_lost(b: Bench) -> None:
    b.live(10.0, "a1", "a2")
    b.live(6.0)
    assert [b.state(label) for label in ("a1", "a2")] == [State.SUSPECT, State.SUSPECT]


def test_a_control_channel_that_does_not_answer_either_confirms_it(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    b.live(10.0, *b.labels)
    b.send(stimuli.Unanswered, "alpha", 0, b.now)
    b.live(6.0)
    assert [b.state(label) for label in b.labels] == [State.SUSPECT, State.UP]
