"""What every kind of endpoint does in a pool: run tasks, give results and errors as they are, be left, be ended."""

from __future__ import annotations

import builtins
import contextlib
import threading
import time
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import ThreadPoolExecutor as Threads
from pathlib import Path
from typing import Any

import pytest
from parsl.executors import HighThroughputExecutor, ThreadPoolExecutor
from parsl.executors.base import ParslExecutor
from parsl.launchers import SimpleLauncher
from parsl.providers import LocalProvider

from diaspora_parsl import Endpoint, GlobusEndpoint, ResilientPoolExecutor
from diaspora_parsl.errors import PoolShutdownError
from diaspora_parsl.testing.globus import LocalGlobusCompute

PATIENCE = 120.0


class Mine(ParslExecutor):
    """An executor of a user's own, on `concurrent.futures`."""

    def __init__(self) -> None:
        super().__init__()
        self.label = "tested"
        self._threads = Threads(2)

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        del resource_specification
        return self._threads.submit(func, *args, **kwargs)

    def shutdown(self) -> None:
        self._threads.shutdown()
        super().shutdown()


def htex() -> Endpoint:
    provider = LocalProvider(init_blocks=1, max_blocks=1, launcher=SimpleLauncher())
    return Endpoint(
        HighThroughputExecutor(
            label="tested", address="127.0.0.1", max_workers_per_node=2, cores_per_worker=1e-6, provider=provider,
            encrypted=False,
        )
    )  # fmt: skip


KINDS: dict[str, Callable[[], Endpoint]] = {
    "threads": lambda: Endpoint(ThreadPoolExecutor(label="tested", max_threads=2)),
    "htex": htex,
    "custom": lambda: Endpoint(lambda: Mine(), label="tested", max_concurrency=2),  # noqa: PLW0108 - a class is refused
}


@pytest.fixture(params=[*KINDS, "globus"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[Endpoint]:
    if request.param in KINDS:
        yield KINDS[request.param]()
        return
    with LocalGlobusCompute() as service:
        place = service.endpoint("tested", workers=2)
        yield GlobusEndpoint(
            endpoint_id=place.id,
            label="tested",
            client_factory=service.client,
            rate_limit=place.id,
            status_period=0.5,
        )


@contextlib.contextmanager
def running(folder: Path, *endpoints: Endpoint | ParslExecutor) -> Iterator[ResilientPoolExecutor]:
    """A pool without a DataFlowKernel: what the endpoints themselves do, nothing around it."""
    pool = ResilientPoolExecutor(label="pool", endpoints=endpoints, fabric="memory://contract")
    pool.run_dir = str(folder)
    pool.run_id = "contract"
    pool.start()
    try:
        yield pool
    finally:
        began = time.monotonic()
        pool.shutdown()
        assert time.monotonic() - began < 10.0


def travelling(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its module, which workers do not have."""
    copy = types.FunctionType(
        function.__code__, {"__builtins__": builtins, "__name__": "__main__"}, function.__name__, function.__defaults__
    )
    copy.__module__ = "__main__"
    return copy


def add(first: int, second: int = 1) -> int:
    return first + second


def fail(text: str) -> None:
    raise LookupError(text)


def rest(seconds: float) -> None:
    import time  # noqa: PLC0415 - it travels alone

    time.sleep(seconds)


def test_results_come_back(endpoint: Endpoint, tmp_path: Path) -> None:
    with running(tmp_path, endpoint) as pool:
        futures = [pool.submit(travelling(add), {}, number, second=10) for number in range(20)]
        assert [future.result(PATIENCE) for future in futures] == list(range(10, 30))
        assert all(future.done() and not future.cancel() for future in futures)
        numbers = [getattr(future, "parsl_executor_task_id") for future in futures]  # noqa: B009 - not declared
        assert numbers == sorted(set(numbers))


def test_an_exception_of_the_task_is_its_own(endpoint: Endpoint, tmp_path: Path) -> None:
    with running(tmp_path, endpoint) as pool:
        error = pool.submit(travelling(fail), {}, "as it is").exception(PATIENCE)
        assert type(error) is LookupError
        assert str(error) == "as it is" or error.args == ("as it is",)
        assert pool.submit(travelling(add), {}, 1).result(PATIENCE) == 2


def test_a_wish_that_it_does_not_know_is_left_out(endpoint: Endpoint, tmp_path: Path) -> None:
    with running(tmp_path, endpoint) as pool:
        assert pool.submit(travelling(add), {"priority": 5}, 1).result(PATIENCE) == 2


def test_what_cannot_be_sent_is_the_fault_of_the_task(endpoint: Endpoint, tmp_path: Path) -> None:
    with running(tmp_path, endpoint) as pool:
        future = pool.submit(travelling(add), {}, 1, second=threading.Lock())
        assert isinstance(future.exception(PATIENCE), Exception)
        assert pool.submit(travelling(add), {}, 1).result(PATIENCE) == 2


class Refuses(Mine):
    """Takes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.label = "refuses"
        self.asked = 0

    def submit(
        self, func: Callable[..., Any], resource_specification: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Future[Any]:
        del func, resource_specification, args, kwargs
        self.asked += 1
        raise OSError("no space left")


def test_it_takes_over_what_another_refuses(endpoint: Endpoint, tmp_path: Path) -> None:
    refuses = Refuses()
    with running(tmp_path, Endpoint(refuses, max_concurrency=1), endpoint) as pool:
        futures = [pool.submit(travelling(add), {}, number) for number in range(10)]
        assert [future.result(PATIENCE) for future in futures] == list(range(1, 11))
        assert refuses.asked


def test_shutdown_settles_everything(endpoint: Endpoint, tmp_path: Path) -> None:
    with running(tmp_path, endpoint) as pool:
        assert pool.submit(travelling(add), {}, 1).result(PATIENCE) == 2
        futures = [pool.submit(travelling(rest), {}, 1.5) for _ in range(6)]
    for future in futures:
        assert isinstance(future.exception(5), PoolShutdownError)
    with pytest.raises(PoolShutdownError):
        pool.submit(travelling(add), {}, 1)
