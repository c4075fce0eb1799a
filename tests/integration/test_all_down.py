"""Every endpoint is down: tasks wait, and either the places come back, or an error names what was seen of each."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from diaspora_parsl import events as ev
from diaspora_parsl.errors import EndpointsUnavailableError
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


@pytest.mark.serial
def test_the_limit_passes(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha") as alpha,
        LocalSite("beta") as beta,
        pool_of(alpha, beta, unavailable_timeout=3) as run,
    ):
        run.warm_up("alpha", "beta")
        running = run.tasks(6, 3.0)
        run.until(lambda: run.bound("alpha") and run.bound("beta"))
        alpha.kill()
        beta.kill()
        killed = time.monotonic()
        late = run.tasks(1)
        for future in [*running, *late]:
            error = future.exception(30)
            assert type(error) is EndpointsUnavailableError
            seen = dict(part.split(" is ", 1) for part in str(error).partition(" s. ")[2].split("; "))
            assert set(seen) == {"alpha", "beta"}
            for what in seen.values():
                assert what.startswith(("down: ", "starting: ")), "their state"
                assert "interchange" in what or "could not be started" in what, "and why"
        assert time.monotonic() - killed >= 3.0
        failed = run.wait_for(ev.TaskFailed)
        assert (failed.kind, failed.error) == ("endpoint-lost", "EndpointsUnavailableError")


@pytest.mark.serial
def test_they_come_back_in_time(pool_of: PoolOf) -> None:
    with (
        LocalSite("alpha") as alpha,
        LocalSite("beta") as beta,
        pool_of(alpha, beta, unavailable_timeout=60) as run,
    ):
        run.warm_up("alpha", "beta")
        futures = run.tasks(8, 1.5)
        run.until(lambda: run.bound("alpha") and run.bound("beta"))
        alpha.kill()
        beta.kill()
        run.wait_for(ev.EndpointReviving, endpoint="alpha")
        run.wait_for(ev.EndpointReviving, endpoint="beta")
        assert not all(future.done() for future in futures)
        alpha.restore()
        beta.restore()
        assert len(run.results(futures)) == 8
        run.assert_each_ran_once(but=run.rerouted())
