from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from parsl.executors import ThreadPoolExecutor

from diaspora_parsl import Endpoint
from diaspora_parsl.core import actions, stimuli
from diaspora_parsl.core.failure_rules import Rulebook
from diaspora_parsl.core.machine import PoolCore
from diaspora_parsl.core.settings import EndpointSpec
from diaspora_parsl.errors import PoolError, PoolShutdownError, TaskExceptionError
from diaspora_parsl.executors.parsl.adapter import RunContext
from diaspora_parsl.executors.parsl.scale_out_backoff import ScaleOutBackoff
from diaspora_parsl.executors.runtime.driver import Driver, OpenTask
from diaspora_parsl.executors.runtime.futures import TaskFuture
from diaspora_parsl.executors.runtime.instance import EndpointInstance, Scaling

LIMIT: Final = 20.0


def _no_instance(label: str, generation: int) -> EndpointInstance:
    raise AssertionError(f"nothing is built here: {label} {generation}")


def test_a_flood_of_heartbeats_does_not_hold_up_the_end() -> None:
    core = PoolCore([EndpointSpec(label="alpha", revivable=False)])
    driver = Driver("pool", core, _no_instance, lambda *_: None, Rulebook(), None)
    heartbeat = stimuli.HeartbeatReceived(time.monotonic(), "alpha", "block/node")
    driver._handle(heartbeat)
    assert core.assessor.health["alpha"].heartbeats
    core.assessor.health["alpha"].heartbeats.clear()
    driver._closing.set()
    driver._handle(heartbeat)
    assert not core.assessor.health["alpha"].heartbeats
    driver._handle(stimuli.Stopped(time.monotonic()))
    assert core._stopped
    assert driver._delivery.close(1.0)


class Pool:
    """A driver on an endpoint of threads that settles its attempts by itself."""

    def __init__(self) -> None:
        self.core = PoolCore([EndpointSpec(label="alpha", max_concurrency=4, revivable=False)])
        self.driver = Driver("pool", self.core, self._build, lambda *_: None)
        self._numbers = itertools.count(1)

    def _build(self, label: str, generation: int) -> EndpointInstance:
        executor = ThreadPoolExecutor(label=label, max_threads=4)
        return EndpointInstance(
            Endpoint(executor), executor, generation=generation,
            context=RunContext(run_dir=".", run_id=None, log_config=None, monitoring_messages=None),
            scaling=Scaling(strategy="none", max_idletime=1.0, strategy_period=1.0), mark="mark",
            blocks=ScaleOutBackoff(lambda *_: None), worker_init="", post=self.driver.post,
            outcome=self.driver.attempt_done,
        )  # fmt: skip

    def submit(self, function: Callable[[], Any] = int) -> TaskFuture:
        number = next(self._numbers)
        future = self.driver.new_future(number)
        stimulus = stimuli.Submitted(time.monotonic(), number, "function", frozenset({"alpha"}))
        self.driver.open_task(number, OpenTask(future, function, {}, (), {}, is_app=False), stimulus)
        return future


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool()
    made.driver.start(LIMIT)
    assert made.submit().result(LIMIT) == 0
    yield made
    made.driver.close(LIMIT)


def _failing_once(call: Callable[..., Any], error: BaseException, when: Callable[[Any], bool]) -> Callable[..., Any]:
    """The call, which raises once for an argument that fits."""
    raised: list[Any] = []

    def failing(argument: Any) -> Any:
        if not raised and when(argument):
            raised.append(argument)
            raise error
        return call(argument)

    return failing


@pytest.mark.parametrize("kind", [stimuli.Submitted, stimuli.Finished])
def test_a_task_that_the_core_fails_on_is_rejected_and_the_others_go_on(
    pool: Pool, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = _failing_once(pool.core.handle, ZeroDivisionError("a bug"), lambda s: isinstance(s, kind))
    monkeypatch.setattr(pool.core, "handle", failing)
    with pytest.raises(PoolError, match="a bug"):
        pool.submit().result(LIMIT)
    assert [pool.submit().result(LIMIT) for _ in range(10)] == [0] * 10


def test_a_core_that_is_damaged_fails_the_pool_and_every_task(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    running = pool.submit(lambda: release.wait(LIMIT))
    monkeypatch.setattr(pool.core, "handle", _failing_once(pool.core.handle, ZeroDivisionError("a bug"),
                                                           lambda s: isinstance(s, stimuli.Observed)))  # fmt: skip
    with pytest.raises(PoolError, match="a bug"):
        running.result(LIMIT)
    release.set()
    with pytest.raises(PoolError, match="runs no more tasks"):
        pool.submit().result(LIMIT)


@pytest.mark.parametrize("kind", [actions.Resolve, actions.Dispatch])
@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread"), KeyError("bug")])
def test_an_action_that_cannot_be_performed_costs_at_most_its_task(
    pool: Pool, kind: type, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    performers = pool.driver._performers
    monkeypatch.setitem(performers, kind, _failing_once(performers[kind], error, lambda _: True))
    first = pool.submit()
    if kind is actions.Resolve and isinstance(error, KeyError):
        with pytest.raises(PoolError, match="lost the outcome"):
            first.result(LIMIT)
    else:
        assert first.result(LIMIT) == 0
    assert [pool.submit().result(LIMIT) for _ in range(10)] == [0] * 10


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_ends_a_thread_is_delivered_as_an_exception(pool: Pool, kind: type[BaseException]) -> None:
    def task() -> None:
        raise kind

    with pytest.raises(TaskExceptionError, match=kind.__name__):
        pool.submit(task).result(LIMIT)
    assert pool.submit().result(LIMIT) == 0


def test_a_task_that_comes_while_the_pool_ends_is_settled(pool: Pool) -> None:
    pool.driver.close(LIMIT)
    assert isinstance(pool.submit().exception(LIMIT), PoolShutdownError)


def test_an_instance_that_is_rebuilt_while_the_pool_ends_is_closed(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    driver, building = pool.driver, threading.Event()
    built: list[EndpointInstance] = []

    def build(label: str, generation: int) -> EndpointInstance:
        building.set()
        end = time.monotonic() + LIMIT
        while driver._failure is None and time.monotonic() < end:  # the driver's thread has ended
            time.sleep(0.005)
        built.append(pool._build(label, generation))
        return built[0]

    monkeypatch.setattr(driver, "_build", build)
    driver._revive(actions.Revive("alpha", 1, "it died"))
    assert building.wait(LIMIT)
    driver.close(LIMIT)
    assert built[0]._closed.is_set()
