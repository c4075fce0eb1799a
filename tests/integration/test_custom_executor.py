"""An executor of the user's own is revived if there is a factory for it; if not, a warning says that it cannot be."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as Threads
from typing import TYPE_CHECKING, Any

import pytest
from parsl.executors import ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.executors.errors import BadStateException

from diaspora_parsl import Endpoint, ResilientPoolExecutor
from diaspora_parsl import events as ev

if TYPE_CHECKING:
    from tests.integration.conftest import PoolOf


class Mine(ParslExecutor):
    """Runs tasks on a thread, until it is broken."""

    def __init__(self, label: str) -> None:
        super().__init__()
        self.label = label
        self.broken = False
        self._threads = Threads(1, thread_name_prefix=label)

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        del resource_specification
        if self.broken:
            raise BadStateException(self, RuntimeError("the plug was pulled"))
        return self._threads.submit(func, *args, **kwargs)

    def shutdown(self) -> None:
        self._threads.shutdown()
        super().shutdown()


def where() -> str:
    import threading  # noqa: PLC0415 - it travels alone
    import time  # noqa: PLC0415

    time.sleep(0.02)
    return threading.current_thread().name.split("_")[0]


def places(app: Callable[[], Future[str]]) -> set[str]:
    """Where several tasks at once ran."""
    return {future.result(10) for future in [app() for _ in range(8)]}


def test_with_a_factory_it_is_revived(pool_of: PoolOf) -> None:
    made: list[Mine] = []

    def make() -> Mine:
        made.append(Mine("mine"))
        return made[-1]

    with pool_of(
        Endpoint(make, label="mine", max_concurrency=1), ThreadPoolExecutor(label="other", max_threads=1)
    ) as run:
        app = run.app(where)
        run.until(lambda: "mine" in places(app))
        made[0].broken = True
        run.until(lambda: places(app) and len(made) == 2, what="a new generation is made")
        up = run.wait_for(ev.EndpointUp, endpoint="mine", generation=1)
        assert up.slots == 1
        run.until(lambda: "mine" in places(app), what="the new generation works")
        assert "the plug was pulled" in run.events(ev.EndpointDown, endpoint="mine")[0].reason
        assert not run.events(ev.TaskFailed)


def test_without_a_factory_a_warning_says_so(pool_of: PoolOf, caplog: pytest.LogCaptureFixture) -> None:
    mine = Mine("mine")
    with pool_of(mine, ThreadPoolExecutor(label="other", max_threads=1)) as run:
        published = [record.getMessage() for record in caplog.records if "mine" in record.getMessage()]
        assert any("cannot be rebuilt if it dies" in text and "Give a factory: Endpoint(" in text for text in published)
        assert any("does not say how many attempts it can run at a time" in text for text in published)
        app = run.app(where)
        run.until(lambda: "mine" in places(app))
        mine.broken = True
        places(app)
        run.wait_for(ev.EndpointDown, endpoint="mine")
        assert places(app) == {"ThreadPoolExecutor-other"}  # the rest carries the load
        assert not run.events(ev.TaskFailed)


def test_parsls_own_executors_need_no_factory(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    ResilientPoolExecutor(label="pool", endpoints=[ThreadPoolExecutor(label="a"), ThreadPoolExecutor(label="b")])
    assert not caplog.records
