"""What others publish about an endpoint is evidence, and the endpoint's own work outweighs it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl import open_fabric
from diaspora_parsl.fabric.address import find_fabric
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run


def say(run: Run, payload: ev.EndpointPayload) -> None:
    """Publish as somebody else does."""
    fabric = open_fabric(find_fabric(run.run_dir))
    event = ev.Event(
        id="1",
        source="/facility/status",
        type=payload.event_type(),
        subject=payload.endpoint,
        time=datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        partitionkey=payload.endpoint,
        sequence=1,
        data=ev.encode_payload(payload),
    )
    try:
        fabric.publish([event])
    finally:
        fabric.close()


def test_a_rumour_makes_suspect_and_a_result_clears_it(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha", workers=2, tags=frozenset({"here"})) as alpha,
        LocalSite("beta", workers=2) as beta,
        pool_of(alpha, beta) as run,
    ):
        run.warm_up("alpha", "beta")
        ups = len(run.events(ev.EndpointUp, endpoint="alpha"))
        (long,) = run.tasks(1, 4.0, tags=["here"])
        run.until(lambda: run.bound("alpha") == 1)
        say(run, ev.EndpointDown(endpoint="alpha", site="alpha", reason="maintenance at noon"))
        say(run, ev.EndpointDown(endpoint="alpha", site="another site", reason="a namesake"))
        suspect = run.wait_for(ev.EndpointSuspect, endpoint="alpha")
        assert suspect.reason == "/facility/status says: maintenance at noon"

        before = {execution.task for execution in run.executions()}
        run.results(run.tasks(6, 0.1))
        assert not long.done()
        assert {e.site for e in run.executions() if e.task not in before} == {"beta"}
        assert long.result(20)  # what runs there may finish
        run.until(lambda: len(run.events(ev.EndpointUp, endpoint="alpha")) > ups, what="its result clears it")
        run.warm_up("alpha")
        assert not run.rerouted()
        run.assert_each_ran_once()


def test_without_another_place_a_rumour_stops_nobody(pool_of: PoolOf) -> None:
    with LocalSite("alpha") as alpha, pool_of(alpha) as run:
        run.warm_up("alpha")
        say(run, ev.EndpointSuspect(endpoint="alpha", site="alpha", reason="slow file system"))
        run.wait_for(ev.EndpointSuspect, endpoint="alpha", reason="/facility/status says: slow file system")
        run.results(run.tasks(3), 20)
        assert any("last resort" in event.reason for event in run.events(ev.TaskDispatched))
        run.assert_each_ran_once()
