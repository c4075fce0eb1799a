"""Faults that meet user code at a real place: they come, hit what they should, and go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import parsl
import pytest
from parsl.config import Config

from diaspora_parsl.testing.faults import BlackHole, Fault, FaultScript, Flaky, OutOfMemory, Slow, WrongEnvironment
from diaspora_parsl.testing.faults.injector import Injector
from diaspora_parsl.testing.faults.worker_faults import BlackHoleError, FlakyError, subject_to_faults
from diaspora_parsl.testing.local_sites import LocalSite

App = Callable[[], Future[str]]


def work() -> str:
    import os  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    time.sleep(0.1)
    return os.environ["DIASPORA_PARSL_NODE"]


def other() -> str:
    return "other"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalSite]:
    """A site of two nodes under plain Parsl: no pool is there to repair anything."""
    monkeypatch.chdir(tmp_path)
    with LocalSite("alpha", nodes=2) as alpha:
        executor: Any = alpha.endpoint.executor
        with parsl.load(Config(executors=[executor], run_dir=str(tmp_path), initialize_logging=False)):
            yield alpha


def outcomes(app: Callable[[], Future[str]], count: int = 20) -> list[str | type[BaseException]]:
    futures = [app() for _ in range(count)]
    errors = [future.exception(60.0) for future in futures]
    return [future.result() if error is None else type(error) for future, error in zip(futures, errors, strict=True)]


def test_faults_of_user_code_hit_what_they_should(site: LocalSite, travels: Callable[..., Any]) -> None:
    app, innocent = (parsl.python_app(subject_to_faults(travels(function))) for function in (work, other))
    end = time.monotonic() + 40.0
    while set(outcomes(app)) != {"alpha-0", "alpha-1"}:
        assert time.monotonic() < end, "the nodes do not both come"

    def under(fault: Fault, which: App = app) -> list[str | type[BaseException]]:
        with Injector(FaultScript((fault,)), [site]) as injector:
            while not injector.done:
                time.sleep(0.01)
            return outcomes(which)

    hole = under(BlackHole(at=0.0, endpoint="alpha", until=60.0, node=1))
    assert set(hole) == {BlackHoleError, "alpha-0"}
    assert hole.count(BlackHoleError) > 10, "it is always free for the next"
    flaky = under(Flaky(at=0.0, endpoint="alpha", until=60.0, rate=0.5, seed=1))
    assert 3 <= flaky.count(FlakyError) <= 17
    assert set(under(WrongEnvironment(at=0.0, endpoint="alpha", until=60.0, function="work"))) == {ModuleNotFoundError}
    assert set(under(WrongEnvironment(at=0.0, endpoint="alpha", until=60.0, function="work"), innocent)) == {"other"}
    assert set(under(OutOfMemory(at=0.0, endpoint="alpha", until=60.0))) == {MemoryError}
    began = time.monotonic()
    assert MemoryError not in under(Slow(at=0.0, endpoint="alpha", until=60.0, factor=5.0))
    assert time.monotonic() - began > 20 * 0.1 * 5.0 / 2 - 0.1, "twenty tasks at two nodes"
    assert set(outcomes(app)) <= {"alpha-0", "alpha-1"}, "nothing is left of the faults"
