"""One attempt hangs in its place: a second one elsewhere brings the result, on real HTEX and on threads."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint
from diaspora_parsl import events as ev
from diaspora_parsl.core.settings import PoolSettings
from diaspora_parsl.testing.local_sites import LocalSite

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf, Run

#: Seconds that the slow attempt takes, and within which the other must have brought the result.
SLOW, SOON = 8.0, 6.0
LEARNT = PoolSettings(hedge_min_results=4)


def first_is_slow(flag: str, slow: float) -> str:
    """Whoever comes first is in a bad place; without a flag nobody is."""
    import os  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    time.sleep(0.05)
    if not flag:
        return "brisk"
    try:
        os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return "second"
    time.sleep(slow)
    return "first"


def see_a_straggler(run: Run, flag: Path, labels: set[str], **options: Any) -> None:
    app = run.app(first_is_slow, **options)

    def is_known() -> bool:
        for future in [app("", 0.0) for _ in range(8)]:
            future.result(30)
        mine = {event.task for event in run.events(ev.TaskSubmitted) if "first_is_slow" in event.function}
        done = [event.endpoint for event in run.events(ev.TaskFinished) if event.task in mine]
        return all(done.count(label) >= 2 * LEARNT.hedge_min_results for label in labels)

    run.until(is_known, 60.0, "some place never worked")
    slow = app(str(flag), SLOW)
    assert slow.result(SOON) == "second"
    published = run.wait_for(ev.TaskHedged, task=run.events(ev.TaskSubmitted)[-1].task)
    assert "the 0.9 quantile" in published.reason
    places = {event.endpoint for event in run.events(ev.TaskDispatched, task=published.task)}
    assert places == labels
    assert run.events(ev.TaskFinished, task=published.task)[0].endpoint == published.endpoint
    run.wait_for(ev.TaskLate, limit=2 * SLOW, task=published.task)


@pytest.mark.serial
def test_threads(pool_of: PoolOf, tmp_path: Path) -> None:
    threads = [Endpoint(ThreadPoolExecutor(label=label, max_threads=2)) for label in ("alpha", "beta")]
    with pool_of(*threads, settings=LEARNT) as run:
        see_a_straggler(run, tmp_path / "flag", {"alpha", "beta"})


@pytest.mark.serial
def test_htex(pool_of: PoolOf, two_sites: tuple[LocalSite, LocalSite], tmp_path: Path) -> None:
    with pool_of(*two_sites, settings=LEARNT) as run:
        run.warm_up("alpha", "beta")  # a worker's first task takes longer: that is not what is usual
        see_a_straggler(run, tmp_path / "flag", {site.label for site in two_sites})


@pytest.mark.serial
def test_switched_off(pool_of: PoolOf, tmp_path: Path) -> None:
    threads = [Endpoint(ThreadPoolExecutor(label=label, max_threads=2)) for label in ("alpha", "beta")]
    with pool_of(*threads, settings=LEARNT, hedging=False) as run:
        app = run.app(first_is_slow)
        for future in [app("", 0.0) for _ in range(40)]:
            future.result(30)
        assert app(str(tmp_path / "flag"), 2.0).result(30) == "first"
        assert not run.events(ev.TaskHedged)
