"""A function goes first where its imports are installed, without an attempt elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from diaspora_parsl import events as ev
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import PoolOf


def here(number: int) -> int:
    """Needs a package that one site has."""
    import time  # noqa: PLC0415 - it travels alone

    import onlyhere  # type: ignore[import-not-found]  # noqa: PLC0415

    time.sleep(0.05)
    return int(onlyhere.double(number))


def test_no_attempt_goes_where_the_package_is_not(pool_of: PoolOf, tmp_path: Path) -> None:
    packages = tmp_path / "packages"
    (packages / "onlyhere-1.0.dist-info").mkdir(parents=True)
    (packages / "onlyhere-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onlyhere\nVersion: 1.0\n"
    )
    (packages / "onlyhere.py").write_text("def double(number):\n    return 2 * number\n")
    with (
        LocalSite("alpha", workers=2, environment={"PYTHONPATH": str(packages)}) as alpha,
        LocalSite("beta", workers=2) as beta,
        pool_of(alpha, beta) as run,
    ):
        run.warm_up("alpha", "beta")
        app = run.app(here)
        futures = [app(number) for number in range(40)]
        assert [future.result(60) for future in futures] == [2 * number for number in range(40)]
        mine = {event.task for event in run.events(ev.TaskSubmitted) if event.function.endswith("here")}
        assert len(mine) == 40
        assert {event.endpoint for event in run.events(ev.TaskDispatched) if event.task in mine} == {"alpha"}
        assert not run.events(ev.TaskRerouted)
        run.results(run.tasks(8, 0.1))  # what needs nothing goes anywhere
        run.warm_up("beta")
