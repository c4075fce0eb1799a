"""The SDK of Globus Compute, as it is, on a local service: what upstream's smoke tests try, and lost connections."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any

import parsl
import pytest
from parsl.config import Config
from parsl.executors import GlobusComputeExecutor

pytest.importorskip("globus_compute_sdk", reason="pip install diaspora-parsl[globus-test]")

from globus_compute_sdk import Executor
from globus_compute_sdk.errors import TaskExecutionFailed, TaskPending
from globus_compute_sdk.sdk import executor as sdk_executor

from diaspora_parsl.testing.faults import LoseBroker, LoseConnection
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute

if TYPE_CHECKING:
    from globus_compute_sdk import Client

#: Seconds for everything that must come at all; the SDK takes up to 10 until it connects again.
LIMIT = 60.0
RESULT_LIMIT = 1 << 20


def hello() -> str:
    return "Hello World!"


def double(x: int) -> int:
    return x * 2


def produce(size: int) -> bytearray:
    return bytearray(size)


def measure(data: bytearray) -> int:
    return len(data)


def wait_for(path: str) -> str:
    import pathlib  # noqa: PLC0415 - runs elsewhere
    import time  # noqa: PLC0415 - runs elsewhere

    while not pathlib.Path(path).exists():
        time.sleep(0.01)
    return path


@pytest.fixture
def service() -> Iterator[LocalGlobusCompute]:
    with LocalGlobusCompute(result_limit=RESULT_LIMIT) as made:
        yield made


@pytest.fixture
def endpoint(service: LocalGlobusCompute) -> EmulatedEndpoint:
    return service.endpoint("alpha", workers=2)


@pytest.fixture
def client(service: LocalGlobusCompute) -> Client:
    return service.client()


@pytest.fixture
def executor(endpoint: EmulatedEndpoint, client: Client) -> Iterator[Executor]:
    with Executor(endpoint.id, client=client, api_burst_limit=8, api_burst_window_s=1) as made:
        made.task_group_id = None  # or all of them share one
        yield made
    for watcher in list(sdk_executor._RESULT_WATCHERS.values()):  # or they stay to the end of the interpreter
        watcher.shutdown(cancel_futures=True)


def until(known: Callable[[], Any]) -> Any:
    end = time.monotonic() + LIMIT
    while (found := known()) is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def test_versions_functions_and_status(client: Client, endpoint: EmulatedEndpoint) -> None:
    client.version_check()
    assert client.register_function(hello)
    assert client.get_endpoint_status(endpoint.id)["status"] == "online"


def test_a_function_that_is_known_already(client: Client, endpoint: EmulatedEndpoint, tmp_path: Path) -> None:
    hello_id, wait_id = client.register_function(hello), client.register_function(wait_for)
    task = client.run(endpoint_id=endpoint.id, function_id=hello_id)
    answer = until(lambda: found if not (found := client.get_task(task))["pending"] else None)
    assert answer["result"] == "Hello World!"
    path = tmp_path / "go on"
    task = client.run(str(path), endpoint_id=endpoint.id, function_id=wait_id)
    with pytest.raises(TaskPending):
        client.get_result(task)
    path.touch()
    until(lambda: None if client.get_task(task)["pending"] else True)
    assert client.get_result(task) == str(path)


def test_a_batch(client: Client, endpoint: EmulatedEndpoint) -> None:
    function = client.register_function(double)
    batch = client.create_batch()
    for x in range(10):
        batch.add(function, args=(x,))
    tasks = client.batch_run(endpoint.id, batch)["tasks"][function]

    def results() -> list[int] | None:
        found = client.get_batch_result(tasks)
        return None if any(found[task]["pending"] for task in tasks) else [found[task]["result"] for task in tasks]

    assert until(results) == [2 * x for x in range(10)]


def test_an_executor_is_used_twice_and_reloads_its_tasks(client: Client, executor: Executor) -> None:
    function = client.register_function(hello)
    for _ in range(2):
        futures = [executor.submit_to_registered_function(function) for _ in range(10)]
        assert {future.result() for future in as_completed(futures, LIMIT)} == {"Hello World!"}
    reloaded = list(executor.reload_tasks())
    assert [future.result(LIMIT) for future in reloaded] == ["Hello World!"] * 20


def test_sizes_of_arguments_and_results(executor: Executor) -> None:
    sizes = [200, 2000, 20_000, 200_000]
    produced = [executor.submit(produce, size) for size in sizes]
    measured = [executor.submit(measure, bytearray(size)) for size in sizes]
    assert [len(future.result(LIMIT)) for future in produced] == sizes
    assert [future.result(LIMIT) for future in measured] == sizes
    with pytest.raises(TaskExecutionFailed, match="MaxResultSizeExceeded"):
        executor.submit(produce, RESULT_LIMIT + 1).result(LIMIT)


@pytest.mark.parametrize("fault", [LoseConnection(at=0.0), LoseBroker(at=0.0, until=1.0)])
def test_results_survive_a_lost_connection(
    executor: Executor, endpoint: EmulatedEndpoint, tmp_path: Path, fault: LoseConnection | LoseBroker
) -> None:
    path = tmp_path / "go on"
    assert executor.submit(double, 21).result(LIMIT) == 42  # it is connected
    # Both workers are busy, so that no result comes just before the connection is lost. One that the SDK (4.19) has
    # received and not yet acknowledged, as it does each half second, makes it give up every future after 25 s.
    futures = [executor.submit(wait_for, str(path)) for _ in range(2)]
    until(lambda: True if endpoint.counts()["idle_workers"] == 0 else None)
    futures += [executor.submit(double, x) for x in range(20)]
    until(lambda: True if all(future.task_id for future in futures) else None)
    endpoint.begin(fault)
    path.touch()  # these results come while nobody listens
    if isinstance(fault, LoseBroker):
        until(lambda: True if endpoint.counts()["idle_workers"] == 2 else None)
        endpoint.end(fault)
    assert [future.result(LIMIT) for future in futures] == [str(path)] * 2 + [2 * x for x in range(20)]


def test_parsl_uses_two_endpoints(service: LocalGlobusCompute, tmp_path: Path) -> None:
    executors = []
    for label in ("alpha", "beta"):
        made = Executor(service.endpoint(label).id, client=service.client(), api_burst_limit=8, api_burst_window_s=1)
        made.task_group_id = None  # or the end of one cancels what the other waits for
        executors.append(GlobusComputeExecutor(executor=made, label=label))
    with parsl.load(Config(executors=executors, run_dir=str(tmp_path))):
        futures = [parsl.python_app(double, executors=[label])(x) for x in range(5) for label in ("alpha", "beta")]
        assert [future.result(LIMIT) for future in futures] == [2 * x for x in range(5) for _ in ("alpha", "beta")]
    assert service.tasks["success"] == 10
