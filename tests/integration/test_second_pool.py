"""Pools on one fabric: what one saw die, another does not begin with; what is asked, both follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from diaspora_parsl import events as ev
from diaspora_parsl import open_fabric
from diaspora_parsl.testing.local_sites import LocalSite
from tests.integration.test_cli_control import control

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from tests.integration.conftest import PoolOf, Run

P = TypeVar("P", bound=ev.Payload)


def told_by(run: Run, run_id: str, kind: type[P]) -> list[P]:
    """The events of a kind that the pool of one run told, on a fabric of several."""
    return [t.payload for t in run.published() if t.source.endswith(run_id) and isinstance(t.payload, kind)]


def test_a_pool_does_not_begin_with_what_another_saw_die(
    pool_of: PoolOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIASPORA_PARSL_KEY", "both runs")  # what is asked of one counts for the other only with it
    shared = open_fabric("embedded", tmp_path / "shared")
    try:
        with (
            LocalSite("alpha", workers=2) as alpha,
            LocalSite("beta", workers=2) as beta,
            pool_of(alpha, beta, fabric=shared.url) as first,
        ):
            first.warm_up("alpha", "beta")
            code, said = control(first, "maintenance", "beta", "--from", "+1h", "--to", "+2h")
            assert code == 0, said
            alpha.kill()
            first.wait_for(ev.EndpointDown, endpoint="alpha")
        published = len(first.executions())

        with (
            LocalSite("alpha", workers=2, tags=frozenset({"here"})) as alpha,
            LocalSite("beta", workers=2) as beta,
            pool_of(alpha, beta, fabric=shared.url) as second,
        ):
            run_id = str(second.pool.run_id)
            second.until(lambda: "beta" in {up.endpoint for up in told_by(second, run_id, ev.EndpointUp)}, 60.0)
            second.until(lambda: told_by(second, run_id, ev.EndpointSuspect), 60.0, "alpha is connected, and suspect")
            second.results(second.tasks(8, 0.1))
            assert {execution.site for execution in second.executions()[published:]} == {"beta"}
            (suspect,) = told_by(second, run_id, ev.EndpointSuspect)
            assert suspect.endpoint == "alpha"
            assert "before this pool started, and not seen up since: " in suspect.reason
            second.results(second.tasks(1, 0.1, tags=["here"]))  # only there: as a last resort, and that clears it
            second.warm_up("alpha")
            # The window that was announced to the first holds for the second, too.
            before = len(second.executions())
            second.results(second.tasks(4, 0.1, walltime=7000))
            assert {execution.site for execution in second.executions()[before:]} == {"alpha"}
    finally:
        shared.close()
