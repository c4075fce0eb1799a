from __future__ import annotations

from typing import Any

import pytest

from diaspora_parsl import events
from diaspora_parsl.core import actions, settings, stimuli
from diaspora_parsl.core.failures import Failure, Kind
from diaspora_parsl.core.health.assessor import State
from diaspora_parsl.core.invariants import validate
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.errors import EndpointsUnavailableError, PoisonTaskError, PoolShutdownError


def test_death_reroutes_running_and_queued_and_charges_nothing(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=1)
    pool.up("alpha")
    first = pool.submit("short")
    pool.now = 0.01
    pool.finish(first)
    tasks = [pool.submit("short") for _ in range(10)]
    assert {pool.where(task) for task in tasks} == {"alpha"}, "one runs, nine are prefetched"
    pool.up("beta", slots=16)
    pool.die("alpha")
    assert {pool.where(task) for task in tasks} == {"beta"}
    assert pool.core.rerouted == 10
    reported = pool.of(events.TaskRerouted)
    assert {t.task for t in reported} == set(tasks)
    assert all("interchange was killed" in t.reason for t in reported)
    for task in tasks:
        pool.finish(task)
    assert len(pool.of(actions.Resolve)) == 11
    assert not pool.of(actions.Reject)


def test_the_history_of_a_task_lists_its_transitions(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    task = pool.submit()
    pool.up("beta")
    pool.die("alpha")
    pool.finish(task)
    assert [(c.what, c.endpoint) for c in pool.core.history(task)] == [
        ("dispatched", "alpha"),
        ("rerouted", "alpha"),
        ("dispatched", "beta"),
        ("finished", "beta"),
    ]


def test_a_users_exception_is_delivered_at_once(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    task = pool.submit()
    attempt = pool.attempt(task)
    pool.fail(task, Kind.USER)
    assert pool.rejected(task, attempt)
    assert pool.core.tasks == {}
    assert pool.of(events.TaskFailed)[0].kind == "user"


@pytest.mark.parametrize("kind", [Kind.PLACE, Kind.SUBMIT])
def test_a_refusal_is_tried_at_two_places_then_delivered(bench: Any, kind: Kind) -> None:
    pool = bench("alpha", "beta", "gamma").up()
    task = pool.submit()
    first = pool.where(task)
    pool.fail(task, kind)
    assert pool.where(task) not in {None, first}
    attempt = pool.attempt(task)
    pool.fail(task, kind)
    assert pool.rejected(task, attempt)


def test_a_refused_task_waits_for_a_place_still_in_the_queue(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    pool.up("beta", slots=0)
    task = pool.submit()
    pool.fail(task, Kind.PLACE)
    assert pool.where(task) is None, "alpha has refused it, and would again"
    pool.wait(1000)
    assert len(pool.of(actions.Dispatch)) == 1
    pool.up("beta")
    assert pool.where(task) == "beta"


def test_a_refused_task_is_not_kept_when_the_other_place_is_lost(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    pool.up("beta", slots=0)
    task = pool.submit()
    pool.fail(task, Kind.PLACE)
    pool.die("beta")
    attempt = pool.attempt(task)
    pool.fail(task, Kind.PLACE)
    assert pool.rejected(task, attempt)


def test_a_refusal_by_the_only_place_is_delivered(bench: Any) -> None:
    pool = bench("alpha").up()
    task = pool.submit()
    attempt = pool.attempt(task)
    pool.fail(task, Kind.SUBMIT)
    assert pool.rejected(task, attempt)


def test_poison_is_named_after_three_kills(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    task = pool.submit("cruncher")
    for _ in range(3):
        pool.fail(task, Kind.WORKER_LOST, "worker 7 was killed by signal 9")
    (reject,) = pool.of(actions.Reject)
    assert isinstance(reject.verdict, PoisonTaskError)
    text = str(reject.verdict)
    assert "cruncher" in text
    assert "3 workers died" in text
    assert "alpha, beta" in text
    assert "signal 9" in text


def test_lost_managers_end_no_task_before_the_limit_of_attempts(bench: Any) -> None:
    pool = bench("alpha", "beta", max_attempts=20).up()
    task = pool.submit()
    for _ in range(19):
        pool.fail(task, Kind.MANAGER_LOST)
    assert not pool.of(actions.Reject)
    pool.fail(task, Kind.MANAGER_LOST)
    assert "20 attempts" in str(pool.of(actions.Reject)[0].verdict)


def test_a_late_result_is_taken_if_first_and_dropped_if_not(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    early, beaten = pool.submit(), pool.submit()
    old = pool.attempt(early)
    pool.up("beta")
    assert pool.where(beaten) == "beta"
    pool.die("alpha")
    assert pool.where(early) is None, "beta is full"
    assert actions.Resolve(early, old) in pool.send(stimuli.Finished, old)
    other = pool.attempt(beaten)
    pool.up("alpha")
    pool.die("beta")
    pool.wait(1.0)
    pool.up("alpha")
    pool.finish(beaten)
    assert pool.send(stimuli.Finished, other)[0] == actions.Discard(other)
    assert pool.core.late == 1
    assert [t.task for t in pool.of(events.TaskLate)] == [beaten]
    assert len(pool.of(actions.Resolve)) == 2


def test_a_late_result_calls_the_running_rival_off(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    task = pool.submit()
    old = pool.attempt(task)
    pool.up("beta")
    pool.die("alpha")
    rival = pool.attempt(task)
    assert actions.Resolve(task, old) in pool.send(stimuli.Finished, old)
    assert actions.Discard(rival) in pool.send(stimuli.Failed, rival, Failure(Kind.WORKER_LOST, "WorkerLost", ""))
    assert len(pool.of(actions.Resolve)) == 1
    assert not pool.of(actions.Reject)


def test_in_the_dark_tasks_wait_then_fail_naming_every_endpoint(bench: Any) -> None:
    pool = bench("alpha", "beta", unavailable_timeout=600.0, revive_first=1e6, revive_longest=1e6).up()
    task = pool.submit()
    pool.die("alpha", "its interchange was killed by signal 9")
    pool.die("beta", "all its blocks failed")
    pool.wait(599)
    assert not pool.of(actions.Reject)
    late = pool.submit()
    pool.wait(1)
    (reject,) = pool.of(actions.Reject)
    assert reject.task == task
    assert isinstance(reject.verdict, EndpointsUnavailableError)
    for part in ("alpha is down: its interchange was killed by signal 9", "beta is down: all its blocks failed", "600"):
        assert part in str(reject.verdict)
    pool.wait(598)
    assert late in pool.core.tasks, "it has waited for 599 s only"
    pool.wait(1)
    assert late not in pool.core.tasks


def test_darkness_ends_when_one_endpoint_is_up(bench: Any) -> None:
    pool = bench("alpha", "beta", revive_first=100.0).up()
    task = pool.submit()
    pool.die("alpha")
    pool.die("beta")
    pool.wait(500)
    pool.up("beta")
    assert pool.where(task) == "beta"
    pool.wait(500)
    assert not pool.of(actions.Reject)


def test_tasks_may_wait_for_ever_in_a_batch_queue(bench: Any) -> None:
    pool = bench("alpha")
    pool.send(stimuli.Started, "alpha", 0)
    task = pool.submit()
    for _ in range(100):
        pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=True)
        pool.wait(100)
    assert task in pool.core.tasks
    assert pool.state("alpha") is State.WAITING


def test_an_endpoint_with_demand_and_no_prospect_is_revived(bench: Any) -> None:
    pool = bench("alpha", stall_limit=60.0)
    pool.send(stimuli.Started, "alpha", 0)
    pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=False)
    pool.submit()
    pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=False)
    pool.wait(59.9)
    assert pool.state("alpha") is State.WAITING
    pool.wait(0.1)
    assert pool.state("alpha") is State.DOWN
    assert "no worker and no block requested" in pool.core.state("alpha")[1]


def test_silence_confirmed_by_overdue_attempts_is_down_within_five_seconds(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    pool.live(30, "alpha")
    known = pool.submit("short")
    pool.live(0.25)
    pool.finish(known)
    pool.live(1.75, "alpha")
    task = pool.submit("short")
    pool.live(1, "alpha")
    last_beat = pool.now
    pool.up("beta")
    old = pool.attempt(task)
    pool.live(10)
    assert pool.where(task) == "beta"
    disconnected_at = next(
        at for at, action in pool.actions
        if isinstance(action, actions.Publish) and isinstance(action.payload, events.EndpointDown)
    )  # fmt: skip
    assert 3.5 < disconnected_at - last_beat <= 5.0
    reason = pool.of(events.TaskRerouted)[0].reason
    assert "no heartbeat for" in reason
    assert "phi" in reason
    assert pool.state("alpha") is State.DOWN

    pool.send(stimuli.HeartbeatReceived, "alpha", "block/node")
    assert pool.state("alpha") is State.UP, "the end of silence reopens the endpoint"
    pool.finish(task)
    assert actions.Discard(old) in pool.send(stimuli.Finished, old)
    assert pool.core.late == 1


def test_prefetched_attempts_are_overdue_when_the_first_is(bench: Any) -> None:
    pool = bench("alpha", "beta", prefetch_seconds=10.0).up("alpha")
    known = pool.submit("short")
    pool.live(0.5, "alpha")
    pool.finish(known)
    tasks = [pool.submit("short") for _ in range(15)]
    assert {pool.where(task) for task in tasks} == {"alpha"}
    pool.up("beta")
    for task in tasks[:3]:
        pool.live(0.5, "alpha")
        pool.finish(task)
    silent = pool.now
    while pool.where(tasks[-1]) == "alpha":
        pool.send(stimuli.Unanswered, "alpha", 0, silent)
        pool.live(0.25, "alpha")
        assert pool.now - silent <= 4.0, "its first should have come after half a second"
    assert pool.now - silent >= 3.0


def test_an_idle_endpoint_that_falls_silent_is_suspect_only(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    pool.live(10, "alpha", "beta")
    pool.live(10, "beta")
    assert pool.state("alpha") is State.SUSPECT
    task = pool.submit()
    assert pool.where(task) == "beta"
    assert pool.of(events.EndpointSuspect)[0].phi >= 8


def test_a_silent_endpoint_is_a_last_resort(bench: Any) -> None:
    pool = bench("alpha").up()
    pool.live(10, "alpha")
    pool.live(6)
    assert pool.state("alpha") is State.SUSPECT
    task = pool.submit()
    assert pool.where(task) == "alpha"
    assert "last resort" in pool.core.history(task)[0].reason


def test_results_flowing_overrule_silence(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=2).up("alpha")
    pool.live(10, "alpha")
    pool.submit("f")
    for _ in range(30):
        task = pool.submit("f")
        pool.live(1)
        pool.finish(task)
        assert pool.state("alpha") is State.UP


def test_a_result_just_after_the_last_heartbeat_does_not_excuse_silence_for_ever(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    pool.live(20, "alpha")
    done = pool.submit()
    pool.wait(0.3)
    pool.finish(done)
    task = pool.submit()
    pool.up("beta")
    pool.live(4.75)
    assert pool.where(task) == "beta"


def test_a_dead_fabric_raises_no_suspicion(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    pool.live(10, "alpha", "beta")
    task = pool.submit()
    for _ in range(600):
        pool.wait(1)
        for label in ("alpha", "beta"):
            pool.send(stimuli.Observed, label, 0, 1)
            assert pool.state(label) is State.UP
    assert len(pool.of(actions.Dispatch)) == 1
    assert pool.where(task)
    pool.send(stimuli.FabricPolled)
    pool.live(2)
    assert pool.state("alpha") is State.UP, "a stalled reader discards its evidence of silence"


def test_a_fabric_that_dies_while_an_endpoint_is_suspect_ends_the_suspicion(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    pool.live(10, "alpha", "beta")
    pool.live(6, "beta")
    assert pool.state("alpha") is State.SUSPECT
    pool.wait(5.1)
    assert pool.state("alpha") is State.UP


def test_a_goodbye_is_no_silence(bench: Any) -> None:
    pool = bench("alpha").up()
    pool.live(10, "alpha")
    pool.send(stimuli.StreamEnded, "alpha", "block/node")
    pool.live(30)
    assert pool.state("alpha") is State.UP


def test_a_probe_in_a_silent_endpoint_strands_no_task(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=2).up("alpha")
    pool.live(10, "alpha")
    task = pool.submit()
    pool.live(6)
    assert pool.state("alpha") is State.DOWN
    pool.live(10)
    assert any("probe" in transition.reason for transition in pool.core.history(task)), "it is the only place"
    pool.live(20)
    pool.up("beta")
    pool.live(5)
    assert pool.where(task) == "beta"
    pool.finish(task)
    pool.live(60, "alpha")
    assert pool.state("alpha") is State.UP


def test_a_rumour_only_avoids(bench: Any) -> None:
    pool = bench("alpha", "beta", peer_report_time=30.0, slots=2).up()
    there = next(task for task in [pool.submit() for _ in range(4)] if pool.where(task) == "alpha")
    pool.send(stimuli.PeerReport, "alpha", "another pool", "its file system hangs")
    assert pool.state("alpha") is State.SUSPECT
    assert pool.where(there) == "alpha", "what runs there stays"
    assert "another pool says: its file system hangs" in pool.core.state("alpha")[1]
    pool.wait(29)
    assert pool.state("alpha") is State.SUSPECT
    pool.wait(1)
    assert pool.state("alpha") is State.UP


def test_a_result_ends_a_rumour(bench: Any) -> None:
    pool = bench("alpha").up()
    task = pool.submit()
    pool.send(stimuli.PeerReport, "alpha", "a facility", "maintenance")
    pool.wait(1)
    pool.finish(task)
    assert pool.state("alpha") is State.UP


def test_a_rumour_does_not_lift_a_quarantine(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=8).up()
    _quarantine(pool, "alpha")
    pool.send(stimuli.PeerReport, "alpha", "a facility", "maintenance")
    assert pool.state("alpha") is State.QUARANTINED


def test_an_unanswered_control_channel_makes_suspect_then_down_then_revived(bench: Any) -> None:
    pool = bench("alpha", "beta", silence_limit=3.0, stall_limit=60.0).up("alpha")
    task = pool.submit()
    pool.up("beta")
    pool.wait(10)
    asked = pool.now
    pool.send(stimuli.Unanswered, "alpha", 0, asked)
    assert pool.state("alpha") is State.UP
    pool.wait(3)
    assert pool.where(task) == "beta"
    assert pool.state("alpha") is State.DOWN
    assert "control channel has not answered" in pool.of(events.TaskRerouted)[0].reason
    pool.wait(60)
    assert pool.of(actions.Revive)[0].endpoint == "alpha", "it is revived"


def test_a_control_channel_that_answers_again_ends_the_suspicion(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    pool.send(stimuli.Unanswered, "alpha", 0, pool.now)
    pool.wait(4)
    assert pool.state("alpha") is State.SUSPECT
    pool.up("alpha")
    assert pool.state("alpha") is State.UP


def test_a_control_channel_that_never_answered_does_not_keep_tasks_for_ever(bench: Any) -> None:
    pool = bench("alpha", stall_limit=60.0)
    pool.send(stimuli.Started, "alpha", 0)
    pool.submit()
    pool.send(stimuli.Unanswered, "alpha", 0, 0.0)
    pool.wait(60)
    assert pool.state("alpha") is State.DOWN


def test_an_empty_endpoint_keeps_its_attempts_for_a_grace_only(bench: Any) -> None:
    pool = bench("alpha", "beta", empty_grace=1.0).up("alpha")
    task = pool.submit()
    pool.up("beta")
    pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=True)
    pool.wait(0.9)
    assert pool.where(task) == "alpha"
    pool.wait(0.1)
    assert pool.where(task) == "beta"
    assert pool.state("alpha") is State.WAITING, "blocks are requested: it is not dead"
    assert "no worker is connected while 1 attempts" in pool.of(events.TaskRerouted)[0].reason


def test_an_empty_endpoint_without_blocks_is_revived(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    pool.submit()
    pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=False)
    pool.wait(1.0)
    assert pool.state("alpha") is State.DOWN
    pool.wait(1.0)
    assert pool.of(actions.Revive) == [
        actions.Revive("alpha", 1, "no worker is connected while 1 attempts are outstanding")
    ]


def test_revival_backs_off_and_resets_after_a_healthy_time(bench: Any) -> None:
    pool = bench("alpha", revive_first=1.0, revive_longest=6.0, healthy_after=60.0)
    delays = []
    for _ in range(5):
        pool.up()
        pool.die("alpha")
        delays.append(pool.of(events.EndpointReviving)[-1].delay)
        pool.wait(10)
    assert delays == [1.0, 2.0, 4.0, 6.0, 6.0]
    pool.up()
    pool.wait(60)
    pool.up()
    pool.die("alpha")
    assert pool.of(events.EndpointReviving)[-1].delay == 1.0
    assert [r.generation for r in pool.of(actions.Revive)] == [1, 2, 3, 4, 5]


def test_an_endpoint_that_cannot_be_rebuilt_stays_dead() -> None:
    specs = [settings.EndpointSpec(label="alpha", revivable=False), settings.EndpointSpec(label="beta")]
    core = PoolCore(specs, settings.PoolSettings(unavailable_timeout=100.0))
    core.handle(stimuli.Submitted(0.0, 1, "f", frozenset({"alpha"})))
    core.handle(stimuli.Died(1.0, "alpha", 0, "gone"))
    core.handle(stimuli.Drain(2.0, "alpha", "maintenance"))
    core.handle(stimuli.Resume(3.0, "alpha"))
    answer = core.handle(stimuli.Tick(1000.0))
    validate(core)
    assert not [action for action in answer if isinstance(action, actions.Revive)]
    assert "alpha is down: gone" in str(next(a.verdict for a in answer if isinstance(a, actions.Reject)))


def test_a_death_of_an_old_generation_changes_nothing(bench: Any) -> None:
    pool = bench("alpha").up()
    pool.die("alpha")
    pool.wait(2)
    pool.up()
    pool.send(stimuli.Died, "alpha", 0, "late news")
    assert pool.state("alpha") is State.UP


def test_a_declared_loss_of_the_endpoint_is_its_death(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=2).up("alpha")
    one, two = pool.submit(), pool.submit()
    pool.up("beta")
    pool.fail(one, Kind.ENDPOINT_LOST, "the executor is in a bad state")
    assert pool.state("alpha") is State.DOWN
    assert pool.where(one) == pool.where(two) == "beta"
    assert pool.core.tasks[one].attempts == 2, "it was not sent back to where it was lost"


def _quarantine(pool: Any, label: str) -> None:
    """Let five consecutive tasks lose their manager there, while the same function works elsewhere."""
    (other,) = set(pool.labels) - {label}
    good = pool.submit("f", eligible=(other,))
    pool.wait(0.1)
    pool.finish(good)
    for _ in range(5):
        task = pool.submit("f", eligible=(label,))
        pool.wait(1.0)
        pool.fail(task, Kind.MANAGER_LOST)


def _bound(pool: Any) -> list[int]:
    return [task for task in pool.core.tasks if pool.where(task)]


def test_a_black_hole_is_quarantined_probed_and_comes_back(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=8).up()
    _quarantine(pool, "alpha")
    assert pool.state("alpha") is State.QUARANTINED
    for task in [task for task in pool.core.tasks if pool.where(task)]:
        pool.fail(task, Kind.MANAGER_LOST)
    pool.wait(10)
    (probe,) = _bound(pool)
    pool.fail(probe, Kind.MANAGER_LOST)
    pool.wait(19)
    assert not _bound(pool), "the pause has doubled"
    pool.wait(1)
    (probe,) = _bound(pool)
    pool.finish(probe)
    assert pool.state("alpha") is State.UP


def test_a_probe_that_is_taken_away_leaves_room_for_another(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=8, avoid_time=0.0).up()
    _quarantine(pool, "alpha")
    for task in _bound(pool):
        pool.fail(task, Kind.MANAGER_LOST)
    pool.wait(10)
    assert len(_bound(pool)) == 1
    pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=True)
    pool.wait(1)
    assert not _bound(pool)
    pool.send(stimuli.Observed, "alpha", 0, 8, blocks_expected=True)
    (probe,) = _bound(pool)
    pool.finish(probe)
    assert pool.state("alpha") is State.UP


def test_a_bad_function_opens_no_breaker(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=4).up()
    for _ in range(40):
        task = pool.submit("bad")
        for _ in range(3):
            pool.wait(0.6)
            pool.fail(task, Kind.WORKER_LOST)
        assert {pool.state(label) for label in pool.labels} == {State.UP}


def test_half_of_the_pool_stays_in_whatever_happens(bench: Any) -> None:
    pool = bench("alpha", "beta", "gamma", slots=16).up()
    for label in pool.labels:
        good = pool.submit("f", eligible=(label,))
        pool.wait(0.1)
        pool.finish(good)
    for label in ("alpha", "beta"):
        task = pool.submit("g", eligible=(label,))
        pool.wait(0.1)
        pool.finish(task)
        for _ in range(5):
            lost = pool.submit("f", eligible=(label,))
            pool.wait(1.0)
            pool.fail(lost, Kind.MANAGER_LOST)
    assert [pool.state(label) for label in pool.labels].count(State.QUARANTINED) == 1


def test_a_drained_endpoint_gets_nothing_and_what_runs_may_finish(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    task = pool.submit()
    pool.send(stimuli.Drain, "alpha", "maintenance on Tuesday")
    assert pool.state("alpha") is State.DRAINING
    other = pool.submit()
    assert pool.where(other) is None
    pool.finish(task)
    assert pool.state("alpha") is State.DRAINED
    pool.send(stimuli.Resume, "alpha")
    assert pool.where(other) == "alpha"


def test_a_drained_endpoint_that_dies_keeps_no_task_and_waits_for_its_resumption(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    task = pool.submit()
    pool.send(stimuli.Drain, "alpha", "maintenance")
    pool.up("beta")
    pool.send(stimuli.Observed, "alpha", 0, 0, blocks_expected=False)
    pool.wait(1)
    assert pool.where(task) == "beta"
    pool.wait(500)
    assert not pool.of(actions.Revive)
    pool.send(stimuli.Resume, "alpha")
    pool.wait(1)
    assert pool.of(actions.Revive)


def test_with_everything_drained_tasks_wait_for_the_limit(bench: Any) -> None:
    pool = bench("alpha", unavailable_timeout=600.0).up()
    pool.send(stimuli.Drain, "alpha", "maintenance")
    pool.submit()
    pool.wait(600)
    assert "alpha is drained: maintenance" in str(pool.of(actions.Reject)[0].verdict)


def test_urgent_tasks_go_first_and_old_ones_before_new(bench: Any) -> None:
    pool = bench("alpha").up()
    first = pool.submit()
    late, urgent = pool.submit(priority=1.0), pool.submit(priority=-1.0)
    normal = [pool.submit(), pool.submit()]
    order = []
    current = first
    for _ in range(4):
        pool.wait(10)  # long enough that nothing is sent ahead
        pool.finish(current)
        (current,) = _bound(pool)
        order.append(current)
    assert order[0] == urgent
    assert order[-1] == late
    assert order[1:3] == normal


def test_a_lost_task_goes_elsewhere_but_does_not_wait_for_ever(bench: Any) -> None:
    pool = bench("alpha", "beta", avoid_time=30.0).up()
    long, task = pool.submit("long"), pool.submit()
    first, other = pool.where(task), pool.where(long)
    pool.fail(task, Kind.MANAGER_LOST)
    assert pool.where(task) is None, f"{other} is busy, and {first} has just lost it"
    pool.wait(31)
    assert pool.where(task) == first


def test_a_lost_task_stays_if_no_other_place_is_open(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    pool.submit("long")
    task = pool.submit()
    first = pool.where(task)
    pool.up(first, slots=2)
    pool.fail(task, Kind.MANAGER_LOST)
    assert pool.where(task) is None
    pool.die(next(label for label in pool.labels if label != first))
    assert pool.where(task) == first


def test_a_lost_task_finds_the_second_best_idle_place(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=8).up()
    pool.core.scheduler.loads["beta"].relative_speed = 5.0  # alpha is better by far
    task = pool.submit()
    assert pool.where(task) == "alpha"
    pool.fail(task, Kind.MANAGER_LOST)
    assert pool.where(task) == "beta"


def test_demand_is_what_is_bound_and_a_share_of_the_backlog(bench: Any) -> None:
    pool = bench("alpha", "beta", slots=0).up()
    assert pool.core.demand("alpha") == 0
    for _ in range(5):
        pool.submit()
    assert pool.core.demand("alpha") == pool.core.demand("beta") == 3
    pool.send(stimuli.Drain, "beta", "maintenance")
    assert (pool.core.demand("alpha"), pool.core.demand("beta")) == (5, 0)
    pool.die("alpha")
    assert pool.core.demand("alpha") == 0


def test_given_up_attempts_hold_their_slots_for_a_minute_at_most(bench: Any) -> None:
    pool = bench("alpha", "beta").up("alpha")
    pool.live(10, "alpha")
    pool.submit()
    pool.up("beta")
    pool.live(6)
    assert pool.state("alpha") is State.DOWN
    pool.send(stimuli.HeartbeatReceived, "alpha", "block/node")
    load = pool.core.scheduler.loads["alpha"]
    assert load.in_flight == 1, "it may still run there"
    pool.live(60, "alpha")
    assert load.in_flight == 0


def test_deadlines_do_not_multiply(bench: Any) -> None:
    pool = bench("alpha", "beta").up()
    for _ in range(20):
        pool.submit()
    pool.live(10, "alpha", "beta")
    pool.live(60)
    assert len(pool.core._deadlines) < 10


def test_a_stopped_pool_rejects_everything_and_starts_nothing(bench: Any) -> None:
    pool = bench("alpha").up()
    running, waiting = pool.submit(), pool.submit()
    attempt = pool.attempt(running)
    pool.send(stimuli.Stopped)
    late = pool.submit()
    assert {r.task for r in pool.of(actions.Reject)} == {running, waiting, late}
    assert all(isinstance(r.verdict, PoolShutdownError) for r in pool.of(actions.Reject))
    assert actions.Discard(attempt) in pool.send(stimuli.Finished, attempt)
    pool.die("alpha")
    pool.wait(1000)
    assert not pool.of(actions.Revive)


def test_fenced_generations_leave_little_behind(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diaspora_parsl.core.machine._REMEMBERED", 2)
    pool = bench("alpha", "beta").up()
    for _ in range(20):
        task = pool.submit()
        pool.die(pool.where(task))
        if pool.where(task) is None:
            pool.wait(400)
            pool.up()
        pool.finish(task)
        pool.wait(400)
        pool.up()
    assert len(pool.core.attempts) <= 3


def test_slots_are_capped_and_unknown_work_is_not_sent_ahead(bench: Any) -> None:
    pool = bench("alpha", slots=3).up()
    tasks = [pool.submit("unknown") for _ in range(10)]
    assert sum(pool.where(task) is not None for task in tasks) == 3
