"""Somebody on the fabric lies, shouts and publishes nonsense: the pool's tasks do not notice."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from msgspec import Raw, structs

from diaspora_parsl import events as ev
from diaspora_parsl import open_fabric
from diaspora_parsl.events.signing import signed
from diaspora_parsl.fabric.address import find_fabric
from diaspora_parsl.fabric.event_builder import EventBuilder
from diaspora_parsl.testing.local_sites import LocalSite
from docs.generate.event_examples import EXAMPLES, example_event

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run


def nonsense(envelopes: EventBuilder, number: int) -> list[ev.Event]:
    """Requests without the key, forged signs, wrong types, impossible times, large events."""
    now = time.time()
    far = "9999-12-31T23:59:59Z"
    requests = [
        envelopes.wrap(payload, "alpha", "alpha", now)
        for payload in (
            ev.EndpointDrainRequested(endpoint="alpha"),
            ev.EndpointQuarantineRequested(endpoint="alpha", until=far),
            ev.MaintenanceAnnounced(place="alpha", start="2020-01-01T00:00:00Z", end=far),
        )
    ]
    beat = envelopes.wrap(ev.NodeHeartbeat(endpoint="alpha", block=str(number), node="forged"), "x", "alpha", now)
    return [
        *requests,
        *(signed(request, "a guess") for request in requests),
        beat,
        structs.replace(beat, id=f"past-{number}", time="0001-01-01T00:00:00Z"),
        structs.replace(beat, id=f"type-{number}", data=Raw(b'{"endpoint":{}}')),
        structs.replace(beat, id=f"deep-{number}", data=Raw(b"[" * 10_000 + b"]" * 10_000)),
        structs.replace(beat, id=f"large-{number}", data=Raw(b'"%b"' % (b"x" * 300_000))),
        structs.replace(beat, id="i" * 100_000),
        structs.replace(beat, id=f"unknown-{number}", type="org.diaspora.parsl.task.teleported.v9"),
        *(structs.replace(example_event(payload), id=f"{number}-{at}") for at, payload in enumerate(EXAMPLES)),
        *(
            envelopes.wrap(ev.NodeHeartbeat(endpoint="alpha", block=f"{number}.{at}"), "x", "alpha", now)
            for at in range(500)
        ),
    ]


def publish_until(ended: threading.Event, run: Run) -> None:
    """Publish nonsense as fast as the fabric takes it."""
    fabric = open_fabric(find_fabric(run.run_dir))
    envelopes, number = EventBuilder("/hostile/publisher"), 0
    try:
        while not ended.is_set():
            number += 1
            fabric.publish(nonsense(envelopes, number))
            ended.wait(0.01)
    finally:
        fabric.close()


def test_a_hostile_publisher_costs_no_task(pool_of: PoolOf) -> None:
    with LocalSite("alpha", workers=2) as alpha, pool_of(alpha) as run:
        run.warm_up("alpha")
        ended = threading.Event()
        thread = threading.Thread(target=publish_until, args=(ended, run))
        thread.start()
        try:
            run.results(run.tasks(40, 0.1))
        finally:
            ended.set()
            thread.join()
        own = [published.payload for published in run.published() if published.source.endswith(str(run.pool.run_id))]
        assert not [p for p in own if isinstance(p, ev.EndpointDraining | ev.EndpointDrained | ev.EndpointDown)]
        assert not [p for p in own if isinstance(p, ev.TaskRerouted | ev.TaskFailed | ev.RequestAnswered)]
        run.results(run.tasks(4))
