"""A pool of emulated Globus Compute endpoints, one of which suffers: every task is done, each result comes once."""

from __future__ import annotations

import collections
import threading
from typing import TYPE_CHECKING, Any

import pytest
from globus_compute_sdk.sdk.executor import _ResultWatcher

from diaspora_parsl import GlobusEndpoint
from diaspora_parsl import events as ev
from diaspora_parsl.executors.globus.rate_limit import RateLimit
from diaspora_parsl.testing import faults as f
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf

A = "alpha"
SCRIPTS: dict[str, tuple[f.Fault, ...]] = {
    "offline": (f.Kill(at=0.0, endpoint=A, until=60.0),),
    "offline-and-back": (f.Kill(at=0.8, endpoint=A, until=4.0),),
    "offline-and-says-online": (
        f.WrongStatus(at=0.0, endpoint=A, until=60.0),
        f.Kill(at=0.0, endpoint=A, until=60.0),
    ),
    "online-and-says-offline": (f.WrongStatus(at=0.5, endpoint=A, until=5.0, status="offline"),),
    "online-and-does-nothing": (f.Freeze(at=0.0, endpoint=A, until=60.0),),
    "status-hangs": (f.Mute(at=0.5, endpoint=A, until=5.0),),
    "slow": (f.Slow(at=0.5, endpoint=A, until=60.0, factor=10.0),),
    "worker-killed": (f.LoseWorker(at=0.8, endpoint=A), f.LoseWorker(at=1.5, endpoint=A)),
    "node-killed": (f.LoseNode(at=0.8, endpoint=A),),
    "submits-fail": (f.Refuse(at=0.0, endpoint=A, until=60.0, status=503),),
    "submits-are-forbidden": (f.Refuse(at=0.0, endpoint=A, until=60.0, status=403),),
    "submits-are-too-many": (f.Refuse(at=0.0, endpoint=A, until=3.0, status=429),),
    "submits-hang": (f.Refuse(at=0.0, endpoint=A, until=60.0, delay=60.0),),
    "results-lost-but-kept": (f.LoseResults(at=0.3, endpoint=A, until=60.0, kept=True),),
    "results-lost": (f.LoseResults(at=0.3, endpoint=A, until=60.0),),
    "results-doubled": (f.RepeatResults(at=0.3, endpoint=A, until=60.0),),
    "connection-lost": (f.LoseConnection(at=1.0),),
    "broker-down": (f.LoseBroker(at=0.8, until=6.0),),
    "results-expired": (f.LoseBroker(at=0.8, until=4.0), f.ForgetResults(at=3.5)),
}

#: Where what was at the endpoint can only be had elsewhere.
MUST_LEAVE = {"offline", "offline-and-says-online", "online-and-does-nothing", "submits-hang"}


@pytest.mark.parametrize("name", list(SCRIPTS))
def test_every_task_is_done_and_told_once(name: str, pool_of: PoolOf) -> None:
    published: collections.Counter[int] = collections.Counter()
    with LocalGlobusCompute() as service:
        places = [
            service.endpoint(label, workers=2, environment={"DIASPORA_PARSL_SITE": label}) for label in (A, "beta")
        ]
        with pool_of(*[_member(service, place) for place in places]) as run:
            run.warm_up(A, "beta")
            script = f.FaultScript(SCRIPTS[name])
            with Injector(script, places) as injector:
                run.until(lambda: len(injector.done) >= sum(fault.at == 0.0 for fault in script))
                futures = run.tasks(24, 0.2)
                for number, future in enumerate(futures):
                    future.add_done_callback(lambda _, number=number: published.update([number]))  # type: ignore[misc]
                results = run.results(futures, limit=120.0)
            first = min(int(result) for result in results)
            assert results == list(range(first, first + 24))
            assert published == dict.fromkeys(range(24), 1)
            if name in MUST_LEAVE:
                left = [*run.events(ev.TaskRerouted), *run.events(ev.TaskHedged)]
                assert left, "nobody was taken elsewhere"
        # The SDK sleeps for up to ten seconds before it connects or submits again, and cannot be woken.
        run.until(lambda: not _threads_of_the_sdk(), 30.0, "the SDK's threads do not end")


def _threads_of_the_sdk() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if isinstance(t, _ResultWatcher) or t.name == "TaskSubmitter"]


def _member(service: LocalGlobusCompute, place: EmulatedEndpoint) -> GlobusEndpoint:
    options: dict[str, Any] = {"status_period": 0.5, "patience": 3.0, "rate_limit": RateLimit(most=1000)}
    return GlobusEndpoint(
        endpoint_id=place.id, label=place.label, client_factory=service.client, max_concurrency=2, **options
    )
