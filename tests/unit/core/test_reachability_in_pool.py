"""The core on a virtual clock: an endpoint behind a bridge whose link is cut, or that dies."""

from __future__ import annotations

from typing import Any

from diaspora_parsl import events
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.health.assessor import State


def live(pool: Any, seconds: int, *, far: bool, line: bool) -> None:
    """Send alpha's heartbeats directly, and beta's over a bridge together with its reports."""
    for _ in range(seconds):
        pool.live(1, "alpha")
        if line and far:
            pool.send(stimuli.HeartbeatReceived, "beta", "block/node", via_site="uc")
        if line:
            pool.send(stimuli.BridgePolled, "uc")


def test_a_task_stays_behind_a_cut_link_and_its_result_counts(bench: Any) -> None:
    pool = bench("alpha", "beta").up("beta")
    live(pool, 10, far=True, line=True)
    task = pool.submit()
    assert pool.where(task) == "beta"
    pool.up("alpha")
    live(pool, 120, far=True, line=False)
    assert pool.state("beta") is State.UP
    assert pool.where(task) == "beta"
    assert pool.of(events.TaskRerouted) == pool.of(events.EndpointSuspect) == []
    pool.finish(task)
    assert len(pool.of(actions.Resolve)) == 1


def test_a_task_of_a_dead_endpoint_behind_an_open_link_goes_elsewhere(bench: Any) -> None:
    pool = bench("alpha", "beta").up("beta")
    live(pool, 10, far=True, line=True)
    known = pool.submit()
    live(pool, 1, far=True, line=True)
    pool.finish(known)
    task = pool.submit()
    assert pool.where(task) == "beta"
    pool.up("alpha")
    live(pool, 10, far=False, line=True)
    assert pool.where(task) == "alpha"
    assert "no heartbeat for" in pool.of(events.TaskRerouted)[0].reason
