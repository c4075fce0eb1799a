from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from globus_compute_common.tasks import TaskState
from globus_compute_sdk.serialize import ComputeSerializer

from diaspora_parsl.testing.globus.core import read
from diaspora_parsl.testing.globus.engines.base import Setup
from diaspora_parsl.testing.globus.engines.engine import EmulatedEngine
from diaspora_parsl.testing.globus.engines.process import Assignment
from diaspora_parsl.testing.globus.ledger import Ledger, Task

if TYPE_CHECKING:
    from diaspora_parsl.testing.globus import EmulatedEndpoint
    from tests.unit.testing.globus.rest import Rest

SERIALIZER = ComputeSerializer()
NAME = "00000000-0000-4000-8000-000000000000"


class Desk:
    """The rest of a service, for one engine."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.group = self.ledger.open_group(None)
        self.done: list[tuple[Task, Any]] = []
        self.engine: EmulatedEngine

    def report(self, task: Task, packed: bytes) -> None:
        outcome = read(packed)
        value = outcome.data if outcome.error_details else SERIALIZER.deserialize(outcome.data)
        self.ledger.settle(task, packed, failed=outcome.error_details is not None, now=0.0)
        self.done.append((task, value))

    def submit(self, function: Callable[..., Any], *args: object) -> Task:
        task = self.ledger.add(NAME, self.group, NAME, 0.0)
        code = SERIALIZER.pack_buffers([SERIALIZER.serialize(function)])
        payload = SERIALIZER.pack_buffers([SERIALIZER.serialize(args), SERIALIZER.serialize({})])
        self.engine.accept([Assignment(task, code + payload)])
        return task

    async def until_done(self, count: int) -> list[Any]:
        async with asyncio.timeout(30.0):
            while len(self.done) < count:  # noqa: ASYNC110 - short enough
                await asyncio.sleep(0.005)
        return [value for _, value in self.done]


@asynccontextmanager
async def desk(report: Callable[[Task, bytes], None] | None = None, workers: int = 1) -> AsyncIterator[Desk]:
    made = Desk()
    setup = Setup(
        label="alpha",
        name=NAME,
        workers=workers,
        nodes=1,
        result_limit=1000,
        environment={"GREETING": "hello"},
        ledger=made.ledger,
        report=report or made.report,
    )
    made.engine = EmulatedEngine(setup)
    await made.engine.start()
    try:
        yield made
    finally:
        await made.engine.stop()


def run(test: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(test())


def greet(name: str) -> str:
    import os  # noqa: PLC0415 - where it runs

    return f"{os.environ['GREETING']}, {name}"


def test_tasks_run_in_their_order_one_at_a_time() -> None:
    async def test() -> None:
        async with desk() as here:
            tasks = [here.submit(abs, -number) for number in range(20)]
            assert [task.state for task in tasks[:2]] == [TaskState.RUNNING, TaskState.WAITING_FOR_NODES]
            assert await here.until_done(20) == list(range(20))
            here.submit(greet, "world")
            assert (await here.until_done(21))[-1] == "hello, world"

    run(test)


def test_who_dies_with_an_endpoint_is_not_heard_of_again() -> None:
    async def test() -> None:
        async with desk(workers=2) as here:
            lost = [here.submit(abs, -1) for _ in range(3)]
            await here.engine.die()
            assert not here.engine.is_online
            kept = here.submit(abs, -2)
            assert here.engine.waiting == 1
            here.engine.revive()
            assert await here.until_done(1) == [2]
            assert kept.state is TaskState.SUCCESS
            assert TaskState.SUCCESS not in {task.state for task in lost}

    run(test)


def test_what_goes_wrong_inside_is_said_and_raised(caplog: pytest.LogCaptureFixture) -> None:
    def report(task: Task, _: bytes) -> None:
        raise ZeroDivisionError(task.id)

    async def test() -> None:
        async with desk(report) as here:
            here.submit(abs, -1)
            async with asyncio.timeout(30.0):
                while "Endpoint alpha lost a worker slot" not in caplog.text:  # noqa: ASYNC110 - it is no event
                    await asyncio.sleep(0.005)

    with pytest.raises(ZeroDivisionError):
        run(test)


def test_what_is_done_is_not_held(rest: Rest, alpha: EmulatedEndpoint) -> None:
    for task in [rest.submit(alpha, len, "x" * 100_000)[0] for _ in range(20)]:
        assert rest.result(task) == 100_000
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Assignment)]


def test_a_service_that_ends_while_workers_start_leaves_nothing() -> None:
    async def begin_and_leave() -> tuple[list[int], Path]:
        setup = Setup(
            label="alpha",
            name=NAME,
            workers=1,
            nodes=1,
            result_limit=1000,
            environment={},
            ledger=Ledger(),
            report=print,
        )
        made = EmulatedEngine(setup)
        start = asyncio.create_task(made.start())
        await asyncio.sleep(0.01)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        return await made.pids(), made.output.parent

    pids, folder = asyncio.run(begin_and_leave())
    assert pids == []
    assert not folder.exists()
