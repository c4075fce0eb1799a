"""Drains, maintenance windows, an operator's quarantine and the ends of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failures import Kind
from diaspora_parsl.core.health.assessor import State

if TYPE_CHECKING:
    from tests.unit.core.conftest import Bench


def submit(b: Bench, walltime: float | None, function: str = "f", *eligible: str) -> int:
    """Submit a task with a walltime."""
    task = 1000 + len(b.actions)
    b.send(stimuli.Submitted, task, function, frozenset(eligible or b.labels), walltime=walltime)
    return task


def test_drained_until_a_time_it_is_back_by_itself(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.send(stimuli.Drain, "alpha", "for an hour", b.now + 3600.0)
    task = b.submit()
    assert (b.state("alpha"), b.where(task)) == (State.DRAINED, None)
    b.wait(3599.0)  # far more than the limit of a pool that is down: its end is known, so tasks wait for it
    assert b.where(task) is None
    b.wait(1.0)
    assert b.where(task) == "alpha"


def test_with_no_end_in_sight_tasks_do_not_wait_for_ever(bench: type[Bench]) -> None:
    b = bench("alpha", unavailable_timeout=60.0).up()
    b.send(stimuli.Drain, "alpha", "by hand")
    b.submit()
    b.wait(61.0)
    (reported,) = b.of(ev.TaskFailed)
    assert "alpha is drained: by hand" in reported.message


def test_requests_are_answered_with_the_state(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.submit()
    b.send(stimuli.Drain, "alpha", "by hand", None, "event 7")
    b.send(stimuli.Resume, "alpha", "event 8")
    first, second = b.of(ev.RequestAnswered)
    assert (first.request, first.state, first.in_flight, first.reason) == ("event 7", "draining", 1, "by hand")
    assert (second.request, second.state) == ("event 8", "up")


def test_an_endpoint_that_died_while_drained_is_revived_at_the_end(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.send(stimuli.Drain, "alpha", "maintenance", b.now + 100.0)
    b.die("alpha", "its jobs were ended")
    b.wait(99.0)
    assert not b.of(actions.Revive)
    b.wait(3.0)
    assert [action.generation for action in b.of(actions.Revive)] == [1]


def test_a_window_drains_and_ends(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    task = b.submit()
    b.send(stimuli.Maintenance, "alpha", 10.0, 20.0, "cooling")
    assert b.state("alpha") is State.UP
    b.wait(10.0)
    assert b.core.state("alpha") == (State.DRAINING, "cooling")
    assert b.where(task) == "alpha"  # what runs at the start is left to run
    b.finish(task)
    assert b.state("alpha") is State.DRAINED
    waits = b.submit()
    b.wait(10.0)
    assert (b.state("alpha"), b.where(waits)) == (State.UP, "alpha")


def test_attempts_lost_to_maintenance_are_rerouted(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up("alpha")
    task = b.submit()
    b.up("beta")
    b.send(stimuli.Maintenance, "alpha", 10.0, 20.0, "cooling")
    b.wait(11.0)
    b.fail(task, Kind.MANAGER_LOST)
    assert b.where(task) == "beta"


def test_a_task_that_is_known_to_run_into_a_window_goes_elsewhere(bench: type[Bench]) -> None:
    b = bench("alpha", "beta", slots=2).up("alpha")
    b.send(stimuli.Maintenance, "alpha", 100.0, 200.0, "cooling")
    long, short = submit(b, 101.0), submit(b, 99.0)
    assert (b.where(long), b.where(short)) == (None, "alpha")
    b.up("beta")
    assert b.where(long) == "beta"


def test_the_learnt_duration_counts_without_a_walltime(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    first = b.submit("slow")
    b.wait(50.0)
    b.finish(first)
    b.send(stimuli.Maintenance, "alpha", b.now + 60.0, b.now + 100.0, "cooling")
    slow, unknown = b.submit("slow"), b.submit("unknown")
    assert (b.where(slow), b.where(unknown)) == (None, "alpha")  # 50 s and a quarter do not fit
    b.finish(unknown)
    assert b.where(slow) is None
    b.wait(100.0)
    assert b.where(slow) == "alpha"


def test_without_another_place_it_waits_for_the_end_of_the_window(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.send(stimuli.Maintenance, "alpha", 100.0, 200.0, "cooling")
    long = submit(b, 150.0)
    b.wait(199.0)
    assert b.where(long) is None
    b.wait(1.0)
    assert b.where(long) == "alpha"


def test_a_window_called_off_holds_nothing(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.send(stimuli.Maintenance, "alpha", 100.0, 200.0, "cooling")
    long = submit(b, 150.0)
    b.send(stimuli.Maintenance, "alpha", None, None, "called off")
    assert b.where(long) == "alpha"
    b.wait(150.0)
    assert not b.of(ev.EndpointDraining)


def seen(b: Bench, label: str, left: float | None) -> None:
    """Report the remaining time of the endpoint's last block."""
    until = None if left is None else b.now + left
    b.send(stimuli.Observed, label, b.core.assessor.health[label].generation, b.slots, True, until)


