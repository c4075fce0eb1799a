from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil
import pytest
from globus_compute_sdk import Client, Executor
from globus_compute_sdk.errors import TaskExecutionFailed
from globus_compute_sdk.sdk import executor as sdk_executor

from diaspora_parsl.errors import ConfigurationError
from diaspora_parsl.testing.globus import EmulatedEndpoint, LocalGlobusCompute, client

if TYPE_CHECKING:
    from tests.unit.testing.globus.rest import Rest

#: Keeps workers busy in a process of its own, which says who they are.
CONTROLLER = """
import sys, time
from diaspora_parsl.testing.faults import Freeze
from diaspora_parsl.testing.globus import LocalGlobusCompute
with LocalGlobusCompute() as service:
    alpha, beta = service.endpoint("alpha"), service.endpoint("beta")
    client = service.client()
    function = client.register_function(time.sleep)
    client.run(1000, endpoint_id=alpha.id, function_id=function)
    while alpha.counts()["idle_workers"]:
        time.sleep(0.01)
    beta.begin(Freeze(at=0.0, endpoint="beta", until=1.0))
    print(*alpha.pids(), *beta.pids(), flush=True)
    time.sleep(1000)
"""


def add(a: int, b: int = 1) -> int:
    return a + b


def fail() -> None:
    raise KeyError("nothing there")


@contextmanager
def executor(endpoint: EmulatedEndpoint, sdk_client: Client) -> Iterator[Executor]:
    """An executor of the SDK that leaves no thread behind."""
    made = Executor(endpoint.id, client=sdk_client, api_burst_limit=8, api_burst_window_s=1)
    made.task_group_id = None  # or all of them share one
    try:
        with made:
            yield made
    finally:
        for watcher in list(sdk_executor._RESULT_WATCHERS.values()):
            watcher.shutdown(cancel_futures=True)


def test_the_sdk_runs_functions_there(service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    with executor(alpha, service.client()) as gce:
        futures = [gce.submit(add, i, b=2) for i in range(20)]
        failing = gce.submit(fail)
        assert [future.result(30) for future in futures] == list(range(2, 22))
        with pytest.raises(TaskExecutionFailed, match="KeyError: 'nothing there'"):
            failing.result(30)
    assert service.tasks["success"] == 20
    assert service.tasks["failed"] == 1
    assert service.requests_seen["GET /v2/get_amqp_result_connection_url"] == 1


def test_a_client_of_the_sdk_knows_its_way_around(service: LocalGlobusCompute, alpha: EmulatedEndpoint) -> None:
    sdk_client = client(service.url)
    function = sdk_client.register_function(add)
    task = sdk_client.run(1, endpoint_id=alpha.id, function_id=function)
    end = time.monotonic() + 30.0
    while sdk_client.get_task(task)["pending"]:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert sdk_client.get_result(task) == 2
    assert sdk_client.get_batch_result([task])[task]["status"] == "success"
    assert sdk_client.get_function(function)["function_name"] == "add"
    assert [found["uuid"] for found in sdk_client.get_endpoints()] == [alpha.id]
    assert sdk_client.get_endpoint_metadata(alpha.id)["display_name"] == "alpha"
    assert sdk_client.get_endpoint_status(alpha.id)["details"]["total_workers"] == 2
    assert not sdk_client.get_allowed_functions(alpha.id)["restricted"]
    sdk_client.delete_function(function)


def test_several_services_stand_side_by_side(service: LocalGlobusCompute) -> None:
    with LocalGlobusCompute() as other:
        assert other.url != service.url
        here, there = service.endpoint("alpha"), other.endpoint("alpha")
        assert client(service.url).get_endpoint_status(here.id)["status"] == "online"
        assert client(other.url).get_endpoint_status(there.id)["status"] == "online"
        assert [endpoint.label for endpoint in other.endpoints] == ["alpha"]


def test_what_cannot_be_is_refused(service: LocalGlobusCompute) -> None:
    service.endpoint("alpha")
    with pytest.raises(ConfigurationError, match="give another label"):
        service.endpoint("alpha")
    with pytest.raises(ConfigurationError, match="give at least one"):
        service.endpoint("beta", workers=0)
    with pytest.raises(ConfigurationError, match="give numbers above 0"):
        LocalGlobusCompute(requests=(0, 1.0))
    with pytest.raises(RuntimeError, match="make another"):
        service.start()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = LocalGlobusCompute().tasks


def test_a_port_that_is_taken_is_said_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="address already in use"):
        LocalGlobusCompute(port=taken.getsockname()[1]).start()


def test_a_worker_that_cannot_start_is_shown(service: LocalGlobusCompute, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("diaspora_parsl.testing.globus.engines.engine._READY_LIMIT", 3.0)
        with pytest.raises(RuntimeError, match=r"(?s)do not start.*Fatal Python error"):
            service.endpoint("alpha", environment={"PYTHONHOME": "/nowhere"})
    service.endpoint("alpha")


def test_nothing_is_left_when_it_stops(rest: Rest, alpha: EmulatedEndpoint, service: LocalGlobusCompute) -> None:
    rest.submit(alpha, time.sleep, 1000)
    rest.until(lambda: alpha.counts()["idle_workers"] == 1)
    workers = [psutil.Process(pid) for pid in alpha.pids()]
    service.stop()
    assert not any(worker.is_running() for worker in workers)
    assert not alpha.output.parent.exists()
    service.stop()


def test_workers_do_not_outlive_who_started_them() -> None:
    with subprocess.Popen([sys.executable, "-c", CONTROLLER], stdout=subprocess.PIPE, text=True) as controller:
        assert controller.stdout is not None
        workers = [psutil.Process(int(pid)) for pid in controller.stdout.readline().split()]
        assert len(workers) == 2
        controller.kill()
    _, alive = psutil.wait_procs(workers, timeout=10.0)
    assert not alive
