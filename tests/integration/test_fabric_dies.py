"""A fabric that is killed in mid-run, or dead from the start, costs no task and nobody's reputation."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sqlite3
import time
from typing import TYPE_CHECKING

import psutil
import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import PoolOf


#: What says something against an endpoint.
BAD = ev.EndpointSuspect | ev.EndpointDown | ev.EndpointReviving | ev.TaskRerouted


def kill_server() -> None:
    """The embedded server, and its supervisor before it, so that it stays dead."""
    below = psutil.Process().children(recursive=True)
    supervisors = [p for p in below if any(word.endswith("embedded_supervisor.py") for word in p.cmdline())]
    assert len(supervisors) == 1
    victims = [supervisors[0], *supervisors[0].children()]
    assert len(victims) == 2
    for victim in victims:
        victim.kill()
    assert not psutil.wait_procs(victims, timeout=5)[1]


def kept(outbox: Path) -> list[ev.Payload | None]:
    """What waits in an outbox file."""
    with contextlib.closing(sqlite3.connect(f"file:{outbox}?mode=ro", uri=True)) as store:
        return [ev.decode(body).payload() for (body,) in store.execute("SELECT body FROM events ORDER BY n")]


@pytest.mark.serial
def test_the_server_is_killed_and_never_comes_back(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha", workers=2, node_agent=True) as alpha,
        LocalSite("beta", workers=2, node_agent=True) as beta,
        pool_of(alpha, beta, hedging=False) as run,  # without a fabric, this test would not hear of a hedge
    ):
        run.until(lambda: run.events(ev.NodeHeartbeat, endpoint="alpha"))
        run.until(lambda: run.events(ev.NodeHeartbeat, endpoint="beta"))
        run.warm_up("alpha", "beta")
        futures = run.tasks_that_queue("alpha")
        kill_server()
        run.results(futures)
        # Longer than silence takes to be noticed, than it takes to be believed, and than the fabric takes to be stale.
        end = time.time() + 7.0
        while time.time() < end:
            run.results(run.tasks(4, 0.1))
        run.warm_up("alpha", "beta")
        run.assert_each_ran_once()
    published = kept(run.run_dir / "pool-outbox.sqlite")
    assert any(isinstance(payload, ev.TaskFinished) for payload in published)
    assert not any(isinstance(payload, BAD) for payload in published)


def test_a_fabric_that_is_dead_from_the_start_costs_one_warning(
    pool_of: PoolOf, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as taken:  # bound, but not listening: nobody can answer there, and nobody else can take it
        taken.bind(("127.0.0.1", 0))
        url = f"redis://:s3cret@127.0.0.1:{taken.getsockname()[1]}/0"
        caplog.set_level(logging.WARNING, logger="diaspora_parsl")
        with (
            LocalSite("alpha") as alpha,
            LocalSite("beta", workers=2) as beta,
            pool_of(alpha, beta, fabric=url, hedging=False) as run,  # this test would not hear of a hedge
        ):
            run.warm_up("alpha", "beta")
            run.results(run.tasks(20, 0.1))
            run.assert_each_ran_once()
    outbox = run.run_dir / "pool-outbox.sqlite"
    payloads = kept(outbox)
    assert sum(isinstance(payload, ev.TaskFinished) for payload in payloads) == len(run.executions())
    assert not any(isinstance(payload, BAD) for payload in payloads)
    published = [record.getMessage() for record in caplog.records if "fabric" in record.getMessage()]
    assert len(published) == 1
    assert "events are stored in" in published[0]
    assert os.fspath(outbox) in published[0]
    assert "s3cret" not in caplog.text