def test_a_task_that_outlives_the_blocks_of_one_endpoint_goes_to_another(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up("alpha")
    seen(b, "alpha", 3600.0)
    b.wait(3000.0)
    seen(b, "alpha", 600.0)
    long = submit(b, 900.0)
    assert b.where(long) is None
    b.up("beta")
    assert b.where(long) == "beta"


def test_it_waits_for_a_new_block_that_is_long_enough(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    seen(b, "alpha", 3600.0)
    b.wait(3000.0)
    seen(b, "alpha", 600.0)
    long, short = submit(b, 900.0), submit(b, 500.0)
    assert (b.where(long), b.where(short)) == (None, "alpha")
    b.finish(short)
    assert b.where(long) is None
    seen(b, "alpha", 3600.0)  # the next block has come
    assert b.where(long) == "alpha"


def test_it_goes_all_the_same_if_no_block_is_long_enough_anywhere(bench: type[Bench]) -> None:
    b = bench("alpha", "beta").up()
    seen(b, "alpha", 600.0)
    seen(b, "beta", 500.0)
    assert b.where(submit(b, 900.0)) is not None


def test_blocks_that_outlive_their_end_say_nothing(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    seen(b, "alpha", 3600.0)
    b.wait(3590.0)
    long = submit(b, 900.0)
    assert b.where(long) is None
    b.wait(10.0)
    assert b.where(long) == "alpha"


def test_quarantined_by_hand_only_a_probe_that_was_sent_then_ends_it(bench: type[Bench]) -> None:
    b = bench("alpha", slots=2).up()
    before = b.submit()
    b.send(stimuli.Quarantine, "alpha", "odd results", b.now + 10.0)
    waits, more = b.submit(), b.submit()
    b.finish(before)
    assert b.core.state("alpha") == (State.QUARANTINED, "odd results")
    b.wait(9.9)
    assert b.where(waits) is None
    b.wait(0.1)
    assert (b.where(waits), b.where(more)) == ("alpha", None)
    b.finish(waits)
    assert (b.state("alpha"), b.where(more)) == (State.UP, "alpha")


def test_a_probe_that_is_lost_lengthens_the_quarantine(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.send(stimuli.Quarantine, "alpha", "odd results", b.now)
    task = b.submit()
    assert b.where(task) == "alpha"
    b.fail(task, Kind.WORKER_LOST)
    assert b.where(task) is None
    b.wait(60.0)
    assert b.where(task) == "alpha"


def test_a_quarantine_by_hand_outlives_a_generation_and_ends_by_hand(bench: type[Bench]) -> None:
    b = bench("alpha").up()
    b.send(stimuli.Quarantine, "alpha", "odd results", b.now + 1000.0)
    b.die("alpha")
    b.wait(5.0)
    b.up("alpha")
    task = b.submit()
    assert (b.state("alpha"), b.where(task)) == (State.QUARANTINED, None)
    b.send(stimuli.Resume, "alpha")
    assert (b.state("alpha"), b.where(task)) == (State.UP, "alpha")
